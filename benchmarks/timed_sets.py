"""Data sets to time the CPU engine with, and timing that other work on the machine disturbs little."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoders.base import FitSettings
from encoders.fit_cpu import CpuEncoder
from encoders.frame import from_splats

STEPS = 400


@dataclass(frozen=True)
class Set:
    """A data set to measure with.

    Attributes:
        name: of the set.
        gaussians: K.
        pixels: uint8 [image, height, width, channel].
    """

    name: str
    gaussians: int
    pixels: NDArray[np.uint8]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        _, height, width, channels = self.pixels.shape
        return height, width, channels

    def first(self, images: int) -> Set:
        """The set cut to its first images."""
        return replace(self, pixels=self.pixels[:images])

    def settings(self, steps: int = STEPS, **others: Any) -> FitSettings:
        """Settings of a fit of this set."""
        return FitSettings(self.gaussians, steps, **others)

    def frames(self, steps: int, **others: Any) -> NDArray[np.float32]:
        """Pixel-frame parameters after so many steps."""
        height, width, _ = self.shape
        splats = CpuEncoder(self.settings(steps, **others), workers=1).fit(self.pixels).splats
        return from_splats(splats, height, width)


def least_seconds(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """The least processor time of each call, the calls taking turns; the first turn, which compiles, does not count."""
    best = dict.fromkeys(calls, np.inf)
    for turn in range(repeats + 1):
        for name, call in calls.items():
            before = time.thread_time()
            call()
            if turn:
                best[name] = min(best[name], time.thread_time() - before)
    return best


def fits(data: Set, settings: FitSettings) -> Callable[[], object]:
    """A whole fit on one core."""
    encoder = CpuEncoder(settings, workers=1)
    return lambda: encoder.fit(data.pixels)
