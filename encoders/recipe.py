"""Constants of the optimiser that every engine shares, and the schedule that follows from them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.initialise import StartRecipe


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
        reseed_every: with the ``adaptive`` start, every so many steps Gaussians that have gone dark are moved to the
            greatest residual (0: never). The other starts leave them: their order carries meaning.
        reseed_until: share of the steps after which nothing is moved any more.
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
    start: StartRecipe = field(default_factory=StartRecipe)

    def as_dict(self) -> dict[str, Any]:
        """For the store's attributes."""
        return asdict(self)

    def schedule(self, steps: int) -> NDArray[np.float32]:
        """Steps of centre, shape and colour for every iteration: cosine decay to 0 times Adam's bias correction.

        Returns:
            float32 [step, 3].
        """
        step = np.arange(steps, dtype=np.float64)
        decay = 0.5 * (1 + np.cos(np.pi * step / max(steps, 1)))
        correction = np.sqrt(1 - self.beta2 ** (step + 1)) / (1 - self.beta1 ** (step + 1))
        rates = np.array([self.rate_centre, self.rate_shape, self.rate_colour])
        return ((decay * correction)[:, None] * rates).astype(np.float32)
