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


def tiled(images: NDArray[np.uint8], *, gap: int = 2, smallest: int = 64) -> Image.Image:
    """Images in a grid as square as their number allows, each enlarged by a whole factor to ``smallest`` pixels.

    Args:
        images: uint8 [image, y, x, channel], 1 or 3 channels.
        gap: pixels between them.
        smallest: pixels of a side below which images are enlarged.
    """
    factor = max(1, smallest // max(images.shape[1:3]))
    big = images.repeat(factor, axis=1).repeat(factor, axis=2)
    count, height, width, channels = big.shape
    columns = int(np.ceil(np.sqrt(count)))
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), 32, np.uint8)
    for index, image in enumerate(big):
        top, left = gap + index // columns * (height + gap), gap + index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return Image.fromarray(canvas[..., 0] if channels == 1 else canvas)


def save_preview(run: Path, step: int, images: NDArray[np.uint8]) -> Image.Image:
    """Writes ``samples/STEP.png`` and returns the picture.

    Raises:
        StoreError: the folder cannot be written.
    """
    picture = tiled(images)
    save_png(picture, run / SAMPLES_FOLDER / f"{step:07d}.png")
    return picture
