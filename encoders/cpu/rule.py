"""What decides a fit beside the pixels and where Gaussians begin, as the compiled code takes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import NORMALISED, NORMALISED_EPSILON
from encoders.base import FitSettings
from encoders.recipe import Recipe


class FitRule(NamedTuple):
    """The last arguments of ``encoders.cpu.fit.fit_images``, where they are explained."""

    rates: NDArray[np.float32]
    betas: NDArray[np.float32]
    limits: NDArray[np.float32]
    target_error: np.float32
    tag: tuple[int, ...]
    bounded: bool
    epsilon: np.float32
    cut: np.float32
    tail: int
    reseed_every: int
    reseed_until: int
    reseed_reach: np.float32


def rule_of(settings: FitSettings, recipe: Recipe, cut: float, height: int, width: int, channels: int) -> FitRule:
    """The rule for images of one size.

    Args:
        settings: what decides the splats.
        recipe: constants of the optimiser.
        cut: half-width of a box in marginal standard deviations.
        height: rows of the images.
        width: columns of the images.
        channels: 1 or 3.
    """
    target = -1.0
    if settings.target_psnr is not None:
        target = 0.5 * height * width * channels * 10 ** (-settings.target_psnr / 10)
    return FitRule(
        rates=recipe.schedule(settings.steps, settings.rounds),
        betas=np.array([recipe.beta1, recipe.beta2, recipe.epsilon], np.float32),
        limits=np.array([recipe.margin, recipe.least_log, recipe.greatest_log, recipe.greatest_slope], np.float32),
        target_error=np.float32(target),
        tag=(1,) * (channels + (settings.codec == NORMALISED)),
        bounded=settings.colours == "bounded",
        epsilon=np.float32(NORMALISED_EPSILON),
        cut=np.float32(cut),
        tail=settings.steps // 2,
        reseed_every=recipe.reseed_every,
        reseed_until=int(recipe.reseed_until * settings.steps),
        reseed_reach=np.float32(recipe.reach(settings, height, width)),
    )
