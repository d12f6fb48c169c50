"""The trunk of the published patch models, its defects included.

Re-implemented from a description of its structure. With a width of 512, 16 blocks and 8x8 patches of colour images it
has 25,772,880 parameters. Kept as they are:

* the noise level is one number through sines of frequencies 1 to 1/10,000 of a time in [0, 1], which hardly differ; it
  is added to the lifted pixels once, and no block sees it;
* what is called a rotary embedding is applied to the tokens themselves, once, and mixes two layouts, so that it is no
  rotation: it all but erases some directions of some positions;
* the gated feed-forward net does not expand, and nothing follows its product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.patch_grid import PatchGrid
from models.trunk import TrunkSize

LIFTED = 16
"""Channels of a lifted pixel, and numbers of an embedded time."""

LONGEST_WAVE = 10_000.0


def unscaled_time_features(time: Tensor) -> Tensor:
    """[batch] in [0, 1] -> float32 [batch, LIFTED]: sines, then cosines."""
    half = LIFTED // 2
    exponents = torch.arange(half, device=time.device, dtype=torch.float32) / (half - 1)
    angles = time.float().unsqueeze(-1) * LONGEST_WAVE**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def mixed_axis_map(tokens: Tensor, positions: Tensor) -> Tensor:
    """The published map of one axis: halves are exchanged as if tables were halved, and the tables are interleaved.

    Args:
        tokens: [..., token, channel], an even number of channels.
        positions: float [token].

    Returns:
        As ``tokens``.
    """
    channels = tokens.shape[-1]
    exponents = torch.arange(channels // 2, device=tokens.device, dtype=torch.float32) / (channels // 2)
    angles = (positions.float()[:, None] * LONGEST_WAVE**-exponents).repeat_interleave(2, dim=-1)
    first, second = tokens.chunk(2, dim=-1)
    exchanged = torch.cat([-second, first], dim=-1)
    return tokens * angles.cos().to(tokens.dtype) + exchanged * angles.sin().to(tokens.dtype)


class PublishedPatchBlock(nn.Module):
    """Attention, then a gated product of two linear maps, each after a norm.

    Args:
        width: length of a token.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.leave = nn.Linear(width, width)
        self.feed_norm = nn.LayerNorm(width)
        self.content = nn.Linear(width, width)
        self.gate = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, token, width] -> the same shape."""
        normed = self.attention_norm(tokens)
        query, key, value = (
            part(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        gathered = functional.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.leave(gathered.transpose(1, 2).flatten(2))
        normed = self.feed_norm(tokens)
        return tokens + self.content(normed) * functional.silu(self.gate(normed))


class PublishedPatchTrunk(nn.Module):
    """Patches of a noisy image as tokens.

    Args:
        grid: patches.
        channels: colours.
        size: width, depth and heads; its width must be a multiple of 4.

    Raises:
        JobError: a width that cannot be split over two axes.
    """

    def __init__(self, grid: PatchGrid, channels: int, size: TrunkSize) -> None:
        super().__init__()
        if size.width % 4:
            raise JobError(f"width {size.width} of a published patch model", allowed="a multiple of 4")
        self.grid = grid
        self.lift = nn.Conv2d(channels, LIFTED, 1)
        self.time = nn.Linear(LIFTED, LIFTED)
        self.enter = nn.Conv2d(LIFTED, size.width, grid.patch, stride=grid.patch)
        self.blocks = nn.ModuleList(PublishedPatchBlock(size.width, size.heads) for _ in range(size.depth))

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None, static: Tensor | None) -> Tensor:
        """Runs all blocks.

        Args:
            noisy: [batch, channel, row, column], padded.
            time: float [batch].
            label: not read.
            static: [static token, width] or None.

        Returns:
            [batch, token + static token, width].
        """
        embedded = self.time(unscaled_time_features(time).to(self.time.weight.dtype))
        tokens = self.enter(self.lift(noisy) + embedded[:, :, None, None]).flatten(2).transpose(1, 2)
        rows = torch.arange(self.grid.rows, device=noisy.device).repeat_interleave(self.grid.columns)
        columns = torch.arange(self.grid.columns, device=noisy.device).repeat(self.grid.rows)
        by_row, by_column = tokens.chunk(2, dim=-1)
        tokens = torch.cat([mixed_axis_map(by_row, rows), mixed_axis_map(by_column, columns)], dim=-1)
        if static is not None:
            tokens = torch.cat([tokens, static.to(tokens.dtype).expand(tokens.shape[0], -1, -1)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens
