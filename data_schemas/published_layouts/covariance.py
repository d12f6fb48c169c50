"""A 2D covariance as (sigma_x, sigma_y, rho), and as two principal deviations and an angle.

The first is unique and is what a store holds. The second has twins (swap the axes and turn by a quarter), so its
inverse picks one: the greater deviation first, the angle in [0, pi).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def from_principal(major: Floats, minor: Floats, angle: Floats) -> tuple[Floats, Floats, Floats]:
    """S = R diag(major^2, minor^2) R^T with R = [[cos, -sin], [sin, cos]].

    Args:
        major: [...] deviation along the direction (cos angle, sin angle).
        minor: [...] deviation across it, in the same unit.
        angle: [...] radians, any.

    Returns:
        sigma_x, sigma_y, rho; rho is 0 where a deviation vanishes, and in [-1, 1].
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    # hypot, not squares: they leave the range of a float long before the deviations do.
    sigma_x = np.hypot(cosine * major, sine * minor)
    sigma_y = np.hypot(sine * major, cosine * minor)
    # The correlation is the cosine between the rows of R diag(major, minor): every factor is at most 1.
    with np.errstate(divide="ignore", invalid="ignore"):
        rho = (cosine * major / sigma_x) * (sine * major / sigma_y) - (sine * minor / sigma_x) * (
            cosine * minor / sigma_y
        )
    return sigma_x, sigma_y, np.clip(np.where(np.isfinite(rho), rho, 0.0), -1.0, 1.0)


def to_principal(sigma_x: Floats, sigma_y: Floats, rho: Floats) -> tuple[Floats, Floats, Floats]:
    """Inverse of ``from_principal``.

    Args:
        sigma_x: [...] deviation, >= 0.
        sigma_y: [...] deviation, >= 0, in the same unit.
        rho: [...] correlation in [-1, 1].

    Returns:
        major >= minor >= 0 and the angle in [0, pi).
    """
    scale = np.maximum(np.maximum(sigma_x, sigma_y), np.finfo(np.float64).tiny)
    across, down = sigma_x / scale, sigma_y / scale
    cross = 2 * rho * across * down
    difference = (across - down) * (across + down)
    major = np.sqrt((across**2 + down**2 + np.hypot(difference, cross)) / 2)
    # The smaller eigenvalue from the determinant: a difference of near-equal numbers would lose it.
    with np.errstate(invalid="ignore"):
        minor = np.where(major > 0, across * down * np.sqrt((1 - rho) * (1 + rho)) / np.where(major > 0, major, 1), 0.0)
    angle = np.mod(0.5 * np.arctan2(cross, difference), np.pi)
    # A tiny negative angle becomes pi itself in floating point.
    angle = np.where(angle >= np.pi, 0.0, angle)
    return major * scale, minor * scale, angle


LEAST_SIGMA = 1e-6
GREATEST_RHO = 0.999999


def keep_invertible(sigma: Floats, rho: Floats) -> tuple[Floats, Floats]:
    """Moves degenerate values to the nearest ones that a renderer can divide by.

    Args:
        sigma: [...] in normalised units.
        rho: [...] in [-1, 1].

    Returns:
        sigma >= LEAST_SIGMA and |rho| <= GREATEST_RHO.
    """
    return np.maximum(sigma, LEAST_SIGMA), np.clip(rho, -GREATEST_RHO, GREATEST_RHO)
