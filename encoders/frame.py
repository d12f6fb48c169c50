"""Pixel-frame parameters: the unconstrained numbers that an optimiser moves, and the codec's columns.

A Gaussian has its centre (x, y) in pixels from the left and top edge, and the upper-triangular factor
L = [[a, b], [0, c]] of its inverse covariance, S^-1 = L^T L, with a = exp(log_a) and c = exp(log_c):

    u = a dx + b dy,   v = c dy,   weight = exp(-(u^2 + v^2) / 2)

The colour channels follow, and in codec ``over/1`` the opacity alpha after them.

Every (log_a, b, log_c) is a valid covariance, so no step of an optimiser leaves the allowed set. From the
codec's columns: a = 1 / (sigma_x sqrt(1 - rho^2)), b = -rho / (sigma_y sqrt(1 - rho^2)), c = 1 / sigma_y.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

X, Y, LOG_A, B, LOG_C, COLOUR = range(6)
"""Positions of the pixel-frame parameters; the colour channels follow from ``COLOUR``, then opacity if there is one."""


def to_splats(frame: NDArray[np.float32], height: int, width: int, *, alpha: bool = False) -> NDArray[np.float32]:
    """Pixel-frame parameters as columns of a layout.

    Args:
        frame: float32 [image, gaussian, 5 + channel], or one more with ``alpha``.
        height: rows of the image.
        width: columns of the image.
        alpha: whether the last parameter is the opacity.

    Returns:
        float32 of the same shape: sigma_x, sigma_y, rho, alpha where there is one, colours, x, y in normalised units.
    """
    values = frame.astype(np.float64)
    ratio = values[..., B] * np.exp(-values[..., LOG_C])
    root = np.sqrt(1 + ratio**2)
    result = np.empty_like(values)
    result[..., 0] = root * np.exp(-values[..., LOG_A]) * (2 / width)
    result[..., 1] = np.exp(-values[..., LOG_C]) * (2 / height)
    result[..., 2] = -ratio / root
    if alpha:
        result[..., 3] = values[..., -1]
        result[..., 4:-2] = values[..., COLOUR:-1]
    else:
        result[..., 3:-2] = values[..., COLOUR:]
    result[..., -2] = values[..., X] * (2 / width) - 1
    result[..., -1] = values[..., Y] * (2 / height) - 1
    return result.astype(np.float32)


def from_splats(splats: NDArray[np.float32], height: int, width: int) -> NDArray[np.float32]:
    """The inverse of :func:`to_splats`.

    Args:
        splats: float32 [image, gaussian, 5 + channel] in the layout without alpha.
        height: rows of the image.
        width: columns of the image.

    Returns:
        float32 [image, gaussian, 5 + channel].
    """
    values = splats.astype(np.float64)
    sigma_x, sigma_y, rho = values[..., 0] * (width / 2), values[..., 1] * (height / 2), values[..., 2]
    root = np.sqrt((1 - rho) * (1 + rho))
    result = np.empty_like(values)
    result[..., X] = (values[..., -2] + 1) * (width / 2)
    result[..., Y] = (values[..., -1] + 1) * (height / 2)
    result[..., LOG_A] = -np.log(sigma_x * root)
    result[..., B] = -rho / (sigma_y * root)
    result[..., LOG_C] = -np.log(sigma_y)
    result[..., COLOUR:] = values[..., 3:-2]
    return result.astype(np.float32)
