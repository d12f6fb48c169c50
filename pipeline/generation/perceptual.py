"""The loss of pixel models that says how different predictions look."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import torch
from torch import Tensor

from data_schemas.errors import JobError
from models.image_losses import gradient_loss, wave_loss
from models.lpips import BACKBONE_FILE, LINEAR_FILE, SMALLEST_SIDE, Lpips
from models.objectives import RenderLoss
from models.pixel_representation import PixelRepresentation
from pipeline.download import cache_folder

logger = logging.getLogger("splatspace.train")

PerceptualName = Literal["none", "gradient", "dct", "lpips", "lpips-if-there"]
PERCEPTUAL: tuple[PerceptualName, ...] = get_args(PerceptualName)

ImageDistance = Callable[[Tensor, Tensor], Tensor]
"""(image, target), [image, channel, row, column] in [-1, 1] -> [image]."""


def distance_named(name: PerceptualName, weights: Path | None, size: tuple[int, int, int]) -> ImageDistance | None:
    """How images are compared.

    Args:
        name: ``lpips-if-there`` is LPIPS where its weights are found, else none, which the log says.
        weights: folder with the weights of LPIPS; None: ``lpips`` in the cache.
        size: (channels, height, width) of the images.

    Returns:
        None where nothing is compared.

    Raises:
        JobError: LPIPS of images that it cannot see.
        CheckpointError: weights that are missing, or of another network.
    """
    if name == "none":
        return None
    if name == "gradient":
        return gradient_loss
    if name == "dct":
        return wave_loss
    folder = weights or cache_folder() / "lpips"
    if name == "lpips-if-there" and not all((folder / file).is_file() for file in (BACKBONE_FILE, LINEAR_FILE)):
        logger.warning(
            "LPIPS is off: %s does not hold %s and %s (give their folder with --lpips-weights)",
            folder,
            BACKBONE_FILE,
            LINEAR_FILE,
        )
        return None
    channels, height, width = size
    if channels != 3 or min(height, width) < SMALLEST_SIDE:
        if name == "lpips-if-there":
            logger.warning("LPIPS is off: it compares images in colour of %d pixels a side or more", SMALLEST_SIDE)
            return None
        raise JobError(
            f"LPIPS of images of {channels}x{height}x{width}",
            allowed=f"3 colours, {SMALLEST_SIDE} pixels a side or more",
            next_step="give --perceptual gradient",
        )
    return Lpips.of_folder(folder)


def image_loss(
    representation: PixelRepresentation, clean: Tensor, distance: ImageDistance, weight: float
) -> RenderLoss:
    """Weighted distance of predicted images from clean ones; its gradient reaches the network.

    Args:
        representation: on the device of the predictions.
        clean: features of the batch.
        distance: of images.
        weight: factor.
    """

    def loss(predicted: Tensor, rows: Tensor) -> Tensor:
        # Not clipped: beyond white and black there would be no gradient.
        images = [
            2 * representation.decode(features, clamp=False).permute(0, 3, 1, 2) - 1
            for features in (predicted, clean[rows])
        ]
        return weight * distance(*images)

    return loss


def on_device(distance: ImageDistance | None, device: torch.device) -> ImageDistance | None:
    """Moves the network of a distance, where it has one."""
    return distance.to(device) if isinstance(distance, Lpips) else distance
