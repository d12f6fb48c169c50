"""How images and steps are divided into launches; no result depends on it."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from encoders.base import FitSettings
from encoders.cuda.device_fit import DeviceFit
from encoders.cuda.fused_batch import FusedFit
from encoders.cuda.tiled_batch import TiledFit
from encoders.recipe import Recipe

FUSED_PIXELS, FUSED_GAUSSIANS = 128 * 128, 2048
"""Up to here an image is fitted by one program; larger ones are shared out over many."""

MOST_IMAGES = 65_535
"""Of a launch: images are numbered along an axis of the grid that holds no more."""


def is_fused(settings: FitSettings, height: int, width: int) -> bool:
    """Whether an image of this shape is fitted by one program."""
    return height * width <= FUSED_PIXELS and settings.gaussians <= FUSED_GAUSSIANS


def device_fit(
    settings: FitSettings, recipe: Recipe, height: int, width: int, channels: int, *, banded: bool = False
) -> DeviceFit:
    """The fit for images of one shape: fused where an image is small, else tiled; by shape and settings alone."""
    if is_fused(settings, height, width):
        return FusedFit.of(settings, recipe, height, width, channels, banded=banded)
    return TiledFit(settings, recipe, height, width, channels)


def slab_size(fit: DeviceFit, device_bytes: int, slots: int, pairs_per_second: float, seconds: float) -> int:
    """Images of a launch: whole waves of programs that take about ``seconds``, as far as memory goes.

    Args:
        fit: what is fitted.
        device_bytes: memory that may be used.
        slots: programs that run at once.
        pairs_per_second: pixel-Gaussian pairs that the device handles, roughly.
        seconds: how long a launch should take.

    Returns:
        At least 1: the first allocation tells whether even that is too much.
    """
    by_memory = device_bytes // fit.bytes_per_image
    by_time = seconds * pairs_per_second / (fit.pairs_per_step * max(1, fit.settings.most_steps))
    wave = max(1, slots // fit.programs)
    return max(1, min(by_memory, MOST_IMAGES, wave * max(1, math.floor(by_time / wave))))


def steps_of_launches(fit: DeviceFit, images: int, pairs_per_second: float, seconds: float) -> list[int]:
    """Where launches end: one for the whole fit, unless it takes much longer than ``seconds``.

    Returns:
        Values for ``DeviceBatch.advance``, rising; the last is ``most_steps`` + 1.
    """
    whole = images * fit.pairs_per_step * (fit.settings.most_steps + 1) / pairs_per_second
    parts = min(max(1, round(whole / (2 * seconds))), fit.settings.most_steps + 1)
    return [(part + 1) * (fit.settings.most_steps + 1) // parts for part in range(parts)]


def schedule_on(device: torch.device, recipe: Recipe, settings: FitSettings) -> Tensor:
    """``Recipe.schedule`` on a device, at least one row."""
    rates: NDArray[np.float32] = recipe.schedule(max(1, settings.steps), settings.rounds)
    return torch.from_numpy(rates).to(device)
