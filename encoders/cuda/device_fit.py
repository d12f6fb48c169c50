"""What the fused and the tiled fit share: the images' shape, the settings, and what a launch needs to know of them.

How the fused fit divides an image among the lanes of a warp; decides speed and the order of sums, nothing else.
"""

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

WARP = 32

_FORWARD_COST = {8: 7.3, 4: 8.2}
"""Instructions per pixel and Gaussian of the forward pass by the length of a lane's strip (sm_90, three channels)."""

_BACKWARD_COST = {16: 15.1, 8: 15.4, 4: 16.2}
_BACKWARD_ROW = 31.0
"""Instructions per pixel and Gaussian of the backward pass by the length of a run, and per row. Runs of 32 take one
instruction less, but stage the residual in shared memory behind a barrier, and spill in the normalised codec."""


def interpreting() -> bool:
    """Whether Triton interprets its kernels on the CPU (``TRITON_INTERPRET=1``) instead of compiling them."""
    return isinstance(fit_images, InterpretedFunction)


def compiler_options(device: torch.device, warps: int = 1) -> dict[str, Any]:
    """Options of a launch on a device."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0):
        return {"num_warps": warps, "maxnreg": REGISTERS}
    # Fewer registers would spill on older GPUs, which keep the compiler's own choice.
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


def padded(number: int, multiple: int) -> int:
    """``number`` rounded up to a multiple."""
    return -(-number // multiple) * multiple


@dataclass(frozen=True)
class Tiles:
    """Compile-time sizes of ``encoders.cuda.fused_fit.fit_images``, whose arguments they are named after.

    Attributes:
        group: Gaussians of a group, one a lane.
        together: Gaussians added to each other before they are to a pixel.
        strip: neighbouring pixels of a lane in the forward pass.
        strips: lanes of the forward pass.
        run: neighbouring pixels summed at once in the backward pass.
        warps: warps of a program.
    """

    group: int = WARP
    together: int = 8
    strip: int = 8
    strips: int = WARP
    run: int = 16
    warps: int = 1

    def stride(self, width: int) -> int:
        """Columns that a row of ``width`` takes: whole strips and whole runs."""
        return padded(width, max(self.strip, self.run))

    def cost(self, height: int, width: int) -> float:
        """Counted instructions per Gaussian, image and step: what the choice of tiles goes by."""
        stride = self.stride(width)
        blocks = -(-height * stride // self.strip // self.strips)
        forward = blocks * self.strips * self.strip * _FORWARD_COST[self.strip]
        return forward + height * (stride * _BACKWARD_COST[self.run] + _BACKWARD_ROW)


def tiles_for(height: int, width: int) -> Tiles:
    """The tiles with the fewest instructions for images of this size: long runs, unless they hang over the edge."""
    choices = [Tiles(strip=strip, run=run) for strip in _FORWARD_COST for run in _BACKWARD_COST]
    return min(choices, key=lambda tiles: tiles.cost(height, width))


def interpreted_tiles(height: int, width: int, gaussians: int) -> Tiles:
    """Tiles for Triton's interpreter, whose time goes by the number of operations and not by their size."""
    group = WARP
    while group < min(gaussians, 256):
        group *= 2
    stride = padded(width, 32)
    strips = WARP
    while strips < min(height * stride // 8, 1024):
        strips *= 2
    return Tiles(group=group, together=min(group, 64), strip=8, strips=strips, run=32)
