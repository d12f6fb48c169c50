"""Whole numbers that users type or write into files, which may be of any length."""

from __future__ import annotations

LARGEST_SEED = 2**63 - 1
"""Of every command: what the header of a store and the generators of torch can hold."""

MOST_DIGITS = 18
"""Any number of so many digits fits into 64 bits. Python itself refuses to read more than 4,300."""


def whole_number(text: str) -> int | None:
    """The number that a text is, with or without a minus; None for other text and for numbers of more digits."""
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and len(digits) <= MOST_DIGITS else None
