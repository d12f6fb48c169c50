"""Patches as a few splats each, which can be drawn at any size.

Splats that belong to patches, blended by depth: what a pixel of any image size shows of them.

Coordinates are in patches: a patch is 1 long, its centre 0. With d the squared distance of a pixel from a splat in the
splat's own metric and s its depth, a splat weighs b = exp(2 s - 4 d) against the others, and shows lobe(d) times its
colour. All b of a pixel are divided by their sum, so the order of splats does not matter and the deepest ones in
reach win.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.patches.head import HeadShape, PatchConfig, PatchGrid, PatchHead, full_precision

KernelName = Literal["cosine", "gaussian", "flat"]
KERNELS: tuple[KernelName, ...] = get_args(KernelName)

AROUND = tuple((x, y) for y in (-1, 0, 1) for x in (-1, 0, 1))
"""Places (x, y) of a patch's neighbours and of itself."""

SMALLEST_FADING = 1e-18

NOWHERE = -1e6
"""Depth of the splats of patches beyond the edge: they weigh nothing."""

PUBLISHED_DEPTH = 64.0
"""Largest depth as published: the weights of two splats differ by up to exp(128), and almost always one is all."""

PUBLISHED_EPSILON = 1e-6

Neighbourhood = Literal["patch", "3x3"]

PUBLISHED_SHARPEST, SHARPEST = 4.0, 12.0
"""Largest inverse width of a splat, per patch: 16 splats that share a patch fairly are a quarter of it wide."""

DEEPEST = 8.0
"""Largest depth: enough for a splat to hide others, and little enough for those to learn all the same.

Fitted to photographs, splats of these two bounds come 3 dB nearer in 300 steps than with a depth of 16 and a sharpness
of 4, and 7 dB nearer than with the published ones (benchmarks.cats.__main__).
"""

PIXELS_PER_SPLAT = 4


class PatchSplats(NamedTuple):
    """Splats of a batch of images, float32.

    Attributes:
        mean: [batch, row, column, splat, 2], x and y from the patch's centre.
        precision: [batch, row, column, splat, 3], the entries xx, xy and yy of a positive definite matrix.
        colour: [batch, row, column, splat, channel] in [0, 1].
        depth: [batch, row, column, splat], 0 or more.
    """

    mean: Tensor
    precision: Tensor
    colour: Tensor
    depth: Tensor


def with_neighbours(splats: PatchSplats) -> PatchSplats:
    """Every patch gets the splats of the eight around it too, in its own coordinates: nine times as many."""

    def around(value: Tensor, fill: float) -> list[Tensor]:
        rows, columns = value.shape[1:3]
        flat = value if value.ndim == 5 else value.unsqueeze(-1)
        wide = functional.pad(flat, (0, 0, 0, 0, 1, 1, 1, 1), value=fill)
        return [wide[:, 1 + y : 1 + y + rows, 1 + x : 1 + x + columns] for x, y in AROUND]

    shifts = torch.tensor(AROUND, dtype=splats.mean.dtype, device=splats.mean.device)
    means = [part + shifts[number] for number, part in enumerate(around(splats.mean, 0.0))]
    return PatchSplats(
        torch.cat(means, dim=3),
        torch.cat(around(splats.precision, 0.0), dim=3),
        torch.cat(around(splats.colour, 0.0), dim=3),
        torch.cat(around(splats.depth, NOWHERE), dim=3).squeeze(-1),
    )


def log_fading(x: Tensor, y: Tensor) -> Tensor:
    """How the splats of a patch fade before they leave the sight of a pixel, so that none of them ends at a seam.

    Args:
        x: from the centre of the splats' patch, in patches.
        y: the same.

    Returns:
        Logarithm of a smooth factor: 0 up to 1 patch away on either axis, hardly anything at 1.5, where the pixel
        belongs to a patch that does not see the splats.
    """
    total = torch.zeros_like(x)
    for value in (x, y):
        left = ((1.5 - value.abs()) * 2).clamp(SMALLEST_FADING, 1.0)
        total = total + 2 * left.log() + (3 - 2 * left).log()
    return total


