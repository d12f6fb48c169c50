"""How many images it takes to foretell starts from, and what is said of fewer."""

from __future__ import annotations

from data_schemas.errors import SourceError

FEWEST_LEARNT = 40
"""Finished images of the first fit of ``--refine regressed``."""


def too_few_to_learn(images: int, where: str) -> SourceError:
    """The error of a set, a path or a store, that holds fewer than ``FEWEST_LEARNT`` images."""
    return SourceError(
        f"{images} images in {where} to foretell starts from",
        allowed=f"{FEWEST_LEARNT} or more",
        next_step="leave --refine out, or encode more images",
    )
