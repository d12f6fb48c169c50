"""What every head of a patch model is: it turns the trunk's tokens, and perhaps the noisy image, into a clean one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.patch_grid import PatchGrid
from models.trunk import TrunkSize


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
