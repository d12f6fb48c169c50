"""Patches as sums of patterns that are drawn anew for every image: products of a column and a row per colour."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.patch_head import HeadShape, PatchConfig, PatchHead, full_precision


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

    As published, coefficients are bounded by tanh and the columns and rows are taken as they come. Improved, columns
    and rows have a mean square of 1, and coefficients are free and start at zero: of two factors that both start near
    zero neither would learn anything.

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
            # Static tokens resemble each other at first; their patterns must not.
            self.factors_start = nn.Parameter(torch.randn(config.entries, 2 * shape.channels * shape.grid.patch))

    def patterns(self, static: Tensor) -> Tensor:
        """[batch, entry, width] -> float32 [batch, entry, channel, row, column]."""
        raw = self.factors(static).float()
        if not self.published:
            raw = raw + self.factors_start.float()
        factors = raw.unflatten(-1, (self.channels, 2, self.grid.patch))
        if not self.published:
            factors = functional.rms_norm(factors, (self.grid.patch,))
        return factors[..., 0, :, None] * factors[..., 1, None, :]

    def forward(self, tokens: Tensor, static: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """See :meth:`models.patch_head.PatchHead.forward`."""
        coefficients = self.leave(tokens).float()
        if self.published:
            coefficients = coefficients.tanh()
        patterns = self.patterns(static).flatten(2)
        with full_precision(noisy):
            return self.grid.joined(coefficients @ patterns)
