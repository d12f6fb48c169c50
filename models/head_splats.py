"""Patches as a few splats each, which can be drawn at any size."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from data_schemas.errors import JobError
from models.patch_head import HeadShape, PatchConfig, PatchHead, full_precision
from models.splat_patches import KERNELS, PUBLISHED_DEPTH, Canvas, KernelName, PatchSplats, as_blobs, blend

Neighbourhood = Literal["patch", "3x3"]

PUBLISHED_SHARPEST, SHARPEST = 4.0, 12.0
"""Largest inverse width of a splat, per patch: 16 splats that share a patch fairly are a quarter of it wide."""

DEEPEST = 8.0
"""Largest depth: enough for a splat to hide others, and little enough for those to learn all the same.

Fitted to photographs, splats of these two bounds come 3 dB nearer in 300 steps than with a depth of 16 and a sharpness
of 4, and 7 dB nearer than with the published ones (benchmarks.cats).
"""

PIXELS_PER_SPLAT = 4


@dataclass(frozen=True)
class SplatHeadConfig(PatchConfig):
    """Size of a patch model that draws splats.

    Attributes:
        splats: of a patch; 0: one for every four pixels (16 of 8x8), at least 4.
        kernel: ``cosine`` (published), ``gaussian`` (a splat's colour falls off to grey; comes nearest to photographs)
            or ``flat`` (a splat shows its whole colour wherever it wins).
        neighbourhood: a pixel sees the splats of its ``patch``, or of the ``3x3`` patches around it, without seams.
    """

    splats: int = 0
    kernel: KernelName = "gaussian"
    neighbourhood: Neighbourhood = "3x3"

    def build_head(self, shape: HeadShape) -> SplatHead:
        """See :class:`SplatHead`."""
        return SplatHead(shape, self)


class SplatHead(PatchHead):
    """Numbers of each token as splats: mean (2), inverse widths (2), correlation, colour, depth.

    As published, all splats start at the centre of their patch, where they hide each other; improved, they start on a
    grid. Any number gives a positive definite precision.

    Args:
        shape: see there.
        config: splats and how they are drawn.

    Attributes:
        blend: draws splats, with the signature of ``models.splat_patches.blend``; a faster one may take its place.

    Raises:
        JobError: no splat, or an unknown kernel or neighbourhood.
    """

    def __init__(self, shape: HeadShape, config: SplatHeadConfig) -> None:
        super().__init__()
        grid = shape.grid
        splats = config.splats or max(4, grid.patch**2 // PIXELS_PER_SPLAT)
        if splats < 1 or config.kernel not in KERNELS or config.neighbourhood not in ("patch", "3x3"):
            raise JobError(
                f"{splats} splats per patch, kernel {config.kernel}, neighbourhood {config.neighbourhood}",
                allowed=f"1 or more; {', '.join(KERNELS)}; patch, 3x3",
            )
        self.grid, self.channels, self.published = grid, shape.channels, shape.published
        self.kernel: KernelName = config.kernel
        self.blend: Callable[..., Tensor] = blend
        self.shared = config.neighbourhood == "3x3"
        self.parts = 6 + shape.channels
        self.deepest = PUBLISHED_DEPTH if shape.published else DEEPEST
        self.sharpest = PUBLISHED_SHARPEST if shape.published else SHARPEST
        self.leave = nn.Linear(shape.width, splats * self.parts)
        self.canvas = Canvas(grid, grid.rows * grid.patch, grid.columns * grid.patch, padded=True)
        if not shape.published:
            nn.init.zeros_(self.leave.weight)
            with torch.no_grad():
                self.leave.bias.copy_(grid_start(splats, self.parts).flatten())

    def splats(self, tokens: Tensor) -> PatchSplats:
        """[batch, token, width] -> the splats of every patch."""
        return self.read(self.leave(tokens).unflatten(1, (self.grid.rows, self.grid.columns)))

    def read(self, numbers: Tensor) -> PatchSplats:
        """Numbers without bounds -> splats.

        Args:
            numbers: [batch, row, column, splat * (6 + channel)].
        """
        raw = numbers.float().unflatten(-1, (-1, self.parts))
        sharp = self.sharpest * raw[..., 2:4].sigmoid()
        # A float32 tanh reaches 1, where the matrix would be singular.
        correlation = raw[..., 4].tanh() * (1 - 1e-4)
        wide, high = sharp.unbind(-1)
        precision = torch.stack([wide**2, correlation * wide * high, high**2], dim=-1)
        colour = raw[..., 5 : 5 + self.channels].sigmoid()
        return PatchSplats(raw[..., :2].tanh(), precision, colour, self.deepest * raw[..., -1].sigmoid())

    def draw(self, splats: PatchSplats, canvas: Canvas | None = None, *, blobs: bool = False) -> Tensor:
        """Draws splats.

        Args:
            splats: of every patch.
            canvas: pixels; None: those of the training images, padded to whole patches.
            blobs: draw all splats as round cones of the same size instead.

        Returns:
            float32 [batch, channel, row, column] in [-1, 1] but for the cosine kernel.
        """
        with full_precision(splats.mean):
            chosen = as_blobs(splats) if blobs else splats
            kernel = "blob" if blobs else self.kernel
            falls_to_grey = kernel == "gaussian"
            if falls_to_grey:
                chosen = chosen._replace(colour=2 * chosen.colour - 1)
            shown = self.blend(chosen, canvas or self.canvas, kernel, shared=self.shared, published=self.published)
            return shown if falls_to_grey else 2 * shown - 1

    def canvas_of(self, height: int, width: int) -> Canvas:
        """The pixels of an image of another size, on the device of the head."""
        return Canvas(self.grid, height, width).to(self.leave.weight.device)

    def forward(self, tokens: Tensor, static: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """See :meth:`models.patch_head.PatchHead.forward`."""
        return self.draw(self.splats(tokens))


def grid_start(splats: int, parts: int) -> Tensor:
    """Numbers of splats on a grid inside their patch, alike in all else: [splat, part]."""
    columns = math.ceil(math.sqrt(splats))
    rows = math.ceil(splats / columns)
    number = torch.arange(splats)
    x = (number % columns + 0.5) / columns - 0.5
    y = (number // columns + 0.5) / rows - 0.5
    start = torch.zeros(splats, parts)
    start[:, 0], start[:, 1] = torch.atanh(x), torch.atanh(y)
    return start
