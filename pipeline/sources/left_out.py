"""Files of a place that are no images of its data set: counted and named, so that none is lost without a word."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from data_schemas.printable import printable

logger = logging.getLogger("splatspace.sources")

NAMED = 3
"""Names of each kind in the warning; the rest are counted."""


class LeftOut(NamedTuple):
    """Files that are left out for one reason.

    Attributes:
        names: of the files.
        reason: why, as it stands before a number: ``hidden``.
    """

    names: Sequence[str]
    reason: str


def warn_of_left_out(where: str, left_out: Sequence[LeftOut]) -> int:
    """One warning for a whole place, and how many files it speaks of."""
    kinds = [kind for kind in left_out if kind.names]
    count = sum(len(kind.names) for kind in kinds)
    if count:
        logger.warning(
            "%s: %s left out: %s",
            where,
            "1 file is" if count == 1 else f"{count:,} files are",
            ", ".join(f"{kind.reason} {len(kind.names):,} ({some(kind.names, NAMED)})" for kind in kinds),
        )
    return count


def some(names: Sequence[str], most: int) -> str:
    """The first names, fit to be shown, and the number of the others."""
    more = len(names) - most
    return "; ".join(map(printable, names[:most])) + (f"; and {more:,} more" if more > 0 else "")
