"""The plain-torch renderer of codec ``over/1``: alpha compositing, front to back in index order, without any cut-off.

    a_n(p) = alpha_n w_n(p),    I(p) = sum_n c_n a_n(p) prod_{m<n} (1 - a_m(p))

The background is black. What a rasteriser leaves out (gsplat: opacities below 1/255, pixels nearly covered) is its
own approximation, never part of the codec.
"""

from __future__ import annotations

import torch
from torch import Tensor


def visibility(opacity: Tensor) -> Tensor:
    """How much of each Gaussian is seen at each pixel: a_n prod_{m<n} (1 - a_m).

    Args:
        opacity: a_n in [0, 1], [..., gaussian, height, width], the front Gaussian first.

    Returns:
        The same shape; sums to at most 1 over the Gaussians.
    """
    passed = torch.cumprod(1 - opacity, dim=-3)
    before = torch.cat([torch.ones_like(passed[..., :1, :, :]), passed[..., :-1, :, :]], dim=-3)
    return opacity * before


def composite(opacity: Tensor, colours: Tensor) -> Tensor:
    """Alpha compositing over black, unclipped.

    Args:
        opacity: a_n in [0, 1], [image, gaussian, height, width], the front Gaussian first.
        colours: [image, gaussian, channel].

    Returns:
        [image, height, width, channel].
    """
    return torch.einsum("bkhw,bkc->bhwc", visibility(opacity), colours)
