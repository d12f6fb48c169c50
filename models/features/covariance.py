"""Three coordinates of a covariance, so that a network may answer with any three numbers.

Stored are sigma_x, sigma_y and rho of S = [[sx^2, rho sx sy], [rho sx sy, sy^2]]. The forms:

- ``matrix_log``: log S = u I + [[v, w], [w, -v]], numbers (u, v, w). One S, one triple, and every triple is an S.
- ``log_cholesky``: S = L L^T with L = [[e^p, 0], [r, e^q]], numbers (p, q, r). Unique and free as well.
- ``raw``: (sigma_x, sigma_y, rho) as stored. Not every triple is a covariance: decoding clamps. It is what the
  published recipe learns.
"""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from data_schemas.errors import JobError
from models.names import CovarianceForm

COVARIANCE_FORMS: tuple[CovarianceForm, ...] = get_args(CovarianceForm)

SMALLEST_SIGMA = 1e-4
"""Floor of a decoded sigma, in units of half the image; a pixel of a 512-pixel image is 40 times wider."""

LARGEST_SIGMA = 64.0
"""Ceiling of a decoded sigma: such a Gaussian is flat over the image."""

LARGEST_RHO = 0.9995
"""Bound of a decoded correlation: the largest that float16 tells from 1."""

_LARGEST_LOGARITHM = 20.0
"""Beyond it exp would leave float32; the bounds of sigma are far inside."""


def check_form(form: str) -> CovarianceForm:
    """The form of that name.

    Raises:
        JobError: the name is unknown.
    """
    for known in COVARIANCE_FORMS:
        if form == known:
            return known
    raise JobError(f"Covariance form {form!r}", allowed=", ".join(COVARIANCE_FORMS))


def to_numbers(form: CovarianceForm, sigma_x: Tensor, sigma_y: Tensor, rho: Tensor) -> Tensor:
    """Three numbers of each covariance.

    Args:
        form: one of ``COVARIANCE_FORMS``.
        sigma_x: [...], clamped to [``SMALLEST_SIGMA``, ``LARGEST_SIGMA``].
        sigma_y: the same.
        rho: [...], clamped to +-``LARGEST_RHO``.

    Returns:
        [..., 3] in the dtype of ``sigma_x``; computed in float64.
    """
    dtype = sigma_x.dtype
    x = sigma_x.double().clamp(SMALLEST_SIGMA, LARGEST_SIGMA)
    y = sigma_y.double().clamp(SMALLEST_SIGMA, LARGEST_SIGMA)
    correlation = rho.double().clamp(-LARGEST_RHO, LARGEST_RHO)
    root = torch.sqrt((1 - correlation) * (1 + correlation))
    if form == "raw":
        numbers = (x, y, correlation)
    elif form == "log_cholesky":
        numbers = (torch.log(x), torch.log(y * root), correlation * y)
    else:
        middle, half, across = (x**2 + y**2) / 2, (x**2 - y**2) / 2, correlation * x * y
        deviation = torch.sqrt(half**2 + across**2)
        logarithm = torch.log(x) + torch.log(y) + torch.log(root)
        # (log of the larger eigenvalue - log of the smaller) / (2 deviation); its limit for a circle is 1 / middle.
        ratio = deviation / middle
        series = (1 + ratio**2 / 3) / middle
        exact = (torch.log(middle + deviation) - logarithm) / deviation.clamp_min(torch.finfo(torch.float64).tiny)
        factor = torch.where(ratio < 1e-4, series, exact)
        numbers = (logarithm, factor * half, factor * across)
    return torch.stack(numbers, dim=-1).to(dtype)


def from_numbers(form: CovarianceForm, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of ``to_numbers``: always a valid covariance, differentiable.

    Args:
        form: one of ``COVARIANCE_FORMS``.
        numbers: [..., 3], any finite values.

    Returns:
        sigma_x, sigma_y in [``SMALLEST_SIGMA``, ``LARGEST_SIGMA``] and rho within +-``LARGEST_RHO``, each [...].
    """
    first, second, third = numbers.unbind(-1)
    if form == "raw":
        x, y, correlation = first, second, third
    elif form == "log_cholesky":
        bound = _LARGEST_LOGARITHM
        x, corner = torch.exp(first.clamp(-bound, bound)), torch.exp(second.clamp(-bound, bound))
        y = torch.sqrt(third**2 + corner**2)
        correlation = third / y
    else:
        x, y, correlation = _exponential(first, second, third)
    return (
        x.clamp(SMALLEST_SIGMA, LARGEST_SIGMA),
        y.clamp(SMALLEST_SIGMA, LARGEST_SIGMA),
        correlation.clamp(-LARGEST_RHO, LARGEST_RHO),
    )


def _exponential(middle: Tensor, half: Tensor, across: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """sigma_x, sigma_y and rho of exp(u I + [[v, w], [w, -v]]), without cancellation for thin Gaussians."""
    bound = _LARGEST_LOGARITHM
    middle, half, across = (number.clamp(-bound, bound) for number in (middle, half, across))
    # The small constant keeps the gradient of the root finite at a circle.
    radius = torch.sqrt(half**2 + across**2 + 1e-12)
    fall, rise = torch.exp(-radius), torch.sinh(radius) / radius
    # cosh q +- v sinh q / q, of which the smaller is e^-q + w^2 sinh q / (q (q + |v|)): a sum of positive numbers.
    wide = half >= 0
    # Not abs: its gradient is 0 at a circle, and a network that begins with zeros would never leave it.
    longer = radius + torch.where(wide, half, -half)
    small = fall + rise * (across**2 + 1e-12) / longer
    large = fall + rise * longer
    squared_x = torch.where(wide, large, small)
    squared_y = torch.where(wide, small, large)
    scale = torch.exp(middle / 2)
    x, y = scale * torch.sqrt(squared_x), scale * torch.sqrt(squared_y)
    return x, y, across * rise / torch.sqrt(squared_x * squared_y)