class Canvas(nn.Module):
    """The pixels of an image of any size by the patch that they lie in.

    Patches get as many places as the largest number of pixels that any of them has, so all are computed at once.

    Args:
        grid: patches.
        height: rows of the image to draw.
        width: columns of the image to draw.
        padded: whether the image covers all patches whole, or only as far as the images of training do.
    """

    basis: Tensor
    fading: Tensor
    row: Tensor
    column: Tensor
    place: Tensor

    def __init__(self, grid: PatchGrid, height: int, width: int, *, padded: bool = False) -> None:
        super().__init__()
        high, wide = (grid.rows, grid.columns) if padded else (grid.height / grid.patch, grid.width / grid.patch)
        rows, row, inner_row = _places(grid.rows, high, height)
        columns, column, inner_column = _places(grid.columns, wide, width)
        y = rows[:, None, :, None].expand(-1, grid.columns, -1, columns.shape[1])
        x = columns[None, :, None, :].expand(grid.rows, -1, rows.shape[1], -1)
        terms = torch.stack([x * x, 2 * x * y, y * y, x, y, torch.ones_like(x)], dim=-1)
        self.register_buffer("basis", terms.flatten(2, 3).transpose(2, 3), persistent=False)
        fading = torch.stack([log_fading(x - right, y - down) for right, down in AROUND], dim=2)
        self.register_buffer("fading", fading.flatten(3), persistent=False)
        self.register_buffer("row", row[:, None], persistent=False)
        self.register_buffer("column", column[None, :], persistent=False)
        self.register_buffer("place", inner_row[:, None] * columns.shape[1] + inner_column[None, :], persistent=False)

    def distances(self, splats: PatchSplats) -> Tensor:
        """Squared distances in the metric of each splat: [batch, row, column, splat, place]."""
        xx, xy, yy = splats.precision.unbind(-1)
        x, y = splats.mean.unbind(-1)
        along_x, along_y = xx * x + xy * y, xy * x + yy * y
        terms = torch.stack([xx, xy, yy, -2 * along_x, -2 * along_y, along_x * x + along_y * y], dim=-1)
        # The expanded square may fall a rounding error below zero.
        return (terms @ self.basis.to(terms.dtype)).clamp_min(0)

    def image(self, places: Tensor) -> Tensor:
        """[batch, row, column, channel, place] -> [batch, channel, row of pixels, column of pixels]."""
        return places.permute(0, 3, 1, 2, 4)[:, :, self.row, self.column, self.place]


def _places(patches: int, extent: float, pixels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Where the pixels of one axis lie.

    Returns:
        Coordinates [patch, place] from the patch's centre; patch and place of each pixel.
    """
    owners = [min(patches - 1, math.floor((pixel + 0.5) * extent / pixels)) for pixel in range(pixels)]
    first = [next((pixel for pixel, owner in enumerate(owners) if owner == patch), 0) for patch in range(patches)]
    inner = [pixel - first[owner] for pixel, owner in enumerate(owners)]
    starts = torch.tensor(first)[:, None] + torch.arange(max(inner) + 1)
    coordinates = (starts + 0.5) * (extent / pixels) - torch.arange(patches)[:, None] - 0.5
    return coordinates.float(), torch.tensor(owners), torch.tensor(inner)


def lobe(distance: Tensor, kernel: KernelName | Literal["blob"]) -> Tensor | None:
    """How much of its colour a splat shows at a squared distance; None for all of it everywhere."""
    if kernel == "cosine":
        return torch.exp(-distance) * torch.cos(6 * distance)
    if kernel == "gaussian":
        return torch.exp(-distance)
    return (1 - 4 * distance).clamp_min(0) if kernel == "blob" else None


def blend(
    splats: PatchSplats,
    canvas: Canvas,
    kernel: KernelName | Literal["blob"],
    *,
    shared: bool,
    published: bool = False,
) -> Tensor:
    """Draws splats.

    Args:
        splats: of every patch.
        canvas: pixels.
        kernel: what a splat shows of its colour; ``blob`` is a cone of a quarter patch.
        shared: whether a pixel sees the splats of the patches around its own, fading with distance, or of its own only.
        published: add the published epsilon to the sum of weights, so that pixels that nothing reaches are black.

    Returns:
        float32 [batch, channel, row, column], in [0, 1] but for the cosine kernel.
    """
    seen = with_neighbours(splats) if shared else splats
    distance = canvas.distances(seen)
    logits = 2 * seen.depth.unsqueeze(-1) - 4 * distance
    if shared:
        fading = canvas.fading.to(logits.dtype).repeat_interleave(splats.depth.shape[-1], dim=2)
        logits = logits + fading
    if published:
        weights = torch.exp(logits - PUBLISHED_DEPTH)
        weights = weights / (weights.sum(dim=-2, keepdim=True) + PUBLISHED_EPSILON)
    else:
        weights = logits.softmax(dim=-2)
    shown = lobe(distance, kernel)
    return canvas.image(seen.colour.transpose(-1, -2) @ (weights if shown is None else weights * shown))


def as_blobs(splats: PatchSplats) -> PatchSplats:
    """Splats of the same places, colours and depths that are all round and a quarter patch in radius."""
    round_ones = splats.precision.new_tensor([4.0, 0.0, 4.0]).expand_as(splats.precision)
    return splats._replace(precision=round_ones)


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
        blend: draws splats, with the signature of ``models.patches.splats.blend``; a faster one may take its place.

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
        """See :meth:`models.patches.head.PatchHead.forward`."""
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
