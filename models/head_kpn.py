"""Patches as kernels that filter the noisy image itself, and a small network that adds what no filter can."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.kernel_pyramid import COLOUR, FILTER_NUMBERS, GATE, pyramid
from models.layers import time_features
from models.patch_head import HeadShape, PatchConfig, PatchHead, full_precision

FEATURES = 32
"""Numbers of each pixel of each level; as published, three of them are not used."""

DRIFT_CHANNELS = 16
DRIFT_LEVELS = 3

SMALLEST_DECODED = 32
"""Fewest channels of the decoder."""


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
        levels: halvings.
    """

    TIME_WIDTH = 32

    def __init__(self, channels: int, *, published: bool, levels: int = DRIFT_LEVELS) -> None:
        super().__init__()
        timed = 0 if published else self.TIME_WIDTH
        self.published = published
        enters = [channels] + [DRIFT_CHANNELS] * (levels - 1)
        self.down = nn.ModuleList(nn.Conv2d(enter, DRIFT_CHANNELS, 2, stride=2) for enter in enters)
        self.down_refine = nn.ModuleList(Refinement(DRIFT_CHANNELS, timed) for _ in range(levels))
        self.up = nn.ModuleList(nn.ConvTranspose2d(DRIFT_CHANNELS, leave, 2, stride=2) for leave in reversed(enters))
        self.up_refine = nn.ModuleList(Refinement(DRIFT_CHANNELS, timed) for _ in range(levels - 1))

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
        """See :meth:`models.patch_head.PatchHead.forward`."""
        return self.filtered(tokens, noisy) + self.drift(noisy, time).float()
