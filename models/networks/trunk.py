"""The transformer that the slot model, the set models and the pixel transformer share: gated blocks under a condition.

One matrix turns the condition into shifts, scales and gates for all blocks; each block adds its own constant to them.

Which Gaussians share a token: compact clusters of anchors, the same for every image.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.networks.layers import Attention, Modulation, RMSNorm, SwiGLU, modulate

MOST_TOKENS = 50
"""By default so many Gaussians share a token that about this many tokens remain."""


@dataclass(frozen=True)
class TrunkSize:
    """How large a transformer is.

    Attributes:
        width: length of a token.
        depth: blocks.
        heads: attention heads; must divide ``width``.
        hidden: numbers inside a feed-forward net; 0: 8/3 of the width.
    """

    width: int
    depth: int
    heads: int
    hidden: int = 0


class Block(nn.Module):
    """Attention, then a gated feed-forward net, each under its own shift, scale and gate.

    Args:
        size: width and heads.
    """

    PARTS = 6

    def __init__(self, size: TrunkSize) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(size.width, scaled=False)
        self.attention = Attention(size.width, size.heads)
        self.feed_norm = RMSNorm(size.width, scaled=False)
        self.feed = SwiGLU(size.width, size.hidden)
        self.constant = nn.Parameter(torch.zeros(self.PARTS * size.width))

    def forward(self, tokens: Tensor, modulation: Tensor, mask: Tensor | None = None) -> Tensor:
        """Refines the tokens.

        Args:
            tokens: [batch, token, width].
            modulation: [batch, 1 or token, 6 * width], the shared part.
            mask: bool [batch, token], False for tokens that must not be seen.

        Returns:
            [batch, token, width].
        """
        shift, scale, gate, feed_shift, feed_scale, feed_gate = (modulation + self.constant).chunk(6, dim=-1)
        tokens = tokens + gate * self.attention(modulate(self.attention_norm(tokens), shift, scale), mask=mask)
        return tokens + feed_gate * self.feed(modulate(self.feed_norm(tokens), feed_shift, feed_scale))


class InducedBlock(nn.Module):
    """A block whose tokens meet through a few learned ones, so that its cost is linear in the number of tokens.

    The learned tokens gather from all tokens, then every token gathers from them.

    Args:
        size: width and heads.
        inducing: learned tokens.
    """

    def __init__(self, size: TrunkSize, inducing: int) -> None:
        super().__init__()
        self.inducing = nn.Parameter(torch.randn(inducing, size.width) * 0.02)
        self.gather = Attention(size.width, size.heads)
        self.inducing_norm = RMSNorm(size.width)
        self.gathered_norm = RMSNorm(size.width)
        self.block = Block(size)

    def forward(self, tokens: Tensor, modulation: Tensor, mask: Tensor | None = None) -> Tensor:
        """As :meth:`Block.forward`."""
        block = self.block
        shift, scale, gate, feed_shift, feed_scale, feed_gate = (modulation + block.constant).chunk(6, dim=-1)
        normed = modulate(block.attention_norm(tokens), shift, scale)
        learned = self.inducing.to(normed.dtype).expand(tokens.shape[0], -1, -1)
        met = learned + self.gather(self.inducing_norm(learned), normed, mask)
        tokens = tokens + gate * block.attention(normed, self.gathered_norm(met))
        return tokens + feed_gate * block.feed(modulate(block.feed_norm(tokens), feed_shift, feed_scale))


class Trunk(nn.Module):
    """Blocks one after the other, then the outgoing projection, which starts at zero.

    Args:
        size: width, depth and heads.
        leave: numbers that come out per token.
        inducing: learned tokens per block; 0: every token attends to every token.
    """

    def __init__(self, size: TrunkSize, leave: int, inducing: int = 0) -> None:
        super().__init__()
        self.modulation = Modulation(size.width, Block.PARTS)
        self.blocks = nn.ModuleList(
            InducedBlock(size, inducing) if inducing else Block(size) for _ in range(size.depth)
        )
        self.last_norm = RMSNorm(size.width, scaled=False)
        self.last_modulation = Modulation(size.width, 2)
        self.leave = nn.Linear(size.width, leave, bias=False)
        nn.init.zeros_(self.leave.weight)

    def forward(self, tokens: Tensor, condition: Tensor, mask: Tensor | None = None) -> Tensor:
        """Runs all blocks.

        Args:
            tokens: [batch, token, width].
            condition: [batch, 1 or token, width].
            mask: bool [batch, token], False for tokens that must not be seen; None: all are seen.

        Returns:
            [batch, token, leave].
        """
        modulation = self.modulation(condition)
        for block in self.blocks:
            tokens = block(tokens, modulation, mask)
        shift, scale = self.last_modulation(condition).chunk(2, dim=-1)
        return self.leave(modulate(self.last_norm(tokens), shift, scale))


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
