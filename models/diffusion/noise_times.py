"""Which time each part of a training image gets.

Half of the images share one time over all their numbers. The others teach what editing asks for: a time of its own for
every Gaussian and group (ComboStoc, arXiv:2405.13729), or a part that is given clean: all geometry, all colours, or
everything outside a box. A network so trained completes, recolours and inpaints without being trained again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.diffusion.schedules import DiscretePath, Path

BOX_REACH = 1.2
"""Boxes to be filled in have corners in +-this, so that some reach beyond the image's edge."""


@dataclass(frozen=True)
class TimeDraw:
    """Draws training times.

    Attributes:
        path: a ``DiscretePath`` gets uniform steps, another path logit-normal or uniform times.
        mean: of the normal before the logistic function.
        deviation: of the normal before the logistic function.
        group_share: share of images whose parts do not share one time; 0 gives one time per image.
        groups: G.
        anchors: [gaussian, 2], from which the Gaussians outside a box are known; None chooses them at random.
        uniform: uniform times in [0, 1) instead of logit-normal ones.
    """

    path: Path
    mean: float
    deviation: float
    group_share: float
    groups: int
    anchors: Tensor | None = None
    uniform: bool = False

    def __call__(self, images: int, gaussians: int | None, generator: torch.Generator) -> Tensor:
        """Times of a batch.

        Args:
            images: size of the batch.
            gaussians: K; None for data without Gaussians, which always share one time.
            generator: the only source of chance; the times are on its device.

        Returns:
            float32 [image], or [image, gaussian, group] where parts may differ; exactly 1 where a part is given.
        """
        if gaussians is None or self.group_share <= 0:
            return self._times((images,), generator)
        shape = (images, gaussians, self.groups)
        shared = self._times((images, 1, 1), generator).expand(shape)
        independent = self._times(shape, generator)
        kept = self._kept(shape, generator)
        # An image of which everything is given would teach nothing.
        kept &= ~kept.flatten(1).all(dim=1)[:, None, None]
        kind = _uniform((images, 1, 1), generator)
        times = torch.where(kind < self.group_share / 2, independent, shared)
        given = kept & (kind >= self.group_share / 2) & (kind < self.group_share)
        return torch.where(given, torch.ones_like(times), times)

    def _times(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        if isinstance(self.path, DiscretePath):
            steps = torch.randint(1, self.path.steps + 1, shape, generator=generator, device=generator.device)
            return 1 - steps.float() / self.path.steps
        if self.uniform:
            return _uniform(shape, generator)
        normal = torch.randn(shape, generator=generator, device=generator.device)
        return torch.sigmoid(self.mean + self.deviation * normal)

    def _kept(self, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
        """One of: a whole group, or all groups of the Gaussians outside a box."""
        images, gaussians, groups = shape
        choice = torch.randint(0, groups + 1, (images, 1, 1), generator=generator, device=generator.device)
        whole = torch.arange(groups, device=generator.device) == choice
        if self.anchors is None:
            rate = _uniform((images, 1), generator)
            outside = _uniform((images, gaussians), generator) < rate
        else:
            corners = (2 * _uniform((images, 2, 2), generator) - 1) * BOX_REACH
            low, high = corners.amin(dim=1)[:, None], corners.amax(dim=1)[:, None]
            points = self.anchors.to(generator.device)[None]
            outside = ((points < low) | (points > high)).any(dim=-1)
        return torch.where(choice == groups, outside[..., None], whole).expand(shape).clone()


def _uniform(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device)
