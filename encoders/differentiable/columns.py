"""Stored columns as the parameters that compiled sums take, and moments of the residual as gradients of columns.

With sigma in pixels, r = sqrt(1 - rho^2), a = 1 / (sigma_x r), b = -rho / (sigma_y r), c = 1 / sigma_y, u = a dx + b dy
and v = c dy the exponent E = -(u^2 + v^2) / 2 has

    dE/dx = a u,  dE/dy = b u + c^2 dy,  dE/dsigma_x = (u^2 - b u dy) / sigma_x,
    dE/dsigma_y = (b u dy + c^2 dy^2) / sigma_y,  dE/drho = c u dy / r - rho u^2 / r^2.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.cpu.boxes import DERIVED, FACTOR_A, FACTOR_C
from encoders.cpu.decode import GREATEST_RHO, SMALLEST_SIGMA
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y
from encoders.vector import LANES, entry, fused, load, maximum, minimum, splat, square_root, store, total

FARTHEST = 1e9
"""Pixels beyond which neither centres nor sigmas are told apart: nothing overflows."""

RHO, ROOT = DERIVED, DERIVED + 1
"""Rows after those of ``encoders.cpu.boxes``: the correlation as drawn, and r = sqrt(1 - rho^2)."""

TABLE = DERIVED + 2
_SIGMA_X, _SIGMA_Y = LOG_A, LOG_C  # the sums do not read these rows: here they hold sigmas in pixels


@compiled
def take_columns(splats, first, count, parameters, theta, derived, padded, height, width):
    """Columns of one image as parameters and factors in pixels.

    Args:
        splats: float32, flat, columns of all images.
        first: where those of this image begin.
        count: K.
        parameters: columns of a Gaussian.
        theta: float32, flat [parameter, padded], filled.
        derived: float32, flat [TABLE, padded], the rows ``FACTOR_A``, ``FACTOR_C``, ``RHO`` and ``ROOT`` are filled.
        padded: K rounded up to full vectors.
        height: rows of the image.
        width: columns of the image.

    Returns:
        The first Gaussian that is not finite, or -1.
    """
    channels = parameters - 5
    for n in range(count):
        at = first + n * parameters
        theta[_SIGMA_X * padded + n] = entry(splats, at)
        theta[_SIGMA_Y * padded + n] = entry(splats, at + 1)
        derived[RHO * padded + n] = entry(splats, at + 2)
        for channel in range(channels):
            theta[(COLOUR + channel) * padded + n] = entry(splats, at + 3 + channel)
        theta[X * padded + n] = entry(splats, at + parameters - 2)
        theta[Y * padded + n] = entry(splats, at + parameters - 1)
    for n in range(count, padded):
        # Round, one image wide, and far away.
        theta[_SIGMA_X * padded + n] = np.float32(1)
        theta[_SIGMA_Y * padded + n] = np.float32(1)
        derived[RHO * padded + n] = np.float32(0)
        for channel in range(channels):
            theta[(COLOUR + channel) * padded + n] = np.float32(0)
        theta[X * padded + n] = np.float32(1e6)
        theta[Y * padded + n] = np.float32(1e6)
    zero, one, least, most = splat(0.0), splat(1.0), splat(SMALLEST_SIGMA), splat(GREATEST_RHO)
    far, near = splat(FARTHEST), splat(-FARTHEST)
    half_width, half_height = splat(0.5 * width), splat(0.5 * height)
    # Stays 0 while numbers are finite, and becomes NaN by one that is not.
    check = zero
    for n in range(0, padded, LANES):
        sigma_x, sigma_y = load(theta, _SIGMA_X * padded + n), load(theta, _SIGMA_Y * padded + n)
        rho, x, y = load(derived, RHO * padded + n), load(theta, X * padded + n), load(theta, Y * padded + n)
        check = fused(sigma_x, zero, fused(sigma_y, zero, fused(rho, zero, fused(x, zero, fused(y, zero, check)))))
        for channel in range(channels):
            check = fused(load(theta, (COLOUR + channel) * padded + n), zero, check)
        sigma_x = minimum(maximum(sigma_x, least) * half_width, far)
        sigma_y = minimum(maximum(sigma_y, least) * half_height, far)
        rho = minimum(maximum(rho, splat(-GREATEST_RHO)), most)
        root = square_root((one - rho) * (one + rho))
        store(theta, _SIGMA_X * padded + n, sigma_x)
        store(theta, _SIGMA_Y * padded + n, sigma_y)
        store(derived, RHO * padded + n, rho)
        store(derived, ROOT * padded + n, root)
        store(theta, X * padded + n, minimum(maximum((x + one) * half_width, near), far))
        store(theta, Y * padded + n, minimum(maximum((y + one) * half_height, near), far))
        store(theta, B * padded + n, zero - rho / (sigma_y * root))
        store(derived, FACTOR_A * padded + n, one / (sigma_x * root))
        store(derived, FACTOR_C * padded + n, one / sigma_y)
    if total(check) == np.float32(0):
        return -1
    for n in range(count):
        for parameter in range(parameters):
            if not np.isfinite(entry(splats, first + n * parameters + parameter)):
                return n
    return -1


@compiled
def to_columns(splats, first, count, parameters, gradients, theta, derived, moments, padded, height, width):
    """Moments of one image as gradients of its columns; 0 for a sigma or rho beyond what is drawn.

    Args:
        splats: as given to ``take_columns``, and the three after it.
        first: see there.
        count: see there.
        parameters: see there.
        gradients: float32 like ``splats``, those of this image are filled.
        theta: as ``take_columns`` filled it.
        derived: likewise.
        moments: float32, flat [moment, padded], see ``encoders.cpu.moments``; changed.
        padded: K rounded up to full vectors.
        height: rows of the image.
        width: columns of the image.
    """
    half_width, half_height = splat(0.5 * width), splat(0.5 * height)
    for n in range(0, padded, LANES):
        along, down = load(moments, n), load(moments, padded + n)
        square, mixed = load(moments, 2 * padded + n), load(moments, 3 * padded + n)
        high = load(moments, 4 * padded + n)
        a, c = load(derived, FACTOR_A * padded + n), load(derived, FACTOR_C * padded + n)
        b = load(theta, B * padded + n)
        rho, root = load(derived, RHO * padded + n), load(derived, ROOT * padded + n)
        stiff = c * c
        tilted = b * mixed
        store(moments, n, a * along * half_width)
        store(moments, padded + n, fused(b, along, stiff * down) * half_height)
        store(moments, 2 * padded + n, (square - tilted) / load(theta, _SIGMA_X * padded + n) * half_width)
        store(moments, 3 * padded + n, fused(stiff, high, tilted) / load(theta, _SIGMA_Y * padded + n) * half_height)
        store(moments, 4 * padded + n, (c * mixed - rho * square / root) / root)
    smallest, greatest = np.float32(SMALLEST_SIGMA), np.float32(GREATEST_RHO)
    for n in range(count):
        at = first + n * parameters
        drawn = entry(splats, at) >= smallest
        gradients[at] = entry(moments, 2 * padded + n) if drawn else np.float32(0)
        drawn = entry(splats, at + 1) >= smallest
        gradients[at + 1] = entry(moments, 3 * padded + n) if drawn else np.float32(0)
        drawn = abs(entry(splats, at + 2)) <= greatest
        gradients[at + 2] = entry(moments, 4 * padded + n) if drawn else np.float32(0)
        for channel in range(parameters - 5):
            gradients[at + 3 + channel] = entry(moments, (5 + channel) * padded + n)
        gradients[at + parameters - 2] = entry(moments, n)
        gradients[at + parameters - 1] = entry(moments, padded + n)
