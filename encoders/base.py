"""The contract of an engine that fits Gaussians, and the engine that fits nothing (images only)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.splats import layout_of
from encoders.settings import FitSettings

PIXEL_GAUSSIANS_PER_CALL = 40_000_000
"""Work that an engine on the CPU is handed at once (pixels times Gaussians): about a second of all cores."""

FEWEST_PER_CALL, MOST_PER_CALL = 16, 256

LARGE_PIXELS = 1 << 16
"""On the CPU, images of 256x256 pixels and more are shared by threads; smaller ones are fitted one a thread. The size
alone decides, never the number of images or of threads."""

NO_FIT = "none"


@dataclass
class FitResult:
    """Splats of a batch of images.

    Attributes:
        splats: float32 [image, gaussian, parameter] in ``layout_of(codec, channels)``.
        steps: int32 [image], optimiser steps taken.
        core_seconds: CPU time used by the engine's threads.
    """

    splats: NDArray[np.float32]
    steps: NDArray[np.int32]
    core_seconds: float


class FitStoppedError(InterruptedError):
    """A fit that was asked to stop, with the images that were finished by then, so that none is fitted twice.

    Args:
        result: of the batch; what it says of images that are not finished means nothing.
        finished: bool [image].

    Attributes:
        result: as given.
        finished: as given.
    """

    def __init__(self, result: FitResult, finished: NDArray[np.bool_]) -> None:
        super().__init__("the fit was asked to stop")
        self.result = result
        self.finished = finished


def images_for_processor(gaussians: int, height: int, width: int) -> int:
    """How many images an engine on the CPU is best given at once, so that progress shows every second or so.

    Args:
        gaussians: K.
        height: rows of the images.
        width: columns of the images.
    """
    return min(max(PIXEL_GAUSSIANS_PER_CALL // (height * width * gaussians), FEWEST_PER_CALL), MOST_PER_CALL)


class Encoder(Protocol):
    """Fits exactly K Gaussians to every image of a batch."""

    name: str
    settings: FitSettings

    @property
    def device(self) -> str:
        """Where it runs, for people: 'cpu (Intel Xeon, AVX-512, 4 workers)'."""
        ...

    def recipe(self) -> dict[str, Any]:
        """Every constant of the optimiser, for the store's attributes (JSON types only)."""
        ...

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """How many images ``fit`` is best given at once: enough to keep the device busy, some seconds of work.

        What an image becomes does not depend on it. A stopped run loses a call at most (an engine that raises
        ``FitStoppedError`` loses less), and progress shows after each.

        Args:
            height: rows of the images.
            width: columns of the images.
            channels: 1 or 3.

        Returns:
            At least 1.
        """
        ...

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """Fits a batch.

        The result of an image depends on its pixels and the settings only, never on the batch around it, its
        place in it, or the number of workers.

        Args:
            images: uint8 [image, height, width, channel], channel 1 or 3.
            should_stop: polled between images; when it answers True the fit raises InterruptedError.

        Raises:
            FitStoppedError: ``should_stop`` answered True after some of the images were finished.
            InterruptedError: ``should_stop`` answered True; nothing of the batch is kept.
        """
        ...


class NoFit:
    """Answers every image with no Gaussian at all.

    Args:
        settings: with 0 Gaussians.

    Raises:
        JobError: settings that ask for Gaussians.
    """

    name = NO_FIT
    device = "none"

    def __init__(self, settings: FitSettings) -> None:
        if settings.gaussians:
            raise JobError(
                f"Engine none with {settings.gaussians} Gaussians", allowed="0", next_step="give --engine auto"
            )
        self.settings = settings

    def recipe(self) -> dict[str, Any]:
        """No constants."""
        return {}

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """See :class:`encoders.base.Encoder`."""
        return MOST_PER_CALL

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """See :class:`encoders.base.Encoder`.

        Raises:
            InterruptedError: ``should_stop`` answered True.
        """
        if should_stop is not None and should_stop():
            raise InterruptedError
        width = layout_of(self.settings.codec, images.shape[3]).width
        return FitResult(np.zeros((len(images), 0, width), np.float32), np.zeros(len(images), np.int32), 0.0)
