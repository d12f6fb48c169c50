"""Patches as sums of learned patterns: one table for all images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.patches.head import HeadShape, PatchConfig, PatchHead, full_precision

Activation = Literal["softmax", "tanh"]


@dataclass(frozen=True)
class LutConfig(PatchConfig):
    """Size of a patch model with a table of patterns.

    Attributes:
        entries: patterns of the table; 0: as many as a patch has numbers, enough for any patch.
        activation: of the coefficients: ``softmax`` makes a mean of patterns, ``tanh`` a sum.
        gram: weight of the penalty on patterns that resemble each other; 0 for none.
    """

    entries: int = 0
    activation: Activation = "tanh"
    gram: float = 0.0

    def build_head(self, shape: HeadShape) -> LutHead:
        """See :class:`LutHead`."""
        return LutHead(shape, self)


def gram_matrix(patterns: Tensor, *, normalised: bool) -> Tensor:
    """Products of all pairs of patterns.

    Args:
        patterns: [entry, number].
        normalised: of patterns brought to length 1, so that the products are cosines.

    Returns:
        [entry, entry].
    """
    rows = functional.normalize(patterns, dim=1) if normalised else patterns
    return rows @ rows.T


def gram_penalty(patterns: Tensor, *, normalised: bool) -> Tensor:
    """Mean square of the Gram matrix with its diagonal set to zero; the mean runs over all entries.

    As published it is not ``normalised``: patterns that merely shrink lower it.
    """
    gram = gram_matrix(patterns, normalised=normalised)
    return (gram - torch.diag(gram.diagonal())).square().mean()


class LutHead(PatchHead):
    """Coefficients from each token, patterns from a table.

    Args:
        shape: see there.
        config: patterns and coefficients.

    Raises:
        JobError: no pattern, or an unknown activation.
    """

    def __init__(self, shape: HeadShape, config: LutConfig) -> None:
        super().__init__()
        self.grid, self.activation, self.gram, self.published = (
            shape.grid,
            config.activation,
            config.gram,
            shape.published,
        )
        numbers = shape.channels * shape.grid.patch**2
        entries = config.entries or numbers
        if entries < 1 or config.activation not in ("softmax", "tanh") or config.gram < 0:
            raise JobError(
                f"a table of {entries} patterns, {config.activation}, gram {config.gram:g}",
                allowed="1 pattern or more, softmax or tanh, 0 or more",
            )
        self.channels = shape.channels
        self.leave = nn.Linear(shape.width, entries)
        table = torch.randn(entries, numbers)
        if not shape.published:
            # Sums start grey, and the penalty starts where it is of use.
            nn.init.zeros_(self.leave.weight)
            nn.init.zeros_(self.leave.bias)
            table = functional.normalize(table, dim=1) * numbers**0.5 / 4
        self.table = nn.Parameter(table)

    def coefficients(self, tokens: Tensor) -> Tensor:
        """[batch, token, width] -> float32 [batch, token, entry]."""
        raw = self.leave(tokens).float()
        return raw.softmax(dim=-1) if self.activation == "softmax" else raw.tanh()

    def forward(self, tokens: Tensor, static: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """See :meth:`models.patches.head.PatchHead.forward`."""
        coefficients = self.coefficients(tokens)
        with full_precision(noisy):
            return self.grid.joined(coefficients @ self.table.float())

    def penalty(self) -> Tensor | None:
        """The weighted Gram penalty."""
        return self.gram * gram_penalty(self.table, normalised=not self.published) if self.gram else None

    def patterns(self) -> Tensor:
        """[entry, channel, row, column], for images."""
        side = self.grid.patch
        return self.table.detach().unflatten(-1, (self.channels, side, side))
