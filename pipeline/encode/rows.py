"""Which row of a store belongs to which image: by name, by content, and the rows that a failed run left without splats.

All in memory that ten million images do not fill: an image that is not found by content is fitted again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreCorruptError
from data_schemas.records import RowState
from data_schemas.stores.contract import SplatStore, block_range, blocks
from pipeline.format import list_names

ROWS_AT_ONCE = 65_536
"""Names held in memory while a store is compared with its source."""

MOST_STORED = 2**22
"""Rows of earlier runs that are remembered: 16 bytes each."""

MOST_RECENT = 2**18
"""Rows of this run that are remembered: about 150 bytes each; the oldest are forgotten first."""


class NameIndex:
    """Finds names in a sequence by their hash: 16 bytes a name, where a dict of text needs about 150.

    Args:
        names: unique or not; read in portions, so it may make them on demand.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        hashes = np.empty(len(names), np.int64)
        for first in range(0, len(names), ROWS_AT_ONCE):
            part = names[first : first + ROWS_AT_ONCE]
            hashes[first : first + len(part)] = [hash(name) for name in part]
        self._order = np.argsort(hashes, kind="stable")
        self._sorted = hashes[self._order]

    def find(self, name: str) -> int:
        """Index of the first occurrence, -1 where there is none."""
        key = hash(name)
        for at in range(int(np.searchsorted(self._sorted, key)), len(self._sorted)):
            if self._sorted[at] != key:
                return -1
            index = int(self._order[at])
            if self._names[index] == name:
                return index
        return -1

    def repeated(self) -> str | None:
        """A name that occurs twice, or None."""
        for at in np.flatnonzero(self._sorted[1:] == self._sorted[:-1]):
            name = self._names[int(self._order[at + 1])]
            if self.find(name) != int(self._order[at + 1]):
                return name
        return None


@dataclass(frozen=True)
class RowMatch:
    """Rows of a store and images of a source.

    Attributes:
        rows: rows of the store.
        indices: int64 [row], index in the source of each row's image, -1 where the source has none; or None where
            row n is image n, the usual case, which needs no memory.
    """

    rows: int
    indices: NDArray[np.int64] | None

    @property
    def aligned(self) -> bool:
        """Whether row n is image n."""
        return self.indices is None

    def of(self, start: int, stop: int) -> NDArray[np.int64]:
        """int64 [row], for the rows from ``start`` to ``stop``."""
        if self.indices is None:
            return np.arange(start, stop, dtype=np.int64)
        return self.indices[start:stop]

    def removed(self) -> int:
        """Rows whose image the source does not have."""
        return 0 if self.indices is None else int((self.indices < 0).sum())

    def new(self, images: int) -> NDArray[np.int64] | range:
        """Indices of the first ``images`` images that have no row, ascending."""
        if self.indices is None:
            return range(min(self.rows, images), images)
        known = np.zeros(images, bool)
        known[self.indices[(self.indices >= 0) & (self.indices < images)]] = True
        return np.flatnonzero(~known)

    def portions(self, images: int) -> Iterator[tuple[slice, NDArray[np.bool_]]]:
        """Slices of rows, and bool [row]: whether each row holds one of the first ``images`` images."""
        for first in range(0, self.rows, ROWS_AT_ONCE):
            stop = min(first + ROWS_AT_ONCE, self.rows)
            indices = self.of(first, stop)
            yield slice(first, stop), (indices >= 0) & (indices < images)


def match_rows(store: SplatStore, names: Sequence[str]) -> RowMatch:
    """Compares the names in a store with those of a source.

    Args:
        store: open.
        names: of the source, unique.
    """
    rows = len(store)
    aligned = 0
    if rows <= len(names):
        while aligned < rows:
            stop = min(aligned + ROWS_AT_ONCE, rows)
            if _stored(store, aligned, stop) != list(names[aligned:stop]):
                break
            aligned = stop
    if aligned == rows:
        return RowMatch(rows, None)
    indices = np.empty(rows, np.int64)
    indices[:aligned] = np.arange(aligned)
    index = NameIndex(names)
    for first in range(aligned, rows, ROWS_AT_ONCE):
        stop = min(first + ROWS_AT_ONCE, rows)
        indices[first:stop] = [index.find(name) for name in _stored(store, first, stop)]
    return RowMatch(rows, indices)


