"""Large images on the device while the tiled fit works on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from data_schemas.splats import NORMALISED_EPSILON
from encoders.cuda.device_fit import WARP, DeviceFit, compiler_options, padded
from encoders.cuda.fused_batch import AWAY
from encoders.cuda.moves import judge, move_groups, rescue
from encoders.cuda.sums import DERIVED
from encoders.cuda.tiled_sums import BOXES, SUMS, derive_groups, gather_groups, render_tiles
from encoders.frame import COLOUR, X, Y

TILE_CUT = 4.0
"""Half-width of what is summed of a Gaussian in marginal standard deviations: what lies beyond is 91 dB down."""

_SIDE = 16
"""Rows and columns of a tile."""

_STRIP, _TOGETHER, _RUN = 8, 8, 16
_SORT_EVERY = 50
_LOOK_EVERY = 64
"""Steps between two sorts of the Gaussians, and between two looks whether every image is finished."""

_JUDGE_LANES, _RESCUE_LANES, _RESCUE_WARPS = 128, 1024, 8


@dataclass(frozen=True)
class TiledFit(DeviceFit):
    """The tiled fit of images of one shape.

    Attributes:
        parts: programs that share the box of a group in the backward pass.
    """

    parts: int = 8

    @property
    def stride(self) -> int:
        """Columns of a row with its padding."""
        return padded(self.width, _SIDE)

    @property
    def room(self) -> int:
        """Gaussians with those that fill the last group."""
        return padded(self.settings.gaussians, WARP)

    @property
    def tiles(self) -> int:
        """Tiles of an image."""
        return -(-self.height // _SIDE) * (self.stride // _SIDE)

    @property
    def programs(self) -> int:
        """Programs of an image that run at once in the longest launch."""
        return self.room // WARP * self.parts

    @property
    def bytes_per_image(self) -> int:
        """Memory that an image takes on the device, its start, its result and the room to sort included."""
        parameters, pixels = COLOUR + self.channels, self.height * self.stride
        # Beside what stays: a table that is being sorted, and eight rows of int64 that say how.
        tables = (5 * parameters + DERIVED + self.parts * SUMS + 2 + 16) * self.room + BOXES * self.room // WARP
        planes = (self.channels + self.normalised + 1) * pixels
        images = self.channels * self.height * (self.stride + self.width)
        return 4 * (tables + planes + self.tiles + 2 * self.settings.gaussians * parameters) + images + 64

    @property
    def pairs_per_step(self) -> int:
        """A guess: boxes of 8 standard deviations a side, and as much again for what neighbours of a group reach."""
        spacing = self.height * self.width / self.settings.gaussians
        box = min(float(self.height * self.stride), 64 * 16 + 32 * spacing)
        return int(self.room * box)

    def batch(self, images: Tensor, starts: Tensor, rates: Tensor) -> TiledBatch:
        """Puts images and their starts on the device; see :class:`encoders.cuda.device_fit.DeviceFit`."""
        return TiledBatch(self, images, starts, rates)


def places_in_order(x: Tensor, y: Tensor) -> Tensor:
    """Where points lie along a Morton curve of the pixels: neighbours in the order are neighbours in the image.

    Args:
        x: float [..., point] in pixels.
        y: float [..., point] in pixels.

    Returns:
        int64 of the same shape.
    """
    column, row = x.clamp(0, 65535).to(torch.int64), y.clamp(0, 65535).to(torch.int64)
    code = torch.zeros_like(column)
    for bit in range(16):
        code |= (column >> bit & 1) << 2 * bit | (row >> bit & 1) << 2 * bit + 1
    return code


class TiledBatch:
    """Some images on the device, from their start to their result; arguments as ``DeviceFit.batch`` has them."""

    def __init__(self, fit: TiledFit, images: Tensor, starts: Tensor, rates: Tensor) -> None:
        count, device = len(images), images.device
        groups, parameters = fit.room // WARP, COLOUR + fit.channels
        self.fit = fit
        self.rates = rates
        self.step = 0
        self.target = torch.zeros((count, fit.channels, fit.height, fit.stride), dtype=torch.uint8, device=device)
        self.target[..., : fit.width] = images.permute(0, 3, 1, 2)
        # Parameters, best iterate, Adam's mean and mean square.
        self.tables = torch.zeros((count, 4, parameters, fit.room), device=device)
        self.tables[:, 0, X] = AWAY
        self.tables[:, 0, :, : fit.settings.gaussians] = starts.transpose(1, 2)
        self.derived = torch.empty((count, DERIVED, fit.room), device=device)
        self.boxes = torch.empty((count, BOXES, groups), dtype=torch.int32, device=device)
        self.planes = torch.empty((count, fit.channels + fit.normalised, fit.height, fit.stride), device=device)
        self.needed = torch.empty((count, fit.height, fit.stride) if fit.reseeds else 1, device=device)
        self.errors = torch.empty((count, fit.tiles), device=device)
        self.sums = torch.empty((count, fit.parts, SUMS, fit.room), device=device)
        self.least = torch.full((count,), torch.inf, device=device)
        self.taken = torch.zeros(count, dtype=torch.int32, device=device)
        self.running = torch.ones(count, dtype=torch.int32, device=device)
        self.better = torch.zeros(count, dtype=torch.int32, device=device)
        self.index = torch.arange(fit.room, device=device).repeat(count, 1)
        """Which Gaussian of the start lies at each place of the tables."""
        self._options = compiler_options(device)

    def advance(self, until: int) -> None:
        """Takes the optimiser steps below ``until``, and with ``most_steps`` + 1 the last look at the error."""
        fit = self.fit
        while self.step < until:
            if self.step % _LOOK_EVERY == 0 and self.step and not bool(self.running.any()):
                self.step = until
                break
            if self.step % _SORT_EVERY == 0:
                self._sort()
            self._render()
            self._judge()
            last = self.step == fit.settings.most_steps
            if not last:
                self._gather()
            self._move()
            self.step += 1
            if not last and fit.reseeds and fit.recipe.reseeds_after(self.step, fit.settings.steps):
                self._rescue()
                self._derive()

    def best(self) -> Tensor:
        """The best iterates, float32 [image, gaussian, 5 + channel], contiguous, in the order of the start."""
        back = torch.argsort(self.index, dim=1)[:, : self.fit.settings.gaussians]
        found = self.tables[:, 1].gather(2, back[:, None, :].expand(-1, self.tables.shape[2], -1))
        return found.transpose(1, 2).contiguous()

    def _sort(self) -> None:
        """Brings Gaussians of a group close together; what fills the last group stays behind the others."""
        code = places_in_order(self.tables[:, 0, X], self.tables[:, 0, Y])
        code[:, self.fit.settings.gaussians :] = 1 << 40
        order = torch.argsort(code, dim=1, stable=True)
        for table in range(self.tables.shape[1]):
            here = self.tables[:, table]
            here.copy_(here.gather(2, order[:, None, :].expand(-1, here.shape[1], -1)))
        self.index = self.index.gather(1, order)
        self._derive()

    def _shape(self) -> dict[str, Any]:
        """Compile-time arguments of every kernel."""
        fit = self.fit
        return {"CHANNELS": fit.channels, "ROOM": fit.room, "HEIGHT": fit.height, "GROUP": WARP}

    def _derive(self) -> None:
        fit = self.fit
        launch: Any = derive_groups[(fit.room // WARP, len(self.tables))]
        constants = {**self._shape(), "COUNT": fit.settings.gaussians, "WIDTH": fit.width}
        launch(self.tables, self.derived, self.boxes, TILE_CUT, **constants, **self._options)

    def _render(self) -> None:
        fit = self.fit
        launch: Any = render_tiles[(fit.tiles, len(self.tables))]
        launch(
            self.target,
            self.tables,
            self.derived,
            self.boxes,
            self.planes,
            self.errors,
            self.running,
            NORMALISED_EPSILON,
            **self._shape(),
            NORMALISED=fit.normalised,
            WIDTH=fit.width,
            STRIDE=fit.stride,
            TOGETHER=_TOGETHER,
            STRIP=_STRIP,
            ROWS=_SIDE,
            COLUMNS=_SIDE,
            **self._options,
        )

    def _judge(self) -> None:
        settings = self.fit.settings
        launch: Any = judge[(len(self.tables),)]
        launch(
            self.errors,
            self.least,
            self.taken,
            self.running,
            self.better,
            settings.most_steps,
            settings.steps // 2,
            self.fit.enough,
            TILES=self.fit.tiles,
            LANES=_JUDGE_LANES,
            **self._options,
        )

    def _gather(self) -> None:
        fit = self.fit
        launch: Any = gather_groups[(fit.room // WARP, fit.parts, len(self.tables))]
        launch(
            self.tables,
            self.derived,
            self.boxes,
            self.planes,
            self.sums,
            self.running,
            **self._shape(),
            NORMALISED=fit.normalised,
            STRIDE=fit.stride,
            RUN=_RUN,
            PARTS=fit.parts,
            **self._options,
        )

    def _move(self) -> None:
        fit, recipe = self.fit, self.fit.recipe
        launch: Any = move_groups[(fit.room // WARP, len(self.tables))]
        launch(
            self.tables,
            self.derived,
            self.boxes,
            self.sums,
            self.rates,
            self.taken,
            self.running,
            self.better,
            TILE_CUT,
            recipe.beta1,
            recipe.beta2,
            recipe.epsilon,
            recipe.margin,
            recipe.least_log,
            recipe.greatest_log,
            recipe.greatest_slope,
            **self._shape(),
            BOUNDED=fit.settings.colours == "bounded",
            COUNT=fit.settings.gaussians,
            WIDTH=fit.width,
            PARTS=fit.parts,
            **self._options,
        )

    def _rescue(self) -> None:
        fit = self.fit
        launch: Any = rescue[(len(self.tables),)]
        launch(
            self.tables,
            self.planes,
            self.needed,
            self.running,
            fit.reach,
            **self._shape(),
            COUNT=fit.settings.gaussians,
            WIDTH=fit.width,
            STRIDE=fit.stride,
            LANES=_RESCUE_LANES,
            **compiler_options(self.tables.device, _RESCUE_WARPS),
        )
