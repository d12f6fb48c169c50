"""Engine ``gsplat``: alpha-composited stores on a GPU, a batch of images in every launch.

The optimiser is that of the reference engine (``encoders.autograd.descent``), the renderer gsplat's rasteriser
(``encoders.autograd.gsplat_tiles``). gsplat adds up gradients in whatever order its threads come, so two runs differ in
the last bits, and after some hundred steps in more; the quality is the same.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.splats import OVER
from encoders.autograd.descent import descend, fit_batches
from encoders.autograd.gsplat_available import load_gsplat, missing_for_gsplat
from encoders.autograd.gsplat_tiles import LEAST_OPACITY, Rasteriser, TiledRender, bytes_per_image, most_images
from encoders.base import FitResult, FitSettings
from encoders.recipe import OverRecipe

logger = logging.getLogger("splatspace.encode")

_MEMORY_SHARE = 0.5
"""Of the free memory of the device, for one batch."""

_MOST_IMAGES = 8192
"""In a batch: more would keep no GPU busier, and a stop waits for a step of the whole batch."""

_IMAGES_WITHOUT_CARD = 64


class GsplatEncoder:
    """Fits codec ``over/1`` through gsplat.

    Args:
        settings: what decides the splats; the codec must be ``over/1``.
        batch: images of a launch at most; ``auto`` fits the free memory.
        rasteriser: stands in for gsplat, on the CPU (for tests); None loads gsplat at the first fit.

    Raises:
        JobError: another codec, a batch below 1, or a machine that cannot run gsplat: what it lacks.
    """

    name = "gsplat"

    def __init__(
        self,
        settings: FitSettings,
        *,
        batch: int | Literal["auto"] = "auto",
        rasteriser: Rasteriser | None = None,
    ) -> None:
        if settings.codec != OVER:
            raise JobError(f"Engine 'gsplat' for codec {settings.codec}", allowed=OVER, next_step="give --codec over")
        if batch != "auto" and batch < 1:
            raise JobError(f"A batch of {batch} images", allowed="1 or more, or auto")
        missing = missing_for_gsplat() if rasteriser is None else None
        if missing is not None:
            raise missing
        self.settings = settings
        self.batch: int | Literal["auto"] = batch
        self._recipe = OverRecipe()
        self._rasteriser = rasteriser
        self._device = torch.device("cuda" if rasteriser is None else "cpu")
        self._fitting = _MOST_IMAGES
        """Images of a batch that memory has been seen to hold: halved where it did not."""

    @property
    def device(self) -> str:
        """The GPU."""
        if self._device.type == "cpu":
            return "cpu (a stand-in for gsplat)"
        return f"cuda ({torch.cuda.get_device_name(self._device)})"

    def recipe(self) -> dict[str, Any]:
        """Every constant of the optimiser, and what the rasteriser leaves out."""
        return {**self._recipe.as_dict(), "least_opacity": LEAST_OPACITY}

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """How many images ``fit`` is best given at once.

        Args:
            height: rows of the images.
            width: columns of the images.
            channels: 1 or 3.
        """
        most = min(most_images(self.settings.gaussians, height, width), self._fitting)
        if self.batch != "auto":
            return min(most, self.batch)
        if self._device.type == "cpu":
            return min(most, _IMAGES_WITHOUT_CARD)
        free, _ = torch.cuda.mem_get_info(self._device)
        # What torch keeps for itself is free for the next batch too.
        free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        each = bytes_per_image(self.settings.gaussians, height, width, channels)
        return max(1, min(most, int(_MEMORY_SHARE * free) // each))

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """Fits a batch; see :class:`encoders.base.Encoder`.

        The first call on a machine compiles gsplat's kernels, which takes some minutes. Where the device's memory does
        not hold a batch, half of it is tried, and what was fitted before is kept.

        Args:
            images: uint8 [image, height, width, channel], channel 1 or 3.
            should_stop: polled before every optimiser step.

        Raises:
            FitStoppedError: ``should_stop`` answered True.
            JobError: gsplat's kernels cannot be compiled, or one image alone takes more memory than there is.
        """
        if self._rasteriser is None:
            logger.info("loading gsplat; its kernels are compiled the first time, which takes some minutes")
            self._rasteriser = load_gsplat()
        rasteriser = self._rasteriser
        return fit_batches(
            images,
            self.settings,
            lambda: self.images_per_call(*images.shape[1:]),
            lambda batch: self._fit_batch(rasteriser, batch, should_stop),
        )

    def _fit_batch(
        self, rasteriser: Rasteriser, images: NDArray[np.uint8], should_stop: Callable[[], bool] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]] | None:
        """Frames and steps of a batch; None where memory does not hold it, and the next is then half as large."""
        render = TiledRender(rasteriser, *images.shape[1:3])
        with contextlib.suppress(torch.OutOfMemoryError):
            return descend(images, self.settings, self._recipe, render, self._device, should_stop)
        # Out of the handler of the error, which holds on to the tensors of the failed attempt.
        self._halve(images.shape)
        return None

    def _halve(self, shape: tuple[int, ...]) -> None:
        """Makes the batches after one of this shape, which was too large, half as large."""
        size, height, width, _ = shape
        if size <= 1:
            raise JobError(
                f"One image of {height}x{width} with {self.settings.gaussians} Gaussians does not fit into the memory "
                f"of {self.device}",
                next_step="give fewer --gaussians or a smaller --size, or use a GPU with more memory",
            )
        self._fitting = size // 2
        logger.warning("%d images at once do not fit into the memory of the device: %d from now on", size, size // 2)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