def _stored(store: SplatStore, start: int, stop: int) -> list[str]:
    return [str(name) for name in store.read(["source_id"], slice(start, stop))["source_id"]]


class ContentIndex:
    """Content hash to row, for rows that were done before and for rows that this run adds.

    Identical content gives identical splats, so what is forgotten costs time and changes no byte.
    """

    def __init__(self) -> None:
        self._hashes: NDArray[np.uint64] = np.zeros(0, np.uint64)
        self._rows: NDArray[np.int64] = np.zeros(0, np.int64)
        self._recent: dict[bytes, int] = {}

    @classmethod
    def of_store(cls, store: SplatStore, block_rows: int) -> ContentIndex:
        """Reads the hashes of the rows that are done; damaged blocks are left out."""
        hashes: list[NDArray[np.uint64]] = []
        rows: list[NDArray[np.int64]] = []
        found = 0
        for block in blocks(len(store), block_rows):
            span = block_range(block, block_rows, len(store))
            try:
                content = store.read(["state", "content_hash"], slice(span.start, span.stop))
            except StoreCorruptError:
                continue  # the block is reported and encoded again when its turn comes
            # Rows that were imported without their images have no hash.
            at = np.flatnonzero((content["state"] == RowState.DONE) & content["content_hash"].any(axis=1))
            hashes.append(_first_eight_bytes(content["content_hash"][at]))
            rows.append(span.start + at.astype(np.int64))
            found += len(at)
            if found >= MOST_STORED:
                break
        index = cls()
        if hashes:
            every = np.concatenate(hashes)
            order = np.argsort(every, kind="stable")
            index._hashes, index._rows = every[order], np.concatenate(rows)[order]
        return index

    def add(self, digest: bytes, row: int) -> None:
        """Remembers a row of this run; the first row of a content stays."""
        if digest in self._recent:
            return
        if len(self._recent) >= MOST_RECENT:
            del self._recent[next(iter(self._recent))]
        self._recent[digest] = row

    def candidates(self, digest: bytes) -> list[int]:
        """Rows that may hold this content, earlier runs first; the caller compares the whole hash."""
        key = _first_eight_bytes(np.frombuffer(digest, np.uint8)[None])[0]
        first, last = np.searchsorted(self._hashes, key), np.searchsorted(self._hashes, key, side="right")
        stored = [int(row) for row in self._rows[first : min(last, first + 4)]]
        recent = self._recent.get(digest)
        return stored if recent is None else [*stored, recent]


def _first_eight_bytes(hashes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    return np.ascontiguousarray(hashes[:, :8]).view(np.uint64)[:, 0]


@dataclass(frozen=True)
class UnfinishedRows:
    """Rows that are not done.

    Attributes:
        count: how many.
        named: names of the first ones inside their source.
    """

    count: int
    named: tuple[str, ...]

    def __str__(self) -> str:
        return list_names(self.named, count=self.count)


def find_unfinished_rows(store: SplatStore, blocks: Iterable[int], *, most_named: int = 20) -> UnfinishedRows:
    """Looks which rows of some blocks are not done; a block that cannot be read counts as a whole.

    Args:
        store: open for reading.
        blocks: numbers of the blocks.
        most_named: how many rows are named; the rest are counted.
    """
    count = 0
    named: list[str] = []
    for block in blocks:
        span = block_range(block, store.header.block_rows, len(store))
        try:
            read = store.read(
                ["state", "source_id"] if len(named) < most_named else ["state"], slice(span.start, span.stop)
            )
        except StoreCorruptError:
            count += len(span)
            named += [f"row {row}" for row in span[: most_named - len(named)]]
            continue
        missing = np.flatnonzero(read["state"] != RowState.DONE)
        count += len(missing)
        named += [str(read["source_id"][position]) for position in missing[: most_named - len(named)]]
    return UnfinishedRows(count, tuple(named))
