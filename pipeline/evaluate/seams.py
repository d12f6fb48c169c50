"""Whether the borders between patches can be seen in what a patch model draws."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from models.diffusion.samplers import generators_for, sample
from models.patches.model import PatchModel
from pipeline.evaluate.figures import SeamFigures
from pipeline.sample.anatomy import Watch, draw_splats, splat_head, splats_of
from pipeline.sample.draws import Settings
from pipeline.sample.run import Run

ENLARGED = 4
MOST_ENLARGED = 32
"""Images that are drawn larger."""


def seam_ratio(images: NDArray[np.uint8], patch: float) -> float | None:
    """Mean step between pixels on both sides of a border between patches, over the mean step inside of patches.

    Args:
        images: uint8 [image, row, column, channel].
        patch: pixels of a side; 1 or more.

    Returns:
        About 1 where no border can be seen; None where there is no border, or nothing inside it that changes.
    """
    border, inside = [], []
    for axis in (1, 2):
        steps = np.abs(np.diff(images.astype(np.float64), axis=axis)).mean(axis=(0, 3 - axis, 3))
        place = np.arange(1, images.shape[axis])
        at_border = np.floor(place / patch) != np.floor((place - 1) / patch)
        border.append(steps[at_border])
        inside.append(steps[~at_border])
    between, within = np.concatenate(border), np.concatenate(inside)
    if not len(between) or not len(within) or within.mean() == 0:
        return None
    return float(between.mean() / within.mean())


def seam_figures(
    run: Run, settings: Settings, labels: NDArray[np.int64] | None, drawn_images: torch.Tensor, real: torch.Tensor
) -> SeamFigures | None:
    """Seam ratios of a patch model; None for other generators.

    Args:
        run: the generator.
        settings: how images were drawn.
        labels: int64 [image] or None.
        drawn_images: uint8 [image, channel, row, column], generated.
        real: the same of originals.
    """
    model = run.model
    if not isinstance(model, PatchModel):
        return None
    side = model.grid.patch
    last = (arrays.permute(0, 2, 3, 1).cpu().numpy() for arrays in (drawn_images, real))
    generated, originals = (seam_ratio(images, side) for images in last)
    enlarged = None
    if splat_head(run) is not None:
        count = min(MOST_ENLARGED, len(drawn_images))
        wanted = np.full(count, -1, np.int64) if labels is None else labels[:count]
        watch = Watch(wanted, count=count)
        sample(
            run.objective,
            model,
            (count, *run.representation.shape),
            generators=generators_for(settings.seed, count),
            evaluations=settings.evaluations,
            sampler=settings.sampler,
            label=None if labels is None else torch.from_numpy(wanted),
            guidance=settings.guidance,
            trajectory=watch,
        )
        splats = splats_of(run, watch.last(slice(0, count)))
        large = draw_splats(run, splats, ENLARGED * run.spec.height, ENLARGED * run.spec.width)
        enlarged = seam_ratio(large, ENLARGED * side)
    return SeamFigures(patch=side, generated=generated, originals=originals, enlarged=enlarged)
