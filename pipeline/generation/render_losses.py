"""The loss in image space: predicted splats, rendered differentiably, against the source image."""

from __future__ import annotations

import torch
from torch import Tensor

from data_schemas.records import StoreHeader
from encoders.differentiable_render import render_differentiable
from models.objectives import RenderLoss
from models.representation import SplatRepresentation


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
        # What is not finite is no picture: its loss is no number either, and the loop names the rows.
        finite = torch.isfinite(splats).flatten(1).all(dim=1)
        drawable = torch.where(finite[:, None, None], splats, 0.0)
        # Not clipped: beyond white and black there would be no gradient.
        image = render_differentiable(
            drawable, representation.layout, header.codec, header.height, header.width, clip=False
        )
        error = (image - target[rows]).abs().flatten(1).mean(dim=1)
        return torch.where(finite, weight * error, torch.nan)

    return loss
