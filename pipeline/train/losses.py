"""Losses beside the objective's: how different predicted pixels look, and renderings of predicted splats."""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path

import torch
from torch import Tensor

from data_schemas.errors import JobError
from data_schemas.files import cache_folder
from data_schemas.records import StoreHeader
from encoders.differentiable.splats import render_differentiable
from models.diffusion.objectives import RenderLoss
from models.features.pixels import PixelRepresentation
from models.features.splats import SplatRepresentation
from models.image_losses import BACKBONE_FILE, SMALLEST_SIDE, Lpips, gradient_loss, wave_loss
from pipeline.sources.download import RemoteFile, fetch
from pipeline.train.job import PerceptualName

logger = logging.getLogger("splatspace.train")


VGG16 = RemoteFile(
    f"lpips/{BACKBONE_FILE}",
    (f"https://download.pytorch.org/models/{BACKBONE_FILE}",),
    "sha256:397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0",
    most_bytes=600 << 20,
    option="--lpips-weights",
)
"""Of torchvision; 528 MiB, of which LPIPS reads the convolutions."""

ImageDistance = Callable[[Tensor, Tensor], Tensor]
"""(image, target), [image, channel, row, column] in [-1, 1] -> [image]."""


def distance_named(name: PerceptualName, weights: Path | None, size: tuple[int, int, int]) -> ImageDistance | None:
    """How images are compared.

    Args:
        name: ``lpips`` downloads its weights where they are not there yet, ``lpips-if-there`` is none then, which the
            log says.
        weights: for LPIPS: file of VGG16's weights, or folder that holds ``vgg16-397923af.pth``; None: the cache. What
            is named is never downloaded.
        size: (channels, height, width) of the images.

    Returns:
        None where nothing is compared.

    Raises:
        JobError: LPIPS of images that it cannot see.
        CheckpointError: weights that were named but are not there, or are of another network.
        DownloadError: weights that could not be downloaded.
    """
    if name == "none":
        return None
    if name == "gradient":
        return gradient_loss
    if name == "dct":
        return wave_loss
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
    named = cache_folder() / VGG16.name if weights is None else weights
    backbone = named / BACKBONE_FILE if named.is_dir() else named
    if name == "lpips-if-there" and not backbone.is_file():
        logger.warning(
            "LPIPS is off: there is no %s (--perceptual lpips downloads it, --lpips-weights names it)", backbone
        )
        return None
    if name == "lpips" and weights is None:
        if not backbone.is_file():
            logger.warning("VGG16 is downloaded for LPIPS, 528 MiB, once, to %s", backbone)
        backbone = fetch(VGG16)
    return Lpips.of_files(backbone, linear_weights())


def linear_weights() -> Path:
    """The linear layers of LPIPS 0.1 on VGG16, which come with torchmetrics."""
    return Path(str(files("torchmetrics") / "functional" / "image" / "lpips_models" / "vgg.pth"))


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


def render_loss(representation: SplatRepresentation, header: StoreHeader, target: Tensor, weight: float) -> RenderLoss:
    """Weighted mean absolute error of rendered predictions; its gradient reaches the network.

    Args:
        representation: on the device of the predictions.
        header: of the store, for codec and size.
        target: float32 [image, y, x, channel] in [0, 1], the source images of the batch.
        weight: factor.
    """

    def loss(clean: Tensor, rows: Tensor) -> Tensor:
        splats = representation.decode(clean, clamp=False)
        # What is not finite is no image: its loss is no number either, and the loop names the rows.
        finite = torch.isfinite(splats).flatten(1).all(dim=1)
        drawable = torch.where(finite[:, None, None], splats, 0.0)
        # Not clipped: beyond white and black there would be no gradient.
        image = render_differentiable(
            drawable, representation.layout, header.codec, header.height, header.width, clip=False
        )
        error = (image - target[rows]).abs().flatten(1).mean(dim=1)
        return torch.where(finite, weight * error, torch.nan)

    return loss
