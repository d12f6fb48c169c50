"""Data sets to time the CPU engine with, and timing that other work on the machine disturbs little.

Millions of images that need no memory, and an engine that needs no time: what is left is the machinery.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import SourceRecord
from encoders.base import FitResult, FitSettings, images_for_processor
from encoders.cpu.engine import CpuEncoder
from encoders.frame import from_splats
from pipeline.sources.base import SourceImage

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
    """The least CPU time of each call, the calls taking turns; the first turn, which compiles, does not count."""
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


SIDE = 4


class CountedNames(Sequence[str]):
    """Names made when they are asked for.

    Args:
        numbers: of the images.
    """

    def __init__(self, numbers: range) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    def __iter__(self) -> Iterator[str]:
        return (f"{number:09d}" for number in self._numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...

    @overload
    def __getitem__(self, index: slice) -> CountedNames: ...

    def __getitem__(self, index: int | slice) -> str | CountedNames:
        if isinstance(index, slice):
            return CountedNames(self._numbers[index])
        return f"{self._numbers[index]:09d}"


class CountedImages:
    """So many grey images of 4 by 4 pixels, each different, made from their numbers.

    Args:
        count: how many.
    """

    record = SourceRecord(name="counted images", licence="CC0")
    image_shape = (SIDE, SIDE, 1)

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def identifiers(self) -> Sequence[str]:
        """Names, made on demand."""
        return CountedNames(range(self._count))

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Images by number."""
        numbers = np.asarray(indices, np.uint64)
        mixed = np.stack([numbers, numbers * np.uint64(0x9E3779B97F4A7C15)], axis=1)
        pixels = mixed.view(np.uint8).reshape(-1, SIDE, SIDE, 1)
        return [SourceImage(f"{number:09d}", image) for number, image in zip(indices, pixels, strict=True)]


class MeanEncoder:
    """One Gaussian in the middle, as grey as the image on average."""

    name = "mean"
    device = "none"
    settings = FitSettings(1, steps=0, start="grid")

    def recipe(self) -> dict[str, Any]:
        """It has no constants."""
        return {}

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """As many as an engine on the CPU is given."""
        return images_for_processor(self.settings.gaussians, height, width)

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """Takes the mean; see :class:`encoders.base.Encoder`."""
        if should_stop is not None and should_stop():
            raise InterruptedError
        splats = np.zeros((len(images), 1, 6), np.float32)
        splats[..., :2] = 1
        splats[:, 0, 3] = images.mean(axis=(1, 2, 3)) / 255
        return FitResult(splats, np.zeros(len(images), np.int32), 0.0)
