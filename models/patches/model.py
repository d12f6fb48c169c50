"""Diffusion models on the patches of an image: one trunk, and a head that says how tokens become pixels.

The heads of the patch models by name, as published and improved, in every size.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, get_args

from torch import Tensor

from data_schemas.errors import JobError
from models.base import DataSpec, Denoiser
from models.names import HeadName, RecipeName
from models.networks.trunk import TrunkSize
from models.patches.head import HeadShape, PatchConfig, PatchGrid
from models.patches.kpn import KpnConfig
from models.patches.lut import LutConfig
from models.patches.outer import OuterConfig
from models.patches.splats import SplatHeadConfig
from models.patches.trunk import PatchTrunk, PublishedPatchTrunk

HEADS: tuple[HeadName, ...] = get_args(HeadName)

RECIPES: tuple[RecipeName, ...] = get_args(RecipeName)

_PUBLISHED_SIZES = {
    "tiny": TrunkSize(width=64, depth=2, heads=2),
    "small": TrunkSize(width=256, depth=6, heads=4),
    "medium": TrunkSize(width=384, depth=12, heads=6),
    "full": TrunkSize(width=512, depth=16, heads=8),
}
_MODERN_SIZES = {
    # Three matrices of 3/4 of the width, gated and brought back, cost about what two of the full width do.
    name: replace(size, hidden=size.width * 3 // 4)
    for name, size in _PUBLISHED_SIZES.items()
}


class PatchModel(Denoiser):
    """A trunk over patches with a head.

    Args:
        spec: images.
        config: of one of the heads.

    Attributes:
        grid: patches.
        head: of ``config``.

    Raises:
        JobError: sizes that do not fit each other, or labels for the published trunk.
    """

    published: ClassVar[bool] = False

    def __init__(self, spec: DataSpec, config: PatchConfig) -> None:
        super().__init__(spec)
        self.grid = PatchGrid.of(spec, config.patch)
        self.head = config.build_head(HeadShape(self.grid, config.size.width, spec.channels, self.published))
        self.trunk = self._trunk(spec, config)

    def _trunk(self, spec: DataSpec, config: PatchConfig) -> PatchTrunk | PublishedPatchTrunk:
        static = 0 if self.head.static is None else len(self.head.static)
        return PatchTrunk(
            self.grid, spec.channels, config.size, classes=spec.classes, registers=config.registers, static=static
        )

    def tokens(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """What the trunk says of a batch.

        Args:
            noisy: [batch, channel, row, column], padded to whole patches.
            time: float [batch].
            label: int64 [batch] or None.

        Returns:
            [batch, token, width] of the patches, and of the head's static tokens.
        """
        leaving = self.trunk(noisy, time, label, self.head.static)
        return leaving[:, : self.grid.tokens], leaving[:, self.grid.tokens :]

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        """See :meth:`models.base.Denoiser.forward`; ``time`` is [batch]."""
        padded = self.grid.padded(noisy)
        tokens, static = self.tokens(padded, time, label)
        return self.grid.cropped(self.head(tokens, static, padded, time)).to(noisy.dtype)

    def penalty(self) -> Tensor | None:
        """See :meth:`models.base.Denoiser.penalty`: the head's."""
        return self.head.penalty()


class PublishedPatchModel(PatchModel):
    """The published trunk with the published heads; it takes no labels and has no registers."""

    published: ClassVar[bool] = True
    takes_labels: ClassVar[bool] = False

    def _trunk(self, spec: DataSpec, config: PatchConfig) -> PublishedPatchTrunk:
        if config.registers or config.size.hidden:
            raise JobError(
                f"{config.registers} registers and {config.size.hidden} hidden numbers in a published patch model",
                allowed="0 of both",
                next_step="leave them out, or choose the recipe modern",
            )
        return PublishedPatchTrunk(self.grid, spec.channels, config.size)


def _families() -> dict[tuple[HeadName, RecipeName], Mapping[str, PatchConfig]]:
    published, modern = _PUBLISHED_SIZES.items(), _MODERN_SIZES.items()
    return {
        ("kpn", "published"): {name: KpnConfig(size) for name, size in published},
        ("kpn", "modern"): {name: KpnConfig(size, registers=4) for name, size in modern},
        ("lut", "published"): {name: LutConfig(size, entries=512, activation="softmax") for name, size in published},
        ("lut", "modern"): {name: LutConfig(size, registers=4, gram=0.2) for name, size in modern},
        ("outer", "published"): {name: OuterConfig(size) for name, size in published},
        ("outer", "modern"): {name: OuterConfig(size, registers=4) for name, size in modern},
        ("splats", "published"): {
            name: SplatHeadConfig(size, kernel="cosine", neighbourhood="patch") for name, size in published
        },
        ("splats", "modern"): {name: SplatHeadConfig(size, registers=4) for name, size in modern},
    }


FAMILIES = _families()
"""The sizes of each head with each trunk; ``models.descriptions`` says what they are."""
