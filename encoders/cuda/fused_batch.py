"""Images on the device while the fused fit works on them: what is allocated, launched and read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_schemas.splats import NORMALISED_EPSILON
from encoders.base import FitSettings
from encoders.cuda.device_fit import (
    DeviceFit,
    Tiles,
    compiler_options,
    interpreted_tiles,
    interpreting,
    padded,
    tiles_for,
)
from encoders.cuda.fused_fit import fit_images, record_size
from encoders.frame import COLOUR, X
from encoders.recipe import Recipe

AWAY = -1e4
"""Where the Gaussians lie that only fill a group: no pixel receives anything of them."""


@dataclass(frozen=True)
class FusedFit(DeviceFit):
    """The fused fit of images of one shape.

    Attributes:
        tiles: division among lanes.
    """

    tiles: Tiles

    @staticmethod
    def of(
        settings: FitSettings,
        recipe: Recipe,
        height: int,
        width: int,
        channels: int,
        *,
        tiles: Tiles | None = None,
    ) -> FusedFit:
        """With the tiles that suit the size, and, under the interpreter, the interpreter."""
        if tiles is None:
            tiles = interpreted_tiles(height, width, settings.gaussians) if interpreting() else tiles_for(height, width)
        return FusedFit(settings, recipe, height, width, channels, tiles)

    @property
    def stride(self) -> int:
        """Columns of a row with its padding."""
        return self.tiles.stride(self.width)

    @property
    def room(self) -> int:
        """Gaussians of an image with those that fill the last group."""
        return padded(self.settings.gaussians, self.tiles.group)

    @property
    def record(self) -> int:
        """Float32 numbers that an image takes on the device beside its pixels."""
        return record_size(self.channels, self.normalised, self.room, self.height, self.stride)

    @property
    def bytes_per_image(self) -> int:
        """Memory that an image takes on the device, its start and its result included."""
        pixels = self.channels * self.height * (self.stride + self.width)
        return 4 * (self.record + 2 * self.settings.gaussians * (COLOUR + self.channels)) + pixels + 64

    @property
    def programs(self) -> int:
        """Programs of an image: one."""
        return 1

    @property
    def pairs_per_step(self) -> int:
        """Pixel-Gaussian pairs of an image and step, padding included."""
        return self.height * self.stride * self.room

    def batch(self, images: Tensor, starts: Tensor, rates: Tensor) -> FusedBatch:
        """Puts images and their starts on the device; see :class:`encoders.cuda.device_fit.DeviceFit`."""
        return FusedBatch(self, images, starts, rates)

    def constants(self) -> dict[str, int | bool]:
        """Compile-time arguments of ``fit_images``."""
        return {
            "CHANNELS": self.channels,
            "NORMALISED": self.normalised,
            "BOUNDED": self.settings.colours == "bounded",
            "RESEEDS": self.reseeds,
            "COUNT": self.settings.gaussians,
            "ROOM": self.room,
            "HEIGHT": self.height,
            "WIDTH": self.width,
            "STRIDE": self.stride,
            "GROUP": self.tiles.group,
            "TOGETHER": self.tiles.together,
            "STRIP": self.tiles.strip,
            "STRIPS": self.tiles.strips,
            "RUN": self.tiles.run,
        }


class FusedBatch:
    """Some images on the device, from their start to their result.

    Args:
        fit: what is fitted.
        images: uint8 [image, height, width, channel] on the device.
        starts: float32 [image, gaussian, 5 + channel] on the device.
        rates: float32 [step, 3] on the device: ``Recipe.schedule``.
    """

    def __init__(self, fit: FusedFit, images: Tensor, starts: Tensor, rates: Tensor) -> None:
        count, device = len(images), images.device
        self.fit = fit
        self.rates = rates
        self.target = torch.zeros((count, fit.channels, fit.height, fit.stride), dtype=torch.uint8, device=device)
        self.target[..., : fit.width] = images.permute(0, 3, 1, 2)
        self.records = torch.zeros((count, fit.record), device=device)
        self.least = torch.full((count,), torch.inf, device=device)
        self.taken = torch.zeros(count, dtype=torch.int32, device=device)
        self.running = torch.ones(count, dtype=torch.int32, device=device)
        theta = self.tables(0)
        theta[:, X] = AWAY
        theta[..., : fit.settings.gaussians] = starts.transpose(1, 2)

    def tables(self, number: int) -> Tensor:
        """A view: parameters (0), best iterate (1), Adam's mean (2) or mean square (3), [image, 5 + channel, room]."""
        size = (COLOUR + self.fit.channels) * self.fit.room
        view = self.records[:, number * size : (number + 1) * size]
        return view.unflatten(1, (COLOUR + self.fit.channels, self.fit.room))

    def advance(self, until: int) -> None:
        """Launches the optimiser steps below ``until``, and with ``most_steps`` + 1 the last look at the error."""
        fit, recipe, settings = self.fit, self.fit.recipe, self.fit.settings
        # Untyped: Triton's annotations of compile-time arguments are not types of values.
        launch: Any = fit_images[(len(self.records),)]
        launch(
            self.target,
            self.records,
            self.least,
            self.taken,
            self.running,
            self.rates,
            settings.most_steps,
            until,
            settings.steps // 2,
            recipe.reseed_every,
            int(recipe.reseed_until * settings.steps),
            fit.enough,
            NORMALISED_EPSILON,
            recipe.beta1,
            recipe.beta2,
            recipe.epsilon,
            recipe.margin,
            recipe.least_log,
            recipe.greatest_log,
            recipe.greatest_slope,
            fit.reach,
            **fit.constants(),
            **compiler_options(self.records.device, fit.tiles.warps),
        )

    def best(self) -> Tensor:
        """The best iterates, float32 [image, gaussian, 5 + channel], contiguous, on the device."""
        return self.tables(1)[..., : self.fit.settings.gaussians].transpose(1, 2).contiguous()
