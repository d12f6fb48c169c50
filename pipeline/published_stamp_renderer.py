"""Draws raw ``W`` of the published kernel-stamp layout the way its authors drew it.

It exists to measure how near a converted store decodes to what a published file showed (docs/convert.md); nothing
else uses it. Each Gaussian is a small square picture (the stamp) that is padded to the image, shifted by bilinear
resampling and added up; the sum is clamped to [0, 1] over black.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

HALF_SPAN = 5.0
"""The stamp is sampled on a lattice over [-HALF_SPAN, HALF_SPAN] in both directions."""


def render_stamps(raw: Tensor, height: int, width: int, kernel_size: int, *, fold_alpha: bool = False) -> Tensor:
    """Renders one image of raw, pre-activation Gaussians.

    Args:
        raw: float [gaussian, 7 or 9]: s_row, s_column, rho, alpha, colour(s), x, y before their activations.
        height: pixels.
        width: pixels.
        kernel_size: side of the stamp in pixels; one larger than the image is cropped to it before it is moved.
        fold_alpha: whether colours are multiplied by sigmoid(alpha), as while fitting; the published samplers did not.

    Returns:
        [height, width, channel] in [0, 1].
    """
    gaussians, channels = raw.shape[0], raw.shape[1] - 6
    scale_row, scale_column = torch.sigmoid(raw[:, 0]), torch.sigmoid(raw[:, 1])
    cross = torch.tanh(raw[:, 2]) * scale_row * scale_column
    covariance = torch.stack([scale_row**2, cross, cross, scale_column**2], dim=1).reshape(gaussians, 2, 2)
    if bool((torch.linalg.det(covariance) <= 0).any()):
        covariance = covariance + 1e-6 * torch.eye(2, dtype=raw.dtype)
    colours = raw[:, 4 : 4 + channels].clamp(0, 1)
    if fold_alpha:
        colours = colours * torch.sigmoid(raw[:, 3:4])

    lattice = torch.linspace(-HALF_SPAN, HALF_SPAN, kernel_size, dtype=raw.dtype)
    points = torch.stack(torch.meshgrid(lattice, lattice, indexing="ij"), dim=-1)
    distance = torch.einsum("abi,kij,abj->kab", points, torch.linalg.inv(covariance), points)
    stamps = torch.exp(-0.5 * distance)
    stamps = stamps / stamps.amax(dim=(1, 2), keepdim=True)

    top, left = (height - kernel_size) // 2, (width - kernel_size) // 2
    margins = (left, width - kernel_size - left, top, height - kernel_size - top)
    padded = functional.pad(stamps, margins)[:, None]
    shift = torch.zeros(gaussians, 2, 3, dtype=raw.dtype)
    shift[:, 0, 0] = shift[:, 1, 1] = 1
    shift[:, :, 2] = raw[:, -2:]
    where = functional.affine_grid(shift, [gaussians, 1, height, width], align_corners=True)
    moved = functional.grid_sample(padded, where, mode="bilinear", padding_mode="zeros", align_corners=True)[:, 0]
    return torch.einsum("khw,kc->hwc", moved, colours).clamp(0, 1)
