"""The trunk of the improved patch models: the blocks of the other transformers, with positions in queries and keys.

The trunk of the published patch models, its defects included.

Re-implemented from a description of its structure. With a width of 512, 16 blocks and 8x8 patches of colour images it
has 25,772,880 parameters. Kept as they are:

* the noise level is one number through sines of frequencies 1 to 1/10,000 of a time in [0, 1], which hardly differ; it
  is added to the lifted pixels once, and no block sees it;
* what is called a rotary embedding is applied to the tokens themselves, once, and mixes two layouts, so that it is no
  rotation: it all but erases some directions of some positions;
* the gated feed-forward net does not expand, and nothing follows its product.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.networks.layers import ConditionEmbedding, Modulation, RMSNorm, fourier_features, modulate
from models.networks.trunk import Block, TrunkSize
from models.patches.head import PatchGrid

PLACE_FREQUENCIES = 6
LONGEST_WAVE = 100.0
"""Of rotations, in patches: grids are small, and slower waves would hardly turn over one."""

LIFTED = 16
"""Channels of a lifted pixel, and numbers of an embedded time."""

PUBLISHED_LONGEST_WAVE = 10_000.0


class RotaryNorm(RMSNorm):
    """Norms queries or keys, then turns pairs of their numbers by an angle that grows with row or column.

    The first half of the pairs turns with the row, the second with the column; tokens beyond the table are not turned.
    Products of queries and keys thereby depend on distances between patches.

    Args:
        width: numbers of a head; a multiple of 4.
        grid: patches.
        others: tokens without a place, after the patches.

    Raises:
        JobError: a width that cannot be split into pairs of both axes.
    """

    cosine: Tensor
    sine: Tensor

    def __init__(self, width: int, grid: PatchGrid, others: int) -> None:
        super().__init__(width)
        if width % 4:
            raise JobError(f"attention heads of {width} numbers in a patch model", allowed="a multiple of 4")
        waves = LONGEST_WAVE ** -(torch.arange(width // 4) / (width // 4))
        rows = torch.arange(grid.rows).repeat_interleave(grid.columns)
        columns = torch.arange(grid.columns).repeat(grid.rows)
        angles = torch.cat([rows[:, None] * waves, columns[:, None] * waves], dim=-1)
        angles = torch.cat([angles, torch.zeros(others, width // 2)])
        self.register_buffer("cosine", angles.cos(), persistent=False)
        self.register_buffer("sine", angles.sin(), persistent=False)

    def forward(self, value: Tensor) -> Tensor:
        """[batch, head, token, width] -> the same shape and dtype."""
        normed = super().forward(value)
        cosine, sine = (table[: value.shape[-2]].to(value.dtype) for table in (self.cosine, self.sine))
        first, second = normed.chunk(2, dim=-1)
        return torch.cat([first * cosine - second * sine, first * sine + second * cosine], dim=-1)


class PatchTrunk(nn.Module):
    """Patches of a noisy image as tokens, with the noise level in every block.

    A patch first becomes fewer numbers than a token has, which keeps noise out. Learned tokens (registers, and the
    head's static ones) join after the first third of the blocks, when patches have something to say to them.

    Args:
        grid: patches.
        channels: colours.
        size: width, depth, heads.
        classes: labels; 0 for none.
        registers: learned tokens of the trunk's own.
        static: tokens that the head adds.
    """

    places: Tensor

    def __init__(
        self, grid: PatchGrid, channels: int, size: TrunkSize, *, classes: int, registers: int, static: int
    ) -> None:
        super().__init__()
        self.grid, self.joining = grid, size.depth // 3
        numbers = channels * grid.patch**2
        self.squeeze = nn.Linear(numbers, bottleneck(numbers, size.width), bias=False)
        self.enter = nn.Linear(self.squeeze.out_features, size.width)
        y = (2 * torch.arange(grid.rows) + 1) / grid.rows - 1
        x = (2 * torch.arange(grid.columns) + 1) / grid.columns - 1
        points = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
        self.register_buffer("places", fourier_features(points, PLACE_FREQUENCIES), persistent=False)
        self.place_enter = nn.Linear(self.places.shape[1], size.width, bias=False)
        self.registers = nn.Parameter(torch.randn(registers, size.width) * 0.02)
        self.condition = ConditionEmbedding(size.width, 1, classes)
        self.modulation = Modulation(size.width, Block.PARTS)
        self.blocks = nn.ModuleList(_rotary_block(size, grid, registers + static) for _ in range(size.depth))
        self.last_norm = RMSNorm(size.width, scaled=False)
        self.last_modulation = Modulation(size.width, 2)

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None, static: Tensor | None) -> Tensor:
        """Runs all blocks.

        Args:
            noisy: [batch, channel, row, column], padded.
            time: float [batch].
            label: int64 [batch] or None.
            static: [static token, width] or None.

        Returns:
            [batch, token + static token, width]; registers are left behind.
        """
        tokens = self.enter(self.squeeze(self.grid.patches(noisy)))
        tokens = tokens + self.place_enter(self.places.to(self.place_enter.weight.dtype))
        condition = self.condition(time, label)
        modulation = self.modulation(condition)
        others = self.registers if static is None else torch.cat([static, self.registers])
        for number, block in enumerate(self.blocks):
            if number == self.joining:
                tokens = torch.cat([tokens, others.to(tokens.dtype).expand(tokens.shape[0], -1, -1)], dim=1)
            tokens = block(tokens, modulation)
        shift, scale = self.last_modulation(condition).chunk(2, dim=-1)
        tokens = tokens[:, : tokens.shape[1] - len(self.registers)]
        return modulate(self.last_norm(tokens), shift, scale)


def bottleneck(numbers: int, width: int) -> int:
    """Numbers that a patch becomes before it is a token: two thirds of its own (128 of 192), at most a token's."""
    return min(width, max(16, math.ceil(numbers * 2 / 3)))


def _rotary_block(size: TrunkSize, grid: PatchGrid, others: int) -> Block:
    block = Block(size)
    block.attention.query_norm = RotaryNorm(size.width // size.heads, grid, others)
    block.attention.key_norm = RotaryNorm(size.width // size.heads, grid, others)
    return block


def time_features_unscaled(time: Tensor) -> Tensor:
    """[batch] in [0, 1] -> float32 [batch, LIFTED]: sines, then cosines."""
    half = LIFTED // 2
    exponents = torch.arange(half, device=time.device, dtype=torch.float32) / (half - 1)
    angles = time.float().unsqueeze(-1) * PUBLISHED_LONGEST_WAVE**-exponents
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def published_axis_map(tokens: Tensor, positions: Tensor) -> Tensor:
    """The published map of one axis: halves are exchanged as if tables were halved, and the tables are interleaved.

    Args:
        tokens: [..., token, channel], an even number of channels.
        positions: float [token].

    Returns:
        As ``tokens``.
    """
    channels = tokens.shape[-1]
    exponents = torch.arange(channels // 2, device=tokens.device, dtype=torch.float32) / (channels // 2)
    angles = (positions.float()[:, None] * PUBLISHED_LONGEST_WAVE**-exponents).repeat_interleave(2, dim=-1)
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
        embedded = self.time(time_features_unscaled(time).to(self.time.weight.dtype))
        tokens = self.enter(self.lift(noisy) + embedded[:, :, None, None]).flatten(2).transpose(1, 2)
        rows = torch.arange(self.grid.rows, device=noisy.device).repeat_interleave(self.grid.columns)
        columns = torch.arange(self.grid.columns, device=noisy.device).repeat(self.grid.rows)
        by_row, by_column = tokens.chunk(2, dim=-1)
        tokens = torch.cat([published_axis_map(by_row, rows), published_axis_map(by_column, columns)], dim=-1)
        if static is not None:
            tokens = torch.cat([tokens, static.to(tokens.dtype).expand(tokens.shape[0], -1, -1)], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        return tokens
