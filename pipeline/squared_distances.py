"""Squared Euclidean distances between rows of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_ROWS_AT_ONCE = 512
"""Bounds the float64 copies: a few of so many rows each, whatever the size of the sets."""


def squared_distances(first: NDArray[np.float32], second: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """|a - b|^2 = |a|^2 - 2 a.b + |b|^2, in float64, so that what cancels loses nothing that float32 could hold.

    Args:
        first: float32 [row, number].
        second: float32 [row, number]; None for ``first`` itself, whose diagonal is then exactly 0.

    Returns:
        float32 [row of first, row of second], none below 0.
    """
    other = first if second is None else second
    found = np.empty((len(first), len(other)), np.float32)
    for rows in _portions(len(first)):
        left = first[rows].astype(np.float64)
        for columns in _portions(len(other)):
            if second is None and columns.start < rows.start:
                found[rows, columns] = found[columns, rows].T
                continue
            right = other[columns].astype(np.float64)
            products = left @ right.T
            products *= -2
            products += _squares(left)[:, None]
            products += _squares(right)
            np.maximum(products, 0, out=products)
            found[rows, columns] = products
    if second is None:
        np.fill_diagonal(found, 0)
    return found


def _portions(rows: int) -> list[slice]:
    return [slice(at, at + _ROWS_AT_ONCE) for at in range(0, rows, _ROWS_AT_ONCE)]


def _squares(rows: NDArray[Any]) -> NDArray[np.float64]:
    return np.einsum("ij,ij->i", rows, rows)
