"""A diffusion transformer over pixels, sized to cost what SplatDiT costs: the same trunk, patches instead of splats."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.base import DataSpec, Denoiser
from models.networks.layers import ConditionEmbedding, fourier_features
from models.networks.trunk import MOST_TOKENS, Trunk, TrunkSize, default_pack

PLACE_FREQUENCIES = 6


@dataclass(frozen=True)
class PixelDiTConfig:
    """Size of a pixel transformer.

    Attributes:
        size: the transformer.
        patch: side of a patch in pixels; 0: the one whose number of tokens is nearest to that of a SplatDiT for
            the K of the data (or to 50 where it names none).
    """

    size: TrunkSize
    patch: int = 0


def tokens_of_patch(spec: DataSpec, patch: int) -> int:
    """Patches of side ``patch`` that cover the image, the last ones hanging over its edge."""
    return math.ceil(spec.height / patch) * math.ceil(spec.width / patch)


def default_patch(spec: DataSpec) -> int:
    """The side of a patch that makes about as many tokens as a SplatDiT has; of two equally near, the larger."""
    wanted = math.ceil(spec.gaussians / default_pack(spec.gaussians)) if spec.gaussians else MOST_TOKENS
    sides = range(1, max(spec.height, spec.width) + 1)
    return min(sides, key=lambda side: (abs(tokens_of_patch(spec, side) - wanted), -side))


class PixelDiT(Denoiser):
    """A transformer over square patches of the image; a size that patches do not divide is padded with zeros.

    Args:
        spec: images.
        config: the size.

    Raises:
        JobError: a patch larger than the image.
    """

    def __init__(self, spec: DataSpec, config: PixelDiTConfig) -> None:
        super().__init__(spec)
        self.patch = config.patch or default_patch(spec)
        if not 1 <= self.patch <= max(spec.height, spec.width):
            raise JobError(
                f"patches of {self.patch} pixels on an image of {spec.height}x{spec.width}",
                allowed=f"1 to {max(spec.height, spec.width)}",
            )
        self.rows = math.ceil(spec.height / self.patch)
        self.columns = math.ceil(spec.width / self.patch)
        width, numbers = config.size.width, spec.channels * self.patch**2
        self.enter = nn.Linear(numbers, width, bias=False)
        self.slot = nn.Parameter(torch.randn(self.rows * self.columns, width) * 0.02)
        y = (2 * torch.arange(self.rows, device=self.slot.device) + 1) / self.rows - 1
        x = (2 * torch.arange(self.columns, device=self.slot.device) + 1) / self.columns - 1
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).flatten(0, 1)
        self.place_features: Tensor
        self.register_buffer("place_features", fourier_features(places, PLACE_FREQUENCIES), persistent=False)
        self.place_enter = nn.Linear(self.place_features.shape[1], width, bias=False)
        self.condition = ConditionEmbedding(width, 1, spec.classes)
        self.trunk = Trunk(config.size, numbers)

    def tokens(self, noisy: Tensor) -> Tensor:
        """Patches of an image with their places: [batch, channel, row, column] -> [batch, token, width]."""
        height, width = noisy.shape[-2:]
        over = (0, self.columns * self.patch - width, 0, self.rows * self.patch - height)
        patches = functional.pad(noisy, over).unflatten(-2, (self.rows, -1)).unflatten(-1, (self.columns, -1))
        # [batch, channel, row, inner row, column, inner column] -> [batch, token, number]
        tokens = self.enter(patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2))
        return tokens + self.slot + self.place_enter(self.place_features.to(self.slot.dtype))

    def picture(self, leaving: Tensor, height: int, width: int) -> Tensor:
        """Pixels of all patches as an image: [batch, token, number] -> [batch, channel, row, column]."""
        grid = leaving.unflatten(-1, (self.spec.channels, self.patch, self.patch)).unflatten(1, (self.rows, -1))
        return grid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)[..., :height, :width]

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """See :meth:`models.base.Denoiser.forward`; ``time`` is [batch]."""
        leaving = self.trunk(self.tokens(noisy), self.condition(time, label))
        return self.picture(leaving, *noisy.shape[-2:]).to(noisy.dtype)
