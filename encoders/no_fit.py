"""The engine of stores that hold images only: it fits nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.splats import layout_of
from encoders.base import MOST_PER_CALL, FitResult, FitSettings

NO_FIT = "none"


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
