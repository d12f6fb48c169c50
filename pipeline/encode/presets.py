"""THE table: what is assumed for each named data set when the user says nothing else; the words that options know.

Apart from the job, so that the command line reads them at no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from data_schemas.splats import ADDITIVE, CodecName, ColourRange, SplatDtype, StartName

Split = Literal["train", "test", "all"]

PIXELS_PER_GAUSSIAN = 8
"""For a path (no preset): one Gaussian for so many pixels, about a third of the numbers of an RGB image."""

FEWEST_BY_DEFAULT, MOST_BY_DEFAULT = 16, 4096

EngineName = Literal["auto", "cpu", "reference", "gsplat", "cuda", "none"]

RefineName = Literal["none", "regressed"]


@dataclass(frozen=True)
class Preset:
    """Defaults for one data set; every field but the size can be changed by an option.

    Attributes:
        name: what the user types.
        title: for people.
        gaussians: K, Gaussians per image.
        height: pixels of the images that the source yields.
        width: pixels of the images that the source yields.
        channels: 1 (grey) or 3 (RGB).
        split: part of the set that is encoded by default.
        steps: most optimiser steps per image.
        codec: how the Gaussians make an image.
        start: where Gaussians begin.
        colours: range of the colours.
        dtype: type of the stored numbers.
    """

    name: str
    title: str
    gaussians: int
    height: int
    width: int
    channels: int
    split: Split = "all"
    steps: int = 400
    codec: CodecName = ADDITIVE
    start: StartName = "transport"
    colours: ColourRange = "bounded"
    dtype: SplatDtype = "float16"


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("mnist", "MNIST handwritten digits", 70, 28, 28, 1, split="train"),
        Preset("sprites", "Sprites (Li & Mandt), 2x2 box mean", 150, 32, 32, 3),
        Preset("sprites64", "Sprites (Li & Mandt), original size", 500, 64, 64, 3),
        Preset("cifar10", "CIFAR-10 photographs", 200, 32, 32, 3, split="train"),
        Preset("cats", "Cat faces, repeats removed", 256, 64, 64, 3),
        Preset("demo", "Built-in sprites, made at run time", 150, 32, 32, 3),
    )
}

PATH_DEFAULTS = Preset("path", "A folder, .zip, .npz or .npy of images", 0, 0, 0, 0)
"""Defaults for a path; K follows from the image size by ``gaussians_for``."""


def preset_for(dataset: str) -> Preset:
    """The preset of that name, or the defaults for a path."""
    return PRESETS.get(dataset, PATH_DEFAULTS)


def gaussians_for(height: int, width: int) -> int:
    """K for images of this size where neither a preset nor the user says it."""
    return min(max(height * width // PIXELS_PER_GAUSSIAN, FEWEST_BY_DEFAULT), MOST_BY_DEFAULT)
