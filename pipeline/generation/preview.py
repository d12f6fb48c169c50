"""A grid of samples of a network in training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from data_schemas.records import StoreHeader
from encoders.decode import decode, to_uint8
from models.base import Denoiser
from models.objectives import Objective
from models.pixel_representation import PixelRepresentation
from models.representation import SplatRepresentation
from models.samplers import generators_for, sample
from pipeline.generation.grids import grid_of
from pipeline.generation.train_state import SAMPLES_FOLDER
from pipeline.render_store import save_png

IMAGES = 36
MOST_EVALUATIONS = 50
"""A preview of the published recipe would otherwise cost 200 evaluations each time."""


def sampled_images(
    model: Denoiser,
    objective: Objective,
    representation: SplatRepresentation | PixelRepresentation,
    header: StoreHeader,
    *,
    count: int = IMAGES,
    seed: int = 0,
) -> NDArray[np.uint8]:
    """Samples and decodes; with labels, the classes follow one another.

    Args:
        model: on any device.
        objective: that it is trained with.
        representation: on the CPU.
        header: of the store, for the codec and the size.
        count: images.
        seed: of the noise, the same in each preview.

    Returns:
        uint8 [image, y, x, channel].

    Raises:
        SamplingError: a sample is not finite.
    """
    classes = objective.classes
    features = sample(
        objective,
        model,
        (count, *representation.shape),
        generators=generators_for(seed, count),
        evaluations=min(MOST_EVALUATIONS, objective.settings.evaluations),
        sampler=objective.settings.sampler,
        label=torch.arange(count) % classes if classes else None,
    )
    stored = representation.decode(features.cpu()).numpy()
    if isinstance(representation, SplatRepresentation):
        stored = decode(
            stored,
            layout=representation.layout,
            codec=header.codec,
            height=header.height,
            width=header.width,
            workers=1,
        )
    return to_uint8(stored)


def save_preview(run: Path, step: int, images: NDArray[np.uint8]) -> Image.Image:
    """Writes ``samples/STEP.png`` and returns the picture.

    Raises:
        StoreError: the folder cannot be written.
    """
    picture, _ = grid_of(images)
    save_png(picture, run / SAMPLES_FOLDER / f"{step:07d}.png")
    return picture
