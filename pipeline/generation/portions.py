"""How many pictures are in memory at once: a bound in bytes, for their number and their size are the user's choice."""

from __future__ import annotations

from collections.abc import Iterator

PORTION_BYTES = 128 * 2**20
"""Most memory of one portion; a single picture may need more."""

BYTES_OF_A_VALUE = 14
"""Of one channel of one pixel while it is decoded: the sum and its plane, the intensity, the rounded copy, 8 bits."""


def pictures_at_once(height: int, width: int, channels: int) -> int:
    """Pictures of one size that may be decoded together: at least one.

    Args:
        height: rows.
        width: columns.
        channels: 1 or 3.
    """
    return max(1, PORTION_BYTES // (height * width * channels * BYTES_OF_A_VALUE))


def portions(count: int, at_once: int) -> Iterator[slice]:
    """Slices that go through ``count`` things, ``at_once`` at a time."""
    for first in range(0, count, at_once):
        yield slice(first, min(first + at_once, count))
