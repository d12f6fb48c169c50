"""Diffusion models on the patches of an image: one trunk, and a head that says how tokens become pixels."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from data_schemas.errors import JobError
from models.base import DataSpec, Denoiser
from models.patch_grid import PatchGrid
from models.patch_head import HeadShape, PatchConfig
from models.patch_trunk import PatchTrunk
from models.patch_trunk_published import PublishedPatchTrunk


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
