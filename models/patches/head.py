"""What every head of a patch model is: it turns the trunk's tokens, and perhaps the noisy image, into a clean one.

Square patches of an image: how many there are, what hangs over the edge, and the way there and back.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from data_schemas.errors import JobError
from models.base import DataSpec
from models.networks.trunk import TrunkSize

SMALLEST_PATCH = 4
"""Pixels of a side that are chosen without being asked for: smaller patches hold little, and cost a token each."""


@dataclass(frozen=True)
class PatchGrid:
    """Patches that cover an image, the last ones hanging over its edge.

    Attributes:
        patch: pixels of a side.
        rows: patches from top to bottom.
        columns: patches from left to right.
        height: rows of the image in pixels.
        width: columns of the image in pixels.
    """

    patch: int
    rows: int
    columns: int
    height: int
    width: int

    @classmethod
    def of(cls, spec: DataSpec, patch: int = 0) -> PatchGrid:
        """The grid for images.

        Args:
            spec: images.
            patch: pixels of a side; 0: the power of two that makes about 8 patches along the longer side.

        Raises:
            JobError: patches larger than the image.
        """
        longer = max(spec.height, spec.width)
        side = patch or min(longer, max(SMALLEST_PATCH, 2 ** round(math.log2(longer / 8))))
        if not 1 <= side <= longer:
            raise JobError(
                f"patches of {side} pixels on an image of {spec.height}x{spec.width}", allowed=f"1 to {longer}"
            )
        return cls(side, math.ceil(spec.height / side), math.ceil(spec.width / side), spec.height, spec.width)

    @property
    def tokens(self) -> int:
        """Patches of an image."""
        return self.rows * self.columns

    def padded(self, image: Tensor) -> Tensor:
        """[batch, channel, row, column] -> the same with zeros up to whole patches."""
        over = self.columns * self.patch - self.width, self.rows * self.patch - self.height
        return functional.pad(image, (0, over[0], 0, over[1])) if any(over) else image

    def cropped(self, image: Tensor) -> Tensor:
        """What :meth:`padded` added is taken off again."""
        return image[..., : self.height, : self.width]

    def patches(self, image: Tensor) -> Tensor:
        """Padded [batch, channel, row, column] -> [batch, token, channel * patch * patch]."""
        cut = image.unflatten(-2, (self.rows, -1)).unflatten(-1, (self.columns, -1))
        # [batch, channel, row, inner row, column, inner column] -> [batch, token, number]
        return cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)

    def joined(self, patches: Tensor) -> Tensor:
        """The way back: [batch, token, channel * patch * patch] -> padded [batch, channel, row, column]."""
        grid = patches.unflatten(-1, (-1, self.patch, self.patch)).unflatten(1, (self.rows, self.columns))
        return grid.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)

    def as_map(self, tokens: Tensor) -> Tensor:
        """[batch, token, number] -> [batch, number, row, column] of patches."""
        return tokens.transpose(1, 2).unflatten(-1, (self.rows, self.columns))


@dataclass(frozen=True)
class HeadShape:
    """What a head is built for.

    Attributes:
        grid: patches of the image.
        width: length of a token.
        channels: colours of the image.
        published: the head as published, its defects included, or the one that replaces it.
    """

    grid: PatchGrid
    width: int
    channels: int
    published: bool


@dataclass(frozen=True)
class PatchConfig(ABC):
    """Size of a patch model; each head adds its own fields.

    Attributes:
        size: the transformer.
        patch: pixels of a patch's side; 0: by the size of the image (8 for 64x64, 4 for 32x32).
        registers: learned tokens beside the patches; not in the published trunk.
    """

    size: TrunkSize
    patch: int = 0
    registers: int = 0

    @abstractmethod
    def build_head(self, shape: HeadShape) -> PatchHead:
        """The head that this configuration describes."""


class PatchHead(nn.Module, ABC):
    """A head.

    Attributes:
        static: learned tokens [token, width] that pass through the trunk beside the patches; None for none.
    """

    static: nn.Parameter | None

    def __init__(self) -> None:
        super().__init__()
        self.static = None

    @abstractmethod
    def forward(self, tokens: Tensor, static: Tensor, noisy: Tensor, time: Tensor) -> Tensor:
        """Predicts the clean image.

        Args:
            tokens: [batch, token, width], one per patch, as they leave the trunk.
            static: [batch, static token, width], as they leave the trunk.
            noisy: [batch, channel, row, column], padded to whole patches.
            time: float [batch].

        Returns:
            As ``noisy``, float32.
        """

    def penalty(self) -> Tensor | None:
        """What is added to the loss of every step whatever the images; None for nothing."""
        return None


def full_precision(value: Tensor) -> AbstractContextManager[object]:
    """A context in which products are not rounded to bfloat16, on the device of ``value``."""
    # The meta device, on which costs are counted, knows no autocast.
    return nullcontext() if value.device.type == "meta" else torch.autocast(value.device.type, enabled=False)
