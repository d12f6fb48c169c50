"""Building blocks of the transformers: norms, attention, gates and embeddings, none with a bias.

All are safe under bfloat16 autocast: norms accumulate in float32 inside, embeddings are computed in float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

EPSILON = 1e-6
HIGHEST_TIME = 1000.0
"""Times in [0, 1] are stretched by this before their sines are taken; without it neighbouring times look alike."""

LABEL_SPREAD = 0.5
"""Deviation of the labels' first vectors, a few times that of the first vectors of times: with 0.02 labels are hardly
heard for hundreds of steps. "No label" starts at zero."""


class RMSNorm(nn.Module):
    """Divides by the root of the mean square over the last axis.

    Args:
        width: length of the last axis.
        scaled: whether a learned factor per channel follows (not where a modulation follows anyway).
    """

    def __init__(self, width: int, *, scaled: bool = True) -> None:
        super().__init__()
        self.width = width
        self.weight = nn.Parameter(torch.ones(width)) if scaled else None

    def forward(self, value: Tensor) -> Tensor:
        """[..., width] -> the same shape and dtype."""
        weight = None if self.weight is None else self.weight.to(value.dtype)
        return functional.rms_norm(value, (self.width,), weight, EPSILON)


class SwiGLU(nn.Module):
    """Gated feed-forward net.

    Args:
        width: length of a token.
        hidden: numbers inside; 0: 8/3 of the width, rounded down to a multiple of 32, which costs as much as an
            ordinary net four times as wide.
    """

    def __init__(self, width: int, hidden: int = 0) -> None:
        super().__init__()
        hidden = hidden or max(32, width * 8 // 3 // 32 * 32)
        self.enter = nn.Linear(width, 2 * hidden, bias=False)
        self.leave = nn.Linear(hidden, width, bias=False)

    def forward(self, value: Tensor) -> Tensor:
        """[..., width] -> the same shape."""
        gate, content = self.enter(value).chunk(2, dim=-1)
        return self.leave(functional.silu(gate) * content)


class Attention(nn.Module):
    """Multi-head attention with normalised queries and keys, so that no logit can run away.

    Args:
        width: length of a token.
        heads: must divide ``width``.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide a width of {width}")
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.leave = nn.Linear(width, width, bias=False)
        self.query_norm = RMSNorm(width // heads)
        self.key_norm = RMSNorm(width // heads)

    def forward(self, tokens: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """Every token gathers from the context.

        Args:
            tokens: [batch, token, width].
            context: [batch, other, width]; None: the tokens themselves.
            mask: bool [batch, other], False where a context token must not be seen; None: all are seen. A row
                without any True is treated as all True: there is nothing to gather, and no NaN either.

        Returns:
            [batch, token, width].
        """
        query = self.query(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.key_value(tokens if context is None else context).chunk(2, dim=-1)
        )
        query, key = self.query_norm(query).to(value.dtype), self.key_norm(key).to(value.dtype)
        seen = None if mask is None else (mask | ~mask.any(dim=-1, keepdim=True))[:, None, None, :]
        gathered = functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)
        return self.leave(gathered.transpose(1, 2).flatten(2))


def modulate(value: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """``value * (1 + scale) + shift``: what a condition does to normalised tokens."""
    return value * (1 + scale) + shift


class Modulation(nn.Module):
    """One matrix from the condition to shifts, scales and gates, shared by all blocks (adaLN-zero).

    It starts at zero: every block starts as the identity.

    Args:
        width: length of the condition and of a token.
        parts: vectors that it makes.
    """

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.leave = nn.Linear(width, parts * width, bias=False)
        nn.init.zeros_(self.leave.weight)

    def forward(self, condition: Tensor) -> Tensor:
        """[..., width] -> [..., parts * width]."""
        return self.leave(functional.silu(condition))


def fourier_features(points: Tensor, frequencies: int) -> Tensor:
    """Sines and cosines of coordinates at octaves of half a wave per unit: where a point is, in smooth numbers.

    Args:
        points: float [..., axis] in [-1, 1].
        frequencies: octaves.

    Returns:
        float32 [..., axis * 2 * frequencies].
    """
    octaves = math.pi / 2 * 2.0 ** torch.arange(frequencies, device=points.device, dtype=torch.float32)
    angles = points.float().unsqueeze(-1) * octaves
    return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def time_features(time: Tensor, width: int) -> Tensor:
    """Sines and cosines of times at ``width / 2`` frequencies from 1 to 1/10,000 per thousandth.

    Args:
        time: float [...] in [0, 1].
        width: numbers per time; even.

    Returns:
        float32 [..., width].
    """
    half = width // 2
    exponents = torch.arange(half, device=time.device, dtype=torch.float32) / half
    angles = time.float().unsqueeze(-1) * HIGHEST_TIME * torch.exp(-math.log(10_000.0) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class ConditionEmbedding(nn.Module):
    """Time and label as one vector per sample, or per token where times differ between tokens.

    Args:
        width: length of the vector.
        groups: times per token.
        classes: labels; one more entry of the table means "no label".
    """

    FREQUENCY_WIDTH = 128
    """Numbers that one time becomes first."""

    def __init__(self, width: int, groups: int, classes: int) -> None:
        super().__init__()
        self.groups = groups
        self.classes = classes
        self.enter = nn.Linear(groups * self.FREQUENCY_WIDTH, width, bias=False)
        self.leave = nn.Linear(width, width, bias=False)
        self.table = nn.Embedding(classes + 1, width)
        nn.init.normal_(self.table.weight, std=LABEL_SPREAD)
        with torch.no_grad():
            self.table.weight[classes].zero_()

    def forward(self, time: Tensor, label: Tensor | None) -> Tensor:
        """Embeds.

        Args:
            time: float [batch], or [batch, token, part, group]: the times of the parts that a token packs.
            label: int64 [batch] or None.

        Returns:
            [batch, 1, width] or [batch, token, width].
        """
        features = time_features(time, self.FREQUENCY_WIDTH)
        features = features.repeat(1, self.groups)[:, None, :] if time.ndim == 1 else features.mean(dim=2).flatten(2)
        embedded = self.leave(functional.silu(self.enter(features.to(self.enter.weight.dtype))))
        if label is None:
            label = torch.full((time.shape[0],), self.classes, dtype=torch.int64, device=time.device)
        return embedded + self.table(label)[:, None, :]
