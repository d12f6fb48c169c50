"""Which rows a reader asks for, and which of them lie in the same chunks on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.locations import Location


def block_range(block: int, block_rows: int, rows: int) -> range:
    """Row numbers of one block."""
    return range(block * block_rows, min((block + 1) * block_rows, rows))


def blocks(rows: int, block_rows: int) -> Iterator[int]:
    """Numbers of the blocks that hold ``rows`` rows."""
    yield from range(-(-rows // block_rows))


def row_numbers(rows: slice | Sequence[int], total: int, path: Location) -> range | NDArray[np.intp]:
    """Row numbers as asked for.

    Args:
        rows: a slice, or row numbers in any order; negative ones count from the end.
        total: rows of the store.
        path: of the store, for messages.

    Returns:
        A range of step 1 where the rows are consecutive, else intp [row] of numbers in [0, total).

    Raises:
        StoreError: not row numbers, or a row that the store does not have.
    """
    if isinstance(rows, slice):
        span = range(*rows.indices(total))
        return span if span.step == 1 else np.asarray(span, dtype=np.intp)
    numbers = np.asarray(rows)
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise StoreError(
            f"Rows given as {numbers.dtype} of shape {numbers.shape}", allowed="a slice or a list of row numbers"
        )
    outside = (numbers < -total) | (numbers >= total)
    if outside.any():
        raise StoreError(f"Row {int(numbers[outside][0])} of {path}", allowed=f"0 to {total - 1}")
    numbers = numbers.astype(np.intp)
    return np.where(numbers < 0, numbers + total, numbers)


def block_span(block: int, block_rows: int, total: int, path: Location) -> range:
    """Row numbers of a block that the store has.

    Raises:
        StoreError: there is no such block.
    """
    count = -(-total // block_rows)
    if not 0 <= block < count:
        raise StoreError(f"Block {block} of {path}", allowed=f"0 to {count - 1} ({total} rows, {block_rows} a block)")
    return block_range(block, block_rows, total)


def chunk_groups(numbers: NDArray[np.intp], chunk_rows: int) -> Iterator[NDArray[np.intp]]:
    """Groups rows that are cheap to fetch together: those in the same or in neighbouring chunks.

    Args:
        numbers: intp [row], in any order, repeats allowed.
        chunk_rows: rows per chunk.

    Yields:
        Positions in ``numbers``, sorted by row number.
    """
    if not len(numbers):
        return
    order = np.argsort(numbers, kind="stable")
    breaks = np.flatnonzero(np.diff(numbers[order] // chunk_rows) > 1) + 1
    yield from np.split(order, breaks)


def spans(rows: Sequence[int]) -> str:
    """Row numbers for people: ``0-63, 70``."""
    numbers = np.unique(np.asarray(rows, dtype=np.int64))
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1) if len(numbers) else []
    parts = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs]
    return ", ".join(parts[:8]) + (f" and {len(parts) - 8} more spans" if len(parts) > 8 else "")
