"""Which finished rows of a store are learnt from: each picture once, and some kept apart for evaluation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MOST_NAMED = 20


@dataclass(frozen=True)
class DataSplit:
    """Row numbers, ascending.

    Attributes:
        training: to learn from.
        held_out: kept apart.
        repeats: rows whose pixels an earlier row has; in neither of the others.
    """

    training: NDArray[np.int64]
    held_out: NDArray[np.int64]
    repeats: NDArray[np.int64]


def split_rows(rows: NDArray[np.int64], hashes: NDArray[np.uint8], *, distinct: bool, held_out: float) -> DataSplit:
    """Splits rows by the contents of their images, whatever their order: a picture is on the same side in any store.

    Args:
        rows: int64 [image], ascending.
        hashes: uint8 [image, byte], of each what ``content_identities`` gives.
        distinct: leave out rows that repeat an earlier one.
        held_out: share to keep apart, below 1.
    """
    keys = np.ascontiguousarray(hashes).view(f"V{hashes.shape[1]}").ravel() if len(hashes) else np.empty(0, "V16")
    first = np.zeros(len(rows), bool)
    first[np.unique(keys, return_index=True)[1]] = True
    kept = first if distinct else np.ones(len(rows), bool)
    share = np.ascontiguousarray(hashes[:, :8]).view("<u8").ravel() / 2.0**64
    apart = share < held_out
    return DataSplit(rows[kept & ~apart], rows[kept & apart], rows[~kept])
