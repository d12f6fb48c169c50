"""Numbers with commas between them, as options of the command line."""

from __future__ import annotations

import math

from data_schemas.errors import JobError


def numbers_of(option: str, text: str, count: int | None = None) -> tuple[float, ...]:
    """Reads ``1,2.5,3``.

    Args:
        option: its name, for the message.
        text: what was given.
        count: how many there have to be; None for any number but zero.

    Raises:
        JobError: other text, or another count.
    """
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or not all(map(math.isfinite, values)) or (count is not None and len(values) != count):
        wanted = "numbers" if count is None else f"{count} numbers"
        raise JobError(f"{option} {text}", allowed=f"{wanted} with commas between them")
    return values
