"""Splats in coordinates that a regression can use: unique, unconstrained, of mean 0 and variance 1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import Layout

_WINSOR_PERCENT = 0.5
_SIGMA_FLOOR = 1e-6
_RHO_LIMIT = 0.9999
_HALF_GREY_LEVEL = 0.5 / 255
_LEAST_DEVIATION = 1e-7


@dataclass(frozen=True)
class Whitened:
    """Whitened splat numbers.

    Attributes:
        values: float32 [image, number], mean 0 and variance 1 over the counted entries of each column.
        counted: bool [image, number], entries that fit and score use; None for all.
        group: int [number]: 0 position, 1 shape, 2 colour and opacity.
        constant: columns left out because they do not vary.
    """

    values: NDArray[np.float32]
    counted: NDArray[np.bool_] | None
    group: NDArray[np.int64]
    constant: int


def log_covariance(
    sigma_x: NDArray[Any], sigma_y: NDArray[Any], rho: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Entries (xx, yy, xy) of the matrix logarithm of a 2x2 covariance.

    For S with mean diagonal t and eigenvalues t + m >= t - m > 0, log S = log(l1 l2)/2 I + log(l1/l2)/(2 m) (S - t I).

    Args:
        sigma_x: float [...], taken as at least 1e-6.
        sigma_y: float [...], taken as at least 1e-6.
        rho: float [...], taken as within 0.9999 of 0.

    Returns:
        Three float64 arrays [...].
    """
    sx = np.maximum(np.abs(np.asarray(sigma_x, np.float64)), _SIGMA_FLOOR)
    sy = np.maximum(np.abs(np.asarray(sigma_y, np.float64)), _SIGMA_FLOOR)
    r = np.clip(np.asarray(rho, np.float64), -_RHO_LIMIT, _RHO_LIMIT)
    xx, yy, xy = sx * sx, sy * sy, r * sx * sy
    half_trace, half_difference = (xx + yy) / 2, (xx - yy) / 2
    radius = np.hypot(half_difference, xy)
    log_determinant = 2 * np.log(sx) + 2 * np.log(sy) + np.log1p(-r * r)
    # log(l1 / l2) = 2 atanh(m / t); its quotient by 2 m tends to 1 / t as the ellipse becomes a circle.
    # Near a needle m / t rounds to 1, so the small eigenvalue is taken from the determinant instead.
    log_large = np.log(half_trace + radius)
    ratio = 2 * log_large - log_determinant
    is_circle = radius < 1e-9 * half_trace
    slope = np.where(is_circle, 1 / half_trace, ratio / (2 * np.where(is_circle, 1.0, radius)))
    mean = log_determinant / 2
    return mean + slope * half_difference, mean - slope * half_difference, slope * xy


def splat_numbers(
    splats: NDArray[Any], layout: Layout
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.bool_]]:
    """Splats in the coordinates of the regression.

    Args:
        splats: float [image, gaussian, parameter].
        layout: names the parameters.

    Returns:
        float64 [image, gaussian, number]: x, y, log covariance (xx, yy, xy), colours, opacity;
        int [number]: group of each (0 position, 1 shape, 2 colour and opacity);
        bool [image, gaussian]: whether the Gaussian can be seen.
    """
    wide = np.asarray(splats, np.float64)
    column = {name: wide[..., index] for index, name in enumerate(layout.names)}
    shape = log_covariance(column["sigma_x"], column["sigma_y"], column["rho"])
    colours = [column[name] for name in layout.names[layout.colour_slice]]
    brightest = np.max(np.abs(np.stack(colours)), axis=0)
    if layout.has_alpha:
        colours.append(column["alpha"])
        brightest = brightest * np.abs(column["alpha"])
    numbers = np.stack([column["x"], column["y"], *shape, *colours], axis=-1)
    group = np.array([0, 0, 1, 1, 1] + [2] * len(colours))
    return numbers, group, brightest >= _HALF_GREY_LEVEL


def whiten(numbers: NDArray[np.float64], group: NDArray[np.int64], counted: NDArray[np.bool_] | None) -> Whitened:
    """Clips and scales every number over the images where it counts; elsewhere it is 0, its mean.

    Args:
        numbers: float64 [image, gaussian, number], finite.
        group: int [number], group of each.
        counted: bool [image, gaussian, number], which entries count; None for all.
    """
    flat = numbers.reshape(len(numbers), -1)
    low, high = np.percentile(flat, [_WINSOR_PERCENT, 100 - _WINSOR_PERCENT], axis=0)
    flat = np.clip(flat, low, high)
    where: Any = True if counted is None else counted.reshape(flat.shape)
    total = np.maximum(np.sum(np.broadcast_to(where, flat.shape), axis=0), 1)
    mean = np.sum(flat, axis=0, where=where) / total
    flat -= mean
    deviation = np.sqrt(np.sum(np.square(flat), axis=0, where=where) / total)
    varies = deviation > _LEAST_DEVIATION * np.maximum(1.0, np.abs(mean))
    values = (flat[:, varies] / deviation[varies]).astype(np.float32)
    if counted is not None:
        where = where[:, varies]
        values[~where] = 0
    return Whitened(
        values,
        None if counted is None else where,
        np.tile(group, numbers.shape[1])[varies],
        int((~varies).sum()),
    )
