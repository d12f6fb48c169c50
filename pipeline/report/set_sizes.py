"""How many images the named data sets hold, so that a report of a part of one can say which part."""

from __future__ import annotations

from data_schemas.records import SourceRecord

_SPRITES = {"train": 63_000, "test": 18_648, "all": 81_648}

SET_IMAGES: dict[str, dict[str, int]] = {
    "mnist": {"train": 60_000, "test": 10_000, "all": 70_000},
    "cifar10": {"train": 50_000, "test": 10_000, "all": 60_000},
    "sprites": _SPRITES,
    "sprites64": _SPRITES,
    "cats": {"all": 9_303},
    "demo": {"all": 1_000},
}
"""By name and split as the sources record them; an incomplete copy records another name."""


def set_images(source: SourceRecord) -> int | None:
    """Images of the whole split; None for a folder, a file, or an incomplete copy, whose size is not recorded."""
    return SET_IMAGES.get(source.name, {}).get(source.split)
