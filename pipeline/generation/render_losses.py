"""The loss in image space: predicted splats, rendered differentiably, against the source image."""

from __future__ import annotations

from torch import Tensor

from data_schemas.records import StoreHeader
from encoders.render import render
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
        # Not clipped: beyond white and black there would be no gradient.
        image = render(splats, representation.layout, header.codec, header.height, header.width, clip=False)
        return weight * (image - target[rows]).abs().flatten(1).mean(dim=1)

    return loss
