"""The heads of the patch models by name, as published and improved, in every size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from models.head_kpn import KpnConfig
from models.head_lut import LutConfig
from models.head_outer import OuterConfig
from models.head_splats import SplatHeadConfig
from models.patch_head import PatchConfig
from models.trunk import TrunkSize

HeadName = Literal["kpn", "lut", "outer", "splats"]
HEADS: tuple[HeadName, ...] = get_args(HeadName)

RecipeName = Literal["published", "modern"]
RECIPES: tuple[RecipeName, ...] = get_args(RecipeName)

_PUBLISHED_SIZES = {
    "tiny": TrunkSize(width=64, depth=2, heads=2),
    "small": TrunkSize(width=256, depth=6, heads=4),
    "medium": TrunkSize(width=384, depth=12, heads=6),
    "full": TrunkSize(width=512, depth=16, heads=8),
}
_MODERN_SIZES = {
    # Three matrices of 3/4 of the width, gated and brought back, cost about what two of the full width do.
    name: replace(size, hidden=size.width * 3 // 4)
    for name, size in _PUBLISHED_SIZES.items()
}


@dataclass(frozen=True)
class PatchFamily:
    """One head with one trunk.

    Attributes:
        presets: the sizes.
        summary: one line for people.
    """

    presets: Mapping[str, PatchConfig]
    summary: str


def model_name(head: HeadName, recipe: RecipeName) -> str:
    """What ``models.registry`` calls it."""
    return f"cats-{head}" if recipe == "modern" else f"cats-{head}-published"


def _families() -> dict[tuple[HeadName, RecipeName], PatchFamily]:
    published, modern = _PUBLISHED_SIZES.items(), _MODERN_SIZES.items()
    return {
        ("kpn", "published"): PatchFamily(
            {name: KpnConfig(size) for name, size in published},
            "kernels that filter the noisy image, as published",
        ),
        ("kpn", "modern"): PatchFamily(
            {name: KpnConfig(size, registers=4) for name, size in modern},
            "kernels that filter the noisy image, and colours where filters cannot help",
        ),
        ("lut", "published"): PatchFamily(
            {name: LutConfig(size, entries=512, activation="softmax") for name, size in published},
            "patches as means of 512 learned patterns, as published",
        ),
        ("lut", "modern"): PatchFamily(
            {name: LutConfig(size, registers=4, gram=0.2) for name, size in modern},
            "patches as sums of learned patterns that differ from each other",
        ),
        ("outer", "published"): PatchFamily(
            {name: OuterConfig(size) for name, size in published},
            "patches as sums of 64 products drawn anew for each image, as published",
        ),
        ("outer", "modern"): PatchFamily(
            {name: OuterConfig(size, registers=4) for name, size in modern},
            "patches as sums of 64 products drawn anew for each image, which start as cosine waves",
        ),
        ("splats", "published"): PatchFamily(
            {name: SplatHeadConfig(size, kernel="cosine", neighbourhood="patch") for name, size in published},
            "patches as 16 splats each, drawn at any size, as published",
        ),
        ("splats", "modern"): PatchFamily(
            {name: SplatHeadConfig(size, registers=4) for name, size in modern},
            "patches as splats that neighbours share, drawn at any size without seams",
        ),
    }


FAMILIES = _families()
