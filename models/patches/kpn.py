"""Patches as kernels that filter the noisy image itself, and a small network that adds what no filter can.

An image filtered down a pyramid and put together again, by kernels that differ from pixel to pixel.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.networks.layers import time_features
from models.patches.head import HeadShape, PatchConfig, PatchHead, full_precision

KERNEL = 5
"""Pixels of a side of every kernel."""

FILTER_NUMBERS = KERNEL * KERNEL
SHAPE = slice(FILTER_NUMBERS, FILTER_NUMBERS + 3)
GATE = FILTER_NUMBERS + 3
COLOUR = FILTER_NUMBERS + 4
"""Where the numbers of a pixel lie: kernel, shape of the kernel of the way up, gate, and a colour of its own."""

SHARPEST = 4.0
"""Largest inverse width of a kernel of the way up, per low-resolution pixel."""

_EPSILON = 1e-6

FEATURES = 32
"""Numbers of each pixel of each level; as published, three of them are not used."""

DRIFT_CHANNELS = 16
DRIFT_LEVELS = 3

SMALLEST_DECODED = 32
"""Fewest channels of the decoder."""


def filter_pixels(image: Tensor, numbers: Tensor) -> Tensor:
    """Every pixel becomes a weighted sum of the 5x5 pixels around it; beyond the edge is zero.

    Args:
        image: float32 [batch, channel, row, column].
        numbers: float32 [batch, number, row, column]; tanh of the first 25 are the weights, alike for all colours.

    Returns:
        As ``image``; weights may be negative and need not sum to 1.
    """
    weights = numbers[:, :FILTER_NUMBERS].tanh()
    return _add_weighted(weights, functional.pad(image, [KERNEL // 2] * 4), torch.zeros_like(image), column_axis=3)


def _add_weighted(weights: Tensor, padded: Tensor, total: Tensor, *, column_axis: int) -> Tensor:
    """Adds up the 25 images that a 5x5 window sees; faster than to unfold them into one.

    Args:
        weights: [batch, 25, row, ...], row by row of the window.
        padded: [batch, channel, row, ...], two pixels larger on each side.
        total: what is added to.
        column_axis: of ``padded``; rows are its third.
    """
    rows, columns = padded.shape[2] - KERNEL + 1, padded.shape[column_axis] - KERNEL + 1
    # Divided at once: taken one by one, each would have a gradient of the size of all.
    for number, weight in enumerate(weights.split(1, dim=1)):
        y, x = divmod(number, KERNEL)
        total = total + weight * padded.narrow(2, y, rows).narrow(column_axis, x, columns)
    return total


def _edges_repeated(image: Tensor, axis: int) -> Tensor:
    """The image with its first and last pixels of an axis repeated as far as a window reaches beyond them.

    As ``functional.pad`` with ``replicate``, whose gradient torch.compile cannot lay out (torch 2.13).
    """
    reach = KERNEL // 2
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, -1, 1)
    return torch.cat([*[first] * reach, image, *[last] * reach], dim=axis)


def enlarge(image: Tensor, numbers: Tensor, *, published: bool) -> Tensor:
    """Doubles an image: every new pixel is a mean of the 5x5 pixels around its place under a Gaussian of its own.

    Args:
        image: float32 [batch, channel, row, column].
        numbers: float32 [batch, number, 2 * row, 2 * column]; three of them are the Gaussian's two inverse widths and
            its correlation.
        published: take the product of both inverse widths where the square of the vertical one is meant, which makes
            a fifth of all forms indefinite.

    Returns:
        float32 [batch, channel, 2 * row, 2 * column].
    """
    raw = numbers[:, SHAPE]
    wide, high = SHARPEST * raw[:, 0].sigmoid(), SHARPEST * raw[:, 1].sigmoid()
    across = raw[:, 2].tanh() * wide * high
    vertical = wide * high if published else high.square()
    # Pixels in pairs, [batch, row, pair, column, pair]: both of a pair see the same pixels of the small image, from
    # a quarter of a pixel to either side of its middle.
    rows, columns = image.shape[-2:]
    wide2, vertical, across = (
        part.unflatten(-2, (rows, 2)).unflatten(-1, (columns, 2)) for part in (wide.square(), vertical, across)
    )
    offsets = torch.arange(KERNEL, device=image.device, dtype=torch.float32) - KERNEL // 2
    sides = torch.tensor([0.25, -0.25], device=image.device)
    dy = (offsets[:, None, None, None, None, None] + sides[None, None, None, :, None, None]).expand(
        -1, KERNEL, 1, 2, 1, 1
    )
    dx = (offsets[None, :, None, None, None, None] + sides[None, None, None, None, None, :]).expand(
        KERNEL, -1, 1, 1, 1, 2
    )
    dx, dy = dx.flatten(0, 1), dy.flatten(0, 1)
    # [batch, window, row, pair, column, pair]
    distance = (
        wide2.unsqueeze(1) * dx.square() + vertical.unsqueeze(1) * dy.square() + 2 * across.unsqueeze(1) * dx * dy
    )
    if published:
        weights = torch.exp(-2 * distance)
        weights = weights / (weights.sum(dim=1, keepdim=True) + _EPSILON)
    else:
        weights = (-2 * distance).softmax(dim=1)
    padded = _edges_repeated(_edges_repeated(image, 2), 3)[..., None, :, None]
    total = _add_weighted(weights, padded, image.new_zeros(*image.shape[:2], rows, 2, columns, 2), column_axis=4)
    return total.flatten(-2).flatten(-3, -2)


def pyramid(image: Tensor, levels: list[Tensor], *, published: bool) -> Tensor:
    """Filters and halves the image once per level, then enlarges it again, with what each level showed mixed in.

    Args:
        image: float32 [batch, channel, row, column], the noisy image.
        levels: numbers of each pixel, finest first; each half as large as the one before.
        published: see :func:`enlarged`.

    Returns:
        As ``image``.
    """
    shown = []
    for numbers in levels:
        image = filter_pixels(image, numbers)
        shown.append(image)
        image = functional.avg_pool2d(image, 2)
    for numbers, kept in zip(reversed(levels), reversed(shown), strict=True):
        raised = enlarge(image, numbers, published=published)
        image = raised + numbers[:, GATE : GATE + 1].sigmoid() * (kept - raised)
    return image


@dataclass(frozen=True)
class KpnConfig(PatchConfig):
    """Size of a patch model that predicts kernels; patches are a power of two, which the pyramid makes one pixel of."""

    def build_head(self, shape: HeadShape) -> KpnHead:
        """See :class:`KpnHead`."""
        return KpnHead(shape)


class Refinement(nn.Module):
    """A 3x3 convolution and two 1x1 ones around a leaky gate, added to what comes in.

    Args:
        channels: in and out.
        timed: numbers of a condition that shifts the channels first; 0 for none.
    """

    def __init__(self, channels: int, timed: int = 0) -> None:
        super().__init__()
        self.around = nn.Conv2d(channels, channels, 3, padding=1)
        self.widen = nn.Conv2d(channels, 2 * channels, 1)
        self.leave = nn.Conv2d(2 * channels, channels, 1)
        self.shift = nn.Linear(timed, channels) if timed else None

    def forward(self, value: Tensor, condition: Tensor | None = None) -> Tensor:
        """[batch, channel, row, column] -> the same shape."""
        around = self.around(value)
        if self.shift is not None and condition is not None:
            around = around + self.shift(condition)[:, :, None, None]
        return value + self.leave(functional.leaky_relu(self.widen(around), 0.01))


class DriftNet(nn.Module):
    """A small network on the noisy image: down to an eighth and up again.

    As published it is told no noise level and has no shortcuts; improved, it has both.

    Args:
        channels: colours.
        published: see above.
    """

    TIME_WIDTH = 32

    def __init__(self, channels: int, *, published: bool) -> None:
        super().__init__()
        timed = 0 if published else self.TIME_WIDTH
        self.published = published
        enters = [channels] + [DRIFT_CHANNELS] * (DRIFT_LEVELS - 1)
        self.down = nn.ModuleList(nn.Conv2d(enter, DRIFT_CHANNELS, 2, stride=2) for enter in enters)
        self.down_refine = nn.ModuleList(Refinement(DRIFT_CHANNELS, timed) for _ in range(DRIFT_LEVELS))
        self.up = nn.ModuleList(nn.ConvTranspose2d(DRIFT_CHANNELS, leave, 2, stride=2) for leave in reversed(enters))
        self.up_refine = nn.ModuleList(Refinement(DRIFT_CHANNELS, timed) for _ in range(DRIFT_LEVELS - 1))

    def forward(self, noisy: Tensor, time: Tensor) -> Tensor:
        """[batch, channel, row, column] of any size -> the same shape."""
        height, width = noisy.shape[-2:]
        step = 2 ** len(self.down)
        value = functional.pad(noisy, (0, -width % step, 0, -height % step))
        condition = None if self.published else time_features(time, self.TIME_WIDTH).to(noisy.dtype)
        kept = []
        for down, refine in zip(self.down, self.down_refine, strict=True):
            value = refine(down(value), condition)
            kept.append(value)
        for level, up in enumerate(self.up):
            value = up(value)
            if level < len(self.up_refine):
                if not self.published:
                    value = value + kept[-2 - level]
                value = self.up_refine[level](value, condition)
        return value[..., :height, :width]


class KpnHead(PatchHead):
    """Decodes tokens up to the pixels; at every level they say how the noisy image is filtered there.

    Improved, kernels start as the identity and the numbers that were not used are a colour of the pixel's own, so that
    tokens can say what filtered noise cannot show.

    Args:
        shape: see there.

    Raises:
        JobError: a patch that is no power of two, or more than four colours.
    """

    start: Tensor

    def __init__(self, shape: HeadShape) -> None:
        super().__init__()
        self.grid, self.channels, self.published = shape.grid, shape.channels, shape.published
        levels = round(math.log2(shape.grid.patch))
        if levels < 1 or 2**levels != shape.grid.patch or shape.channels > FEATURES - COLOUR + 1:
            raise JobError(
                f"patches of {shape.grid.patch} pixels and {shape.channels} colours for predicted kernels",
                allowed="a power of two from 2 on, and at most 4 colours",
            )
        widths = [shape.width] + [max(SMALLEST_DECODED, shape.width // 2 ** (level + 1)) for level in range(levels)]
        self.refine = nn.ModuleList(Refinement(width) for width in widths[:-1])
        self.up = nn.ModuleList(
            nn.ConvTranspose2d(before, after, 2, stride=2) for before, after in itertools.pairwise(widths)
        )
        self.read = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, FEATURES, 1), Refinement(FEATURES), Refinement(FEATURES))
            for width in widths[1:]
        )
        self.drift = DriftNet(shape.channels, published=shape.published)
        start = torch.zeros(FEATURES)
        if not shape.published:
            start[FILTER_NUMBERS // 2] = 1.5
            start[GATE] = 2.0
        self.register_buffer("start", start, persistent=False)

    def levels(self, tokens: Tensor) -> list[Tensor]:
        """[batch, token, width] -> float32 [batch, FEATURES, row, column] of each level, finest first."""
        value = self.grid.as_map(tokens)
        found = []
        for refine, up, read in zip(self.refine, self.up, self.read, strict=True):
            value = up(refine(value))
            found.append(read(value).float() + self.start.float()[:, None, None])
        return found[::-1]

    def filtered(self, tokens: Tensor, noisy: Tensor) -> Tensor:
        """What the kernels make of the noisy image, without the drift: float32 of its shape."""
        levels = self.levels(tokens)
        with full_precision(noisy):
            image = pyramid(noisy.float(), levels, published=self.published)
        return image if self.published else image + levels[0][:, COLOUR : COLOUR + self.channels]

    def forward(self, tokens: Tensor, static: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """See :meth:`models.patches.head.PatchHead.forward`."""
        return self.filtered(tokens, noisy) + self.drift(noisy, time).float()
