"""What the fused and the tiled fit share: the images' shape, the settings, and what a launch needs to know of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from triton.runtime.interpreter import InterpretedFunction

from data_schemas.splats import NORMALISED
from encoders.base import FitSettings
from encoders.cuda.fused_fit import fit_images
from encoders.recipe import Recipe

REGISTERS = 128
"""Registers of a thread, so that 16 warps fit a multiprocessor; compiled without a spill from sm_90 on."""


def interpreting() -> bool:
    """Whether Triton interprets its kernels on the processor (``TRITON_INTERPRET=1``) instead of compiling them."""
    return isinstance(fit_images, InterpretedFunction)


def compiler_options(device: torch.device, warps: int = 1) -> dict[str, Any]:
    """Options of a launch on a device."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0):
        return {"num_warps": warps, "maxnreg": REGISTERS}
    # Fewer registers would spill on older cards, which keep the compiler's own choice.
    return {"num_warps": warps}


class DeviceBatch(Protocol):
    """Some images on the device, from their start to their result.

    Attributes:
        taken: int32 [image], optimiser steps taken.
    """

    taken: Tensor

    def advance(self, until: int) -> None:
        """Launches the optimiser steps below ``until``, and with ``steps`` + 1 the last look at the error."""
        ...

    def best(self) -> Tensor:
        """The best iterates, float32 [image, gaussian, 5 + channel], contiguous, on the device."""
        ...


@dataclass(frozen=True)
class DeviceFit(ABC):
    """The fit of images of one shape.

    Attributes:
        settings: what decides the splats.
        recipe: constants of the optimiser.
        height: rows.
        width: columns.
        channels: 1 or 3.
    """

    settings: FitSettings
    recipe: Recipe
    height: int
    width: int
    channels: int

    @property
    def normalised(self) -> bool:
        """Whether sums are divided by the summed weights."""
        return self.settings.codec == NORMALISED

    @property
    def reach(self) -> float:
        """Pixels that a dark Gaussian may be moved; below 0 none is."""
        return self.recipe.reach(self.settings, self.height, self.width)

    @property
    def reseeds(self) -> bool:
        """Whether dark Gaussians are moved."""
        return self.reach >= 0 and self.recipe.reseed_every > 0

    @property
    def enough(self) -> float:
        """Half the sum of squared residuals at which an image is finished; below 0 none is."""
        if self.settings.target_psnr is None:
            return -1.0
        return 0.5 * self.height * self.width * self.channels * 10 ** (-self.settings.target_psnr / 10)

    @property
    @abstractmethod
    def bytes_per_image(self) -> int:
        """Memory that an image takes on the device, its start and its result included."""

    @property
    @abstractmethod
    def programs(self) -> int:
        """Programs of an image that run at once."""

    @property
    @abstractmethod
    def pairs_per_step(self) -> int:
        """Pixel-Gaussian pairs that a step of an image sums, roughly."""

    @abstractmethod
    def batch(self, images: Tensor, starts: Tensor, rates: Tensor) -> DeviceBatch:
        """Puts images and their starts on the device.

        Args:
            images: uint8 [image, height, width, channel] on the device.
            starts: float32 [image, gaussian, 5 + channel] on the device.
            rates: float32 [step, 3] on the device: ``Recipe.schedule``.
        """
