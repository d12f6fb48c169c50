"""Which row of a store belongs to which image of a source, by name, in memory that ten million images do not fill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_schemas.store import SplatStore

ROWS_AT_ONCE = 65_536
"""Names held in memory while a store is compared with its source."""


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
