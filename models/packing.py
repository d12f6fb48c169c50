"""Which Gaussians share a token: compact clusters of anchors, the same for every image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

MOST_TOKENS = 50
"""By default so many Gaussians share a token that about this many tokens remain."""


def default_pack(gaussians: int) -> int:
    """Gaussians per token for K Gaussians: 2 at K = 70, 3 at K = 150, 4 at K = 200; 1 only for a lone Gaussian."""
    return min(gaussians, max(2, math.ceil(gaussians / MOST_TOKENS)))


def locality_order(anchors: tuple[tuple[float, float], ...] | None, gaussians: int, pack: int) -> list[int]:
    """Orders Gaussians so that every ``pack`` in a row lie close together.

    The set is halved across its longer side, each half holding whole tokens, until one token is left. Ties are
    resolved by index, so that the order is a function of the anchors alone.

    Args:
        anchors: K points (x, y); None: the order stays as it is.
        gaussians: K.
        pack: Gaussians per token.

    Returns:
        A permutation of ``range(gaussians)``; only the last token may be short.
    """
    if anchors is None:
        return list(range(gaussians))
    points = anchors

    def order(members: list[int]) -> list[int]:
        tokens = math.ceil(len(members) / pack)
        if tokens <= 1:
            return sorted(members)
        extents = [max(points[i][axis] for i in members) - min(points[i][axis] for i in members) for axis in (0, 1)]
        across = 0 if extents[0] >= extents[1] else 1
        members = sorted(members, key=lambda i: (points[i][across], points[i][1 - across], i))
        cut = tokens // 2 * pack
        return order(members[:cut]) + order(members[cut:])

    return order(list(range(gaussians)))


class Packing(nn.Module):
    """Takes sets to tokens of ``pack`` neighbours and back; places beyond K are padding, filled with zeros.

    Args:
        anchors: K points (x, y) or None.
        gaussians: K.
        pack: Gaussians per token.
    """

    order: Tensor
    inverse: Tensor

    def __init__(self, anchors: tuple[tuple[float, float], ...] | None, gaussians: int, pack: int) -> None:
        super().__init__()
        self.gaussians = gaussians
        self.pack = pack
        self.tokens = math.ceil(gaussians / pack)
        order = torch.tensor(locality_order(anchors, gaussians, pack))
        # Not in the checkpoint: the header holds the anchors, from which they follow.
        self.register_buffer("order", order, persistent=False)
        self.register_buffer("inverse", torch.argsort(order), persistent=False)

    def enter(self, value: Tensor) -> Tensor:
        """[batch, gaussian, number] -> [batch, token, pack, number]."""
        padding = self.tokens * self.pack - self.gaussians
        ordered = nn.functional.pad(value.index_select(1, self.order), (0, 0, 0, padding))
        return ordered.unflatten(1, (self.tokens, self.pack))

    def leave(self, tokens: Tensor) -> Tensor:
        """[batch, token, pack, number] -> [batch, gaussian, number]."""
        return tokens.flatten(1, 2)[:, : self.gaussians].index_select(1, self.inverse)
