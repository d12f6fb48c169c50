"""Whole numbers that users type or write into files, which may be of any length."""

from __future__ import annotations

from data_schemas.errors import JobError

LARGEST_SEED = 2**63 - 1
"""Of every command: what the header of a store and the generators of torch can hold."""

MOST_DIGITS = 18
"""Any number of so many digits fits into 64 bits. Python itself refuses to read more than 4,300."""


def whole_number(text: str) -> int | None:
    """The number that a text is, with or without a minus; None for other text and for numbers of more digits."""
    digits = text.removeprefix("-")
    return int(text) if digits.isdecimal() and len(digits) <= MOST_DIGITS else None


def require_seed(seed: int) -> None:
    """Refuses a seed before any work is done.

    Raises:
        JobError: below 0, or above ``LARGEST_SEED``.
    """
    if not 0 <= seed <= LARGEST_SEED:
        shown = str(seed) if abs(seed) < 10**40 else "of more than 40 digits"
        raise JobError(f"--seed {shown}", allowed=f"0 to {LARGEST_SEED}")
