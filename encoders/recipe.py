"""Constants of the optimiser that every engine shares, those of codec ``over/1``, and the schedule that follows."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import NORMALISED
from encoders.base import FitSettings
from encoders.start.begin import StartRecipe

CUT, NORMALISED_CUT = 3.5, 4.0
"""Half-width in marginal standard deviations of the box in which engine ``cpu`` sums a Gaussian, by codec. At 3.5 a
weight is 0.002: little in a sum, yet twice the floor that ``normalised/1`` divides by, so that dark pixels between
Gaussians were fitted to another formula than they are decoded by (1.9 dB on MNIST)."""


@dataclass(frozen=True)
class Recipe:
    """How Gaussians move.

    Attributes:
        rate_centre: step of a centre in its own standard deviations at the start of the schedule.
        rate_shape: step of the shape factor (relative).
        rate_colour: step of a colour (1 = full intensity).
        beta1: decay of Adam's mean.
        beta2: decay of Adam's mean square.
        epsilon: floor of Adam's denominator.
        margin: how far outside the image a centre may lie, in pixels.
        least_log: least log of the factors a and c (the widest Gaussian is exp(-least_log) pixels).
        greatest_log: greatest log of a and c (the narrowest conditional sigma is exp(-greatest_log) pixels).
        greatest_slope: greatest |b / c|, which bounds |rho| by slope / sqrt(1 + slope^2).
        reseed_every: every so many steps, Gaussians that have gone dark are moved to the greatest residual (0: never).
        reseed_until: share of the steps after which nothing is moved any more.
        reseed_reach: how far a dark Gaussian of the ``transport`` start is moved at most along either axis, as a share
            of the image: near, so that a slot stays in its part of the image. ``adaptive`` moves them anywhere,
            ``grid`` not at all, and in ``normalised/1`` a dark Gaussian is a black one: it has its use.
        restart: share of every rate with which a round after the first begins.
        start: where Gaussians begin.
    """

    rate_centre: float = 0.1
    rate_shape: float = 0.05
    rate_colour: float = 0.02
    beta1: float = 0.9
    beta2: float = 0.93
    epsilon: float = 1e-8
    margin: float = 2.0
    least_log: float = -4.0
    greatest_log: float = 1.6
    greatest_slope: float = 6.0
    reseed_every: int = 25
    reseed_until: float = 0.6
    reseed_reach: float = 0.125
    restart: float = 0.5
    start: StartRecipe = field(default_factory=StartRecipe)

    def as_dict(self) -> dict[str, Any]:
        """For the store's attributes."""
        return asdict(self)

    def reach(self, settings: FitSettings, height: int, width: int) -> float:
        """Pixels that a dark Gaussian may be moved along either axis; below 0 it stays where it is."""
        if settings.start == "grid" or settings.codec == NORMALISED:
            return -1.0
        return float(height + width) if settings.start == "adaptive" else self.reseed_reach * max(height, width)

    def reseeds_after(self, step: int, steps: int) -> bool:
        """Whether dark Gaussians are moved after so many of ``steps`` steps."""
        return self.reseed_every > 0 and step % self.reseed_every == 0 and step <= int(self.reseed_until * steps)

    def schedule(self, steps: int, rounds: int = 1) -> NDArray[np.float32]:
        """Steps of centre, shape and colour for every iteration: cosine decay to 0 times Adam's bias correction.

        Args:
            steps: of the first round.
            rounds: each is twice as long as the one before it.

        Returns:
            float32 [step, 3], ``steps`` * (2^``rounds`` - 1) of them.
        """
        lengths = [steps << done for done in range(rounds)]
        decay = np.concatenate([0.5 * (1 + np.cos(np.pi * np.arange(length) / max(length, 1))) for length in lengths])
        decay[steps:] *= self.restart
        step = np.arange(len(decay), dtype=np.float64)
        correction = np.sqrt(1 - self.beta2 ** (step + 1)) / (1 - self.beta1 ** (step + 1))
        rates = np.array([self.rate_centre, self.rate_shape, self.rate_colour])
        return ((decay * correction)[:, None] * rates).astype(np.float32)


@dataclass(frozen=True)
class OverRecipe(Recipe):
    """How Gaussians move and fade.

    Opacity is bounded, not a logit: Adam's steps then have a known size at both ends, and it may reach 0.

    Attributes:
        rate_alpha: step of an opacity (1 = full) at the start of the schedule.
        first_alpha: opacity that every Gaussian begins with.
        greatest_alpha: greatest opacity; below the 0.999 at which gsplat clamps, so that no gradient is lost there.
    """

    rate_colour: float = 0.03
    rate_alpha: float = 0.02
    first_alpha: float = 0.9
    greatest_alpha: float = 0.99

    def reach(self, settings: FitSettings, height: int, width: int) -> float:
        """Below 0: no Gaussian is moved. A dark one hides what lies behind it, so it has its use."""
        return -1.0
