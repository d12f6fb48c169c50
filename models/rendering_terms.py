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

from data_schemas.splats import Layout

SMALLEST_SIGMA = 1e-4
"""Normalised units; the logarithm of a stored sigma of 0 would be infinite."""

COLOUR_WEIGHT = 2.0
"""A difference of 0.5 in intensity counts like one spacing of the anchors in place, or a factor e in sigma."""

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


def splat_distance(splats: Tensor, wanted: Tensor, layout: Layout, spacing: float) -> Tensor:
    """How far Gaussians are from others of the same slots.

    Args:
        splats: [image, gaussian, parameter] in ``layout``.
        wanted: the same shape.
        layout: the columns of both.
        spacing: of the anchors, in normalised units: the unit of a difference in place.

    Returns:
        float32 [image]: the mean of the smooth absolute differences (``torch.nn.functional.smooth_l1_loss``) in
        log sigma, rho, colour times ``COLOUR_WEIGHT`` and place.
    """
    differences = comparable(splats, layout, spacing) - comparable(wanted, layout, spacing)
    zero = torch.zeros_like(differences)
    return functional.smooth_l1_loss(differences, zero, beta=NEAR, reduction="none").flatten(1).mean(dim=1)


def comparable(splats: Tensor, layout: Layout, spacing: float) -> Tensor:
    """The columns of splats in units in which one is as far as another: [image, gaussian, number]."""
    values = splats.float()
    sigmas = [values[..., [layout.index(name)]].clamp_min(SMALLEST_SIGMA).log() for name in ("sigma_x", "sigma_y")]
    place = values[..., [layout.index("x"), layout.index("y")]] / spacing
    colour = COLOUR_WEIGHT * values[..., layout.colour_slice]
    return torch.cat([*sigmas, values[..., [layout.index("rho")]], colour, place], dim=-1)
