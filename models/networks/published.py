"""The network of the published system, its defects included: the baseline that every table compares with.

Re-implemented from a description of its structure. With 8 blocks, a width of 512, K = 150 and 8 features it has
51,486,472 parameters and takes 15.79 GFLOP per step. What is known for a fact are the roundings 51.49 M (8 blocks),
38.88 M (6), 76.7 M (12) and 101.9 M (16): the breakdown below meets all of them, and whether the two 1x1 shortcuts
carry a bias (520 numbers here) cannot be told from them.

Kept as they are:

* norms after the sums, and the attention's output normed with its input, then summed with it once more;
* projections of five layers with batch norm over images and Gaussians: an answer depends on its batch in training;
* four of the outgoing five layers no wider than the data, and a GELU on the last: it cannot go far below zero
  except through the shortcut;
* the time embedded by sines of one layer (SIREN) and added to the data once, to eight numbers; no block sees it;
* no labels.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.base import DataSpec, Denoiser

PROJECTION_LAYERS = 5
TIME_WIDTH = 32


@dataclass(frozen=True)
class PublishedConfig:
    """Size of the published network.

    Attributes:
        width: length of a token.
        depth: blocks.
        heads: attention heads.
    """

    width: int
    depth: int
    heads: int = 8


class TimeSiren(nn.Module):
    """One number through sines and three linear layers to as many numbers as a Gaussian has.

    Args:
        features: numbers that come out.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.enter = nn.Linear(1, TIME_WIDTH, bias=False)
        self.middle = nn.Linear(TIME_WIDTH, TIME_WIDTH)
        self.deeper = nn.Linear(TIME_WIDTH, TIME_WIDTH)
        self.deepest = nn.Linear(TIME_WIDTH, TIME_WIDTH)
        self.leave = nn.Linear(TIME_WIDTH, features)

    def forward(self, time: Tensor) -> Tensor:
        """[...] -> [..., features]."""
        value = torch.sin(self.enter(time.unsqueeze(-1)))
        value = functional.gelu(self.middle(value))
        value = functional.gelu(self.deeper(value))
        return self.leave(self.deepest(value))


class Projection(nn.Module):
    """Five times linear, batch norm over images and Gaussians, GELU; and a 1x1 convolution around all of them.

    Args:
        enter: numbers per token that come in.
        leave: numbers per token that go out, from the first layer on.
    """

    def __init__(self, enter: int, leave: int) -> None:
        super().__init__()
        widths = [enter] + [leave] * PROJECTION_LAYERS
        self.layers = nn.ModuleList(nn.Linear(before, after) for before, after in itertools.pairwise(widths))
        self.norms = nn.ModuleList(nn.BatchNorm1d(leave) for _ in range(PROJECTION_LAYERS))
        self.shortcut = nn.Conv1d(enter, leave, kernel_size=1)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, token, enter] -> [batch, token, leave]."""
        value = tokens
        for layer, norm in zip(self.layers, self.norms, strict=True):
            value = functional.gelu(norm(layer(value).transpose(1, 2)).transpose(1, 2))
        return value + self.shortcut(tokens.transpose(1, 2)).transpose(1, 2)


class PublishedBlock(nn.Module):
    """Attention and a four-layer net, each normed after its sum.

    Args:
        width: length of a token.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.inner_norm = nn.LayerNorm(width)
        self.attention_norm = nn.LayerNorm(width)
        self.feed = nn.Sequential(
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, 4 * width),
            nn.GELU(),
            nn.Linear(4 * width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )
        self.feed_norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """[batch, token, width] -> the same shape."""
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        tokens = self.attention_norm(tokens + self.inner_norm(tokens + attended))
        return self.feed_norm(tokens + self.feed(tokens))


class PublishedTransformer(Denoiser):
    """The published network.

    Args:
        spec: splats without labels; K is not used, any number of Gaussians passes.
        config: the size.

    Raises:
        JobError: data with classes; the published network takes none.
    """

    takes_labels: ClassVar[bool] = False

    def __init__(self, spec: DataSpec, config: PublishedConfig) -> None:
        super().__init__(spec)
        self.time = TimeSiren(spec.features)
        self.enter = Projection(spec.features, config.width)
        self.blocks = nn.ModuleList(PublishedBlock(config.width, config.heads) for _ in range(config.depth))
        self.leave = Projection(config.width, spec.features)

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """See :meth:`models.base.Denoiser.forward`; ``label`` must be None or all "no label" (0).

        Its own time runs from 0 (clean) to 1 (noise). Of times [batch, gaussian, group] every Gaussian gets the mean
        of its groups.
        """
        noise_time = 1 - (time[:, None] if time.ndim == 1 else time.mean(dim=-1))
        tokens = self.enter(noisy + self.time(noise_time.to(noisy.dtype)).to(noisy.dtype))
        for block in self.blocks:
            tokens = block(tokens)
        return self.leave(tokens).to(noisy.dtype)
