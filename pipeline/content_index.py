"""Which row of a store holds an image of given content: bounded in memory, since an image not found is fitted again."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreCorruptError
from data_schemas.records import RowState
from data_schemas.store import SplatStore, block_range, blocks

MOST_STORED = 2**22
"""Rows of earlier runs that are remembered: 16 bytes each."""

MOST_RECENT = 2**18
"""Rows of this run that are remembered: about 150 bytes each; the oldest are forgotten first."""


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
