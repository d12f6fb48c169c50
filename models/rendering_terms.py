"""What a generator that answers with Gaussians is trained on beside its prediction: its rendering, and its Gaussians.

The prediction is rendering and residual together, so without more the residual could say everything. The first term
asks the rendering alone for the clean image. The second is taken of images that the network is shown clean, where it
works as an encoder: there it should answer with the Gaussians that the fitter found, slot by slot, so that they are as
well placed as those.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from models.slot_numbers import SlotNumbers

NEAR = 0.3
"""Differences up to this count by their square, larger ones by their size: half of a fit's numbers are its noise."""


def rendering_error(rendering: Tensor, clean: Tensor) -> Tensor:
    """Mean squared error of renderings.

    Args:
        rendering: [image, channel, row, column].
        clean: the same shape.

    Returns:
        float32 [image].
    """
    return (rendering.float() - clean.float()).square().flatten(1).mean(dim=1)


def splat_distance(splats: Tensor, wanted: Tensor, slots: SlotNumbers) -> Tensor:
    """How far Gaussians are from others of the same slots.

    Args:
        splats: [image, gaussian, parameter].
        wanted: the same shape.
        slots: the spreads of the slots, which are the units.

    Returns:
        float32 [image]: the mean of the smooth absolute differences (``torch.nn.functional.smooth_l1_loss``) of
        their numbers.
    """
    differences = slots.numbers(splats) - slots.numbers(wanted)
    zero = torch.zeros_like(differences)
    return functional.smooth_l1_loss(differences, zero, beta=NEAR, reduction="none").flatten(1).mean(dim=1)
