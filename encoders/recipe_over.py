"""Constants of the optimiser for codec ``over/1``, where a Gaussian has an opacity and hides what lies behind it."""

from __future__ import annotations

from dataclasses import dataclass

from encoders.base import FitSettings
from encoders.recipe import Recipe


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
