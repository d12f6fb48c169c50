"""What the compiled decoders share: the pixel frame of a stored Gaussian, and the box of pixels that it reaches."""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled

CUT = 7.75
"""Half-width of the box in marginal standard deviations: exp(-7.75^2 / 2) < 1e-13."""

SMALLEST_SIGMA = 1e-6
GREATEST_RHO = 0.999999
"""Bounds of what is drawn: sigmas in normalised units. Beyond them the nearest Gaussian is drawn."""


@compiled
def pixel_frame(geometry, height, width):
    """Centre and factors in pixels of one Gaussian: x, y, a, b, c (``encoders.frame``), and both standard deviations.

    ``geometry`` = sigma_x, sigma_y, rho, x, y in the columns' units; what is no Gaussian becomes the nearest one.
    """
    sigma_x = max(abs(geometry[0]), np.float32(SMALLEST_SIGMA)) * np.float32(0.5 * width)
    sigma_y = max(abs(geometry[1]), np.float32(SMALLEST_SIGMA)) * np.float32(0.5 * height)
    rho = min(max(geometry[2], np.float32(-GREATEST_RHO)), np.float32(GREATEST_RHO))
    x = (geometry[3] + np.float32(1)) * np.float32(0.5 * width)
    y = (geometry[4] + np.float32(1)) * np.float32(0.5 * height)
    root = np.float32(np.sqrt((1.0 - rho) * (1.0 + rho)))
    a = np.float32(1) / (sigma_x * root)
    b = -rho / (sigma_y * root)
    c = np.float32(1) / sigma_y
    return x, y, a, b, c, sigma_x, sigma_y


@compiled
def reached(centre, sigma, size):
    """First pixel and the pixel after the last along one axis that lie within ``CUT`` standard deviations."""
    # Bounds are clipped as floats first: a Gaussian far off the canvas must not overflow an integer.
    first = int(min(max(np.floor(centre - np.float32(CUT) * sigma), 0.0), float(size)))
    last = int(min(max(np.ceil(centre + np.float32(CUT) * sigma), 0.0), float(size)))
    return first, last
