"""The plain-torch renderers of the codecs: slow, clear, differentiable, and the oracle of every engine.

Codec ``over/1`` is alpha compositing, front to back in index order, without any cut-off, over black:

    a_n(p) = alpha_n w_n(p),    I(p) = sum_n c_n a_n(p) prod_{m<n} (1 - a_m(p))

What a rasteriser leaves out (gsplat: opacities below 1/255, pixels nearly covered) is its own approximation, never part
of the codec.
"""

from __future__ import annotations

import torch
from torch import Tensor

from data_schemas.errors import StoreMismatchError
from data_schemas.splats import CODECS, NORMALISED, NORMALISED_EPSILON, OVER, Layout


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


def pixel_centres(size: int, *, device: torch.device | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normalised coordinates of pixel centres along one axis: (2 i + 1) / size - 1.

    Returns:
        [size], in [-1, 1].
    """
    return (2 * torch.arange(size, device=device, dtype=dtype) + 1) / size - 1


def weights(splats: Tensor, layout: Layout, height: int, width: int) -> Tensor:
    """exp(-1/2 (p - m)^T S^-1 (p - m)) of every Gaussian at every pixel centre, without opacity.

    Args:
        splats: [..., gaussian, parameter] in ``layout``.
        layout: the columns of ``splats``.
        height: rows of the rendered image.
        width: columns of the rendered image.

    Returns:
        [..., gaussian, height, width], in [0, 1].
    """

    def column(name: str) -> Tensor:
        return splats[..., layout.index(name)][..., None, None]

    xs = pixel_centres(width, device=splats.device, dtype=splats.dtype)[None, :]
    ys = pixel_centres(height, device=splats.device, dtype=splats.dtype)[:, None]
    # The inverse covariance as a product of triangular factors, S^-1 = L^T L: no determinant that underflows.
    sigma_x, sigma_y, rho = column("sigma_x"), column("sigma_y"), column("rho")
    horizontal = (xs - column("x")) / sigma_x
    vertical = (ys - column("y")) / sigma_y
    along = (horizontal - rho * vertical) / torch.sqrt((1 - rho) * (1 + rho))
    return torch.exp(-0.5 * (along**2 + vertical**2))


def render(splats: Tensor, layout: Layout, codec: str, height: int, width: int, *, clip: bool = True) -> Tensor:
    """Renders splats by the codec's formula (docs/store-format.md), the full sum without any cut-off.

    Args:
        splats: float [image, gaussian, parameter] in ``layout``; float32 or float64.
        layout: the columns of ``splats``.
        codec: one of ``CODECS``.
        height: rows of the rendered image; any, whatever the size that was encoded.
        width: columns of the rendered image.
        clip: whether to clip to [0, 1] as the codec says; optimisers look at the unclipped sum.

    Returns:
        [image, height, width, channel].

    Raises:
        StoreMismatchError: a codec that is not rendered here.
    """
    if codec not in CODECS:
        raise StoreMismatchError(f"Codec {codec!r} cannot be rendered", allowed=", ".join(CODECS))
    weight = weights(splats, layout, height, width)
    if layout.has_alpha:
        weight = weight * splats[..., layout.index("alpha")][..., None, None]
    colours = splats[..., layout.colour_slice]
    image = composite(weight, colours) if codec == OVER else torch.einsum("bkhw,bkc->bhwc", weight, colours)
    if codec == NORMALISED:
        image = image / (NORMALISED_EPSILON + weight.sum(dim=1))[..., None]
    return image.clamp(0, 1) if clip else image
