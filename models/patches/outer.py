"""Patches as sums of patterns that are drawn again for every image: products of a column and a row per colour."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from data_schemas.errors import JobError
from models.patches.head import HeadShape, PatchConfig, PatchHead, full_precision

COLOUR_STEPS = 4
"""Among how many waves along an edge the first differences of colour come: photographs have little of them."""

FACTOR_START = 0.1
"""How much static tokens change the starting patterns at first, beside waves of mean square 1."""


@dataclass(frozen=True)
class OuterConfig(PatchConfig):
    """Size of a patch model with a table per image.

    Attributes:
        entries: patterns of an image's table; each costs a token in the trunk.
    """

    entries: int = 64

    def build_head(self, shape: HeadShape) -> OuterHead:
        """See :class:`OuterHead`."""
        return OuterHead(shape, self)


class OuterHead(PatchHead):
    """One static token per pattern; it leaves the trunk as a column and a row of pixels for every colour.

    As published, coefficients are bounded by tanh, and the patterns of all entries resemble each other at first.
    Improved, coefficients are free and start at zero, and patterns start as the waves of a cosine transform, coarse
    ones first: none resembles another, all have a mean square of 1, and together they can already show a photograph
    roughly. Factors are not normed, which would cost each of them a degree of freedom.

    Args:
        shape: see there.
        config: patterns.

    Raises:
        JobError: no pattern.
    """

    def __init__(self, shape: HeadShape, config: OuterConfig) -> None:
        super().__init__()
        if config.entries < 1:
            raise JobError(f"a table of {config.entries} patterns", allowed="1 or more")
        self.grid, self.channels, self.published = shape.grid, shape.channels, shape.published
        scale = 1.0 if shape.published else 0.02
        self.static = nn.Parameter(torch.randn(config.entries, shape.width) * scale)
        self.leave = nn.Linear(shape.width, config.entries)
        self.factors = nn.Linear(shape.width, 2 * shape.channels * shape.grid.patch)
        if not shape.published:
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)
            nn.init.normal_(self.factors.weight, std=FACTOR_START / math.sqrt(shape.width))
            nn.init.zeros_(self.factors.bias)
            self.factors_start = nn.Parameter(cosine_factors(config.entries, shape.channels, shape.grid.patch))

    def patterns(self, static: Tensor) -> Tensor:
        """[batch, entry, width] -> float32 [batch, entry, channel, row, column]."""
        raw = self.factors(static).float()
        if not self.published:
            raw = raw + self.factors_start.float()
        return self.products(raw)

    def products(self, factors: Tensor) -> Tensor:
        """[batch, entry, channel * (column, row) of a patch] -> [batch, entry, channel, row, column]."""
        pairs = factors.unflatten(-1, (self.channels, 2, self.grid.patch))
        return pairs[..., 0, :, None] * pairs[..., 1, None, :]

    def forward(self, tokens: Tensor, static: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """See :meth:`models.patches.head.PatchHead.forward`."""
        coefficients = self.leave(tokens).float()
        if self.published:
            coefficients = coefficients.tanh()
        patterns = self.patterns(static).flatten(2)
        with full_precision(noisy):
            return self.grid.joined(coefficients @ patterns)


def cosine_factors(entries: int, channels: int, patch: int) -> Tensor:
    """Columns and rows whose products are the waves of a cosine transform over a patch and its colours.

    Args:
        entries: patterns; random ones follow where there are more than waves.
        channels: of the images.
        patch: pixels of a side.

    Returns:
        float32 [entry, channel * (column, row) of a patch]; waves have a mean square of 1 and are orthogonal.
    """
    waves = [
        (axis, down, right) for axis in range(channels) for down, right in itertools.product(range(patch), repeat=2)
    ]
    waves.sort(key=lambda wave: (wave[1] + wave[2] + COLOUR_STEPS * (wave[0] > 0), wave))
    along, over = _cosines(patch), _cosines(channels)
    factors = torch.randn(entries, channels, 2, patch)
    for entry, (axis, down, right) in enumerate(waves[:entries]):
        factors[entry, :, 0] = along[down]
        factors[entry, :, 1] = over[axis][:, None] * along[right]
    return factors.flatten(1)


def _cosines(size: int) -> Tensor:
    """The waves of a cosine transform, of mean square 1: [wave, place]."""
    place = (torch.arange(size) + 0.5) * (math.pi / size)
    waves = torch.cos(torch.arange(size)[:, None] * place) * math.sqrt(2)
    waves[0] = 1.0
    return waves
