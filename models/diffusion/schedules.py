"""How much signal and how much noise data holds at each time: z_t = a(t) x + b(t) e.

Times run from 0 (noise) to 1 (clean data) everywhere. ``StraightPath`` is flow matching's a = t, b = 1 - t.
``DiscretePath`` is a table of T diffusion steps: step s has time 1 - s / T, a^2 = alpha-bar_s, b^2 = 1 - alpha-bar_s.

Linear betas (Ho et al. 2020, arXiv:2006.11239) and squared-cosine alpha-bars (Nichol and Dhariwal 2021,
arXiv:2102.09672) are the usual tables. Linear betas from 1e-4 to 0.02 suit T = 1000; at T = 200 the last step keeps
alpha-bar = 0.131, so sampling from pure noise begins where training never was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from data_schemas.errors import JobError

ScheduleName = Literal["linear", "cosine"]
SCHEDULES: tuple[ScheduleName, ...] = get_args(ScheduleName)

LARGEST_BETA = 0.999
"""Cap of one diffusion step: the last of the cosine schedule would otherwise divide by zero."""

LINEAR_BETAS = (1e-4, 0.02)
"""Of the linear schedule, at step 0 and at step T."""


class Path(Protocol):
    """From noise to data."""

    def signal(self, time: Tensor) -> Tensor:
        """a(t), of the shape and dtype of ``time``."""
        ...

    def noise(self, time: Tensor) -> Tensor:
        """b(t), of the shape and dtype of ``time``."""
        ...

    def times(self, steps: int) -> list[float]:
        """``steps`` + 1 rising times of a sampler, from the noisiest to 1."""
        ...


@dataclass(frozen=True)
class StraightPath:
    """a = t, b = 1 - t: zero signal at time 0, zero noise at time 1.

    Attributes:
        begin: the first time of a sampler; above 0 for networks that predict noise, which says nothing about the data
            where there is no signal.
    """

    begin: float = 0.0

    def signal(self, time: Tensor) -> Tensor:
        """Time itself."""
        return time

    def noise(self, time: Tensor) -> Tensor:
        """1 - t."""
        return 1 - time

    def times(self, steps: int) -> list[float]:
        """Evenly spaced from ``begin`` to 1."""
        return [self.begin + (1 - self.begin) * step / steps for step in range(steps)] + [1.0]


def alpha_bars(name: ScheduleName, steps: int) -> Tensor:
    """alpha-bar of the steps 0 to T: the share of variance that is signal.

    Args:
        name: ``linear`` (betas from ``LINEAR_BETAS[0]`` to ``LINEAR_BETAS[1]``) or ``cosine``.
        steps: T.

    Returns:
        float64 [T + 1]; step 0 is clean data, exactly 1.

    Raises:
        JobError: an unknown name, or no step.
    """
    if name not in SCHEDULES or steps < 1:
        raise JobError(f"Schedule {name!r} of {steps} steps", allowed=f"{', '.join(SCHEDULES)}; 1 step or more")
    step = torch.arange(steps + 1, dtype=torch.float64) / steps
    if name == "linear":
        first, last = LINEAR_BETAS
        betas = first + (last - first) * step
        betas[0] = 0
        return torch.cumprod(1 - betas, dim=0)
    offset = 0.008
    curve = torch.cos((step + offset) / (1 + offset) * math.pi / 2).square()
    curve = curve / curve[0]
    # cos(pi / 2) is 6e-17 in floating point; the schedule means zero.
    curve[-1] = 0
    return curve


class DiscretePath:
    """T steps of diffusion as a path: times lie on the grid 1 - s / T and are rounded to it.

    Args:
        name: ``linear`` or ``cosine``.
        steps: T.

    Attributes:
        name: of the table.
        steps: T.
        alpha_bar: float64 [T + 1].

    Raises:
        JobError: an unknown name, or no step.
    """

    def __init__(self, name: ScheduleName, steps: int) -> None:
        self.name: ScheduleName = name
        self.steps = steps
        self.alpha_bar = alpha_bars(name, steps)
        self._tables: dict[torch.device, Tensor] = {}

    def step(self, time: Tensor) -> Tensor:
        """The diffusion step of a time: int64 in 0 to T."""
        return ((1 - time) * self.steps).round().long().clamp(0, self.steps)

    def _share(self, time: Tensor) -> Tensor:
        table = self._tables.get(time.device)
        if table is None:
            # float32: GPUs of Apple's know no float64, and a sum of squares of 1 to 1e-7 is exact enough.
            table = torch.stack([self.alpha_bar.sqrt(), (1 - self.alpha_bar).sqrt()]).float().to(time.device)
            self._tables[time.device] = table
        return table[:, self.step(time)]

    def signal(self, time: Tensor) -> Tensor:
        """Root of alpha-bar."""
        return self._share(time)[0].to(time.dtype)

    def noise(self, time: Tensor) -> Tensor:
        """Root of 1 - alpha-bar."""
        return self._share(time)[1].to(time.dtype)

    def times(self, steps: int) -> list[float]:
        """From step T to step 0 in ``steps`` strides as equal as whole steps allow."""
        if not 1 <= steps <= self.steps:
            raise JobError(
                f"{steps} sampling steps of a diffusion trained with {self.steps}", allowed=f"1 to {self.steps}"
            )
        visited = [round(self.steps * (steps - stride) / steps) for stride in range(steps + 1)]
        return [1 - step / self.steps for step in visited]
