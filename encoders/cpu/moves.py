"""How Gaussians move: one step of Adam in each Gaussian's own frame, and the rescue of dark Gaussians.

Adam as in Kingma and Ba, 2015 (arXiv:1412.6980). Steps of the geometry are taken in the Gaussian's own frame: (u, v)
for the centre, and L <- (I + [[e1, e2], [0, e3]]) L for the shape, whose gradients are the moments of (u, v, u^2, uv,
v^2) under the residual.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.cpu.boxes import FACTOR_A, FACTOR_C
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y
from encoders.vector import LANES, exponential, fused, load, maximum, minimum, splat, square_root, store

DARK = 0.5 / 255
"""A Gaussian whose every colour is below half an 8-bit step is dark."""

RESEEDED_SIGMA = 0.7
"""Standard deviation in pixels with which a moved Gaussian begins."""


@compiled
def adam(
    theta,
    first,
    second,
    derived,
    moments,
    padded,
    height,
    width,
    channels,
    rates,
    betas,
    limits,
    bounded,
    share=None,
):
    """One step of Adam on all Gaussians, eight at a time.

    With ``share`` = (first Gaussian, the Gaussian after the last), both multiples of 8, on these only.

    ``rates`` = steps of (centre, shape, colour) with the bias corrections folded in; ``betas`` = (beta1, beta2,
    epsilon); ``limits`` = (margin in pixels, least and greatest log factor, greatest slope b / c).
    """
    keep1, keep2 = splat(betas[0]), splat(betas[1])
    new1, new2 = splat(np.float32(1) - betas[0]), splat(np.float32(1) - betas[1])
    tiny, zero, one = splat(betas[2]), splat(0.0), splat(1.0)
    rate_centre, rate_shape, rate_colour = splat(rates[0]), splat(rates[1]), splat(rates[2])
    margin = limits[0]
    low_x, high_x = splat(-margin), splat(np.float32(width) + margin)
    low_y, high_y = splat(-margin), splat(np.float32(height) + margin)
    low_log, high_log, slope = splat(limits[1]), splat(limits[2]), splat(limits[3])
    begin, end = 0, padded
    if share is not None:
        begin, end = share[0], share[1]
    for n in range(begin, end, LANES):
        a, c = load(derived, FACTOR_A * padded + n), load(derived, FACTOR_C * padded + n)
        b = load(theta, B * padded + n)
        sx, sy = load(moments, n), load(moments, padded + n)
        sxx, sxy, syy = load(moments, 2 * padded + n), load(moments, 3 * padded + n), load(moments, 4 * padded + n)
        # Gradients in the Gaussian's own frame: the moments of u, v, u^2, u v, v^2 (module docstring).
        along = fused(a, sxy, b * syy)
        store(moments, n, fused(a, sx, b * sy))
        store(moments, padded + n, c * sy)
        store(moments, 2 * padded + n, zero - fused(a, fused(a, sxx, b * sxy), b * along))
        store(moments, 3 * padded + n, zero - c * along)
        store(moments, 4 * padded + n, zero - c * c * syy)
        for parameter in range(5 + channels):
            at = parameter * padded + n
            gradient = load(moments, at)
            mean = fused(keep1, load(first, at), new1 * gradient)
            square = fused(keep2, load(second, at), new2 * gradient * gradient)
            store(first, at, mean)
            store(second, at, square)
            store(moments, at, mean / (square_root(square) + tiny))
        down = rate_centre * load(moments, padded + n) / c
        right = fused(zero - b, down, rate_centre * load(moments, n)) / a
        x, y = load(theta, X * padded + n) - right, load(theta, Y * padded + n) - down
        store(theta, X * padded + n, minimum(maximum(x, low_x), high_x))
        store(theta, Y * padded + n, minimum(maximum(y, low_y), high_y))
        stretch = rate_shape * load(moments, 2 * padded + n)
        shear = rate_shape * load(moments, 3 * padded + n)
        squeeze = rate_shape * load(moments, 4 * padded + n)
        log_a = minimum(maximum(load(theta, LOG_A * padded + n) - stretch, low_log), high_log)
        log_c = minimum(maximum(load(theta, LOG_C * padded + n) - squeeze, low_log), high_log)
        b = fused(b, one - stretch, zero - shear * c)
        steepest = slope * exponential(log_c)
        store(theta, LOG_A * padded + n, log_a)
        store(theta, B * padded + n, minimum(maximum(b, zero - steepest), steepest))
        store(theta, LOG_C * padded + n, log_c)
        for channel in range(channels):
            at = (COLOUR + channel) * padded + n
            colour = load(theta, at) - rate_colour * load(moments, at)
            if bounded:
                colour = minimum(maximum(colour, zero), one)
            store(theta, at, colour)


@compiled
def reseed(theta, first, second, planes, needed, count, padded, height, width, channels, reach):
    """Moves every dark Gaussian to the pixel that lacks most light, and takes that pixel out of the running.

    ``planes`` hold the residual of the step before. Dark: every colour below half an 8-bit step.
    """
    stride = width + LANES
    size = height * stride
    ready = False
    for n in range(count):
        brightest = np.float32(0)
        for channel in range(channels):
            brightest = max(brightest, abs(theta[(COLOUR + channel) * padded + n]))
        if brightest >= np.float32(DARK):
            continue
        if not ready:
            for pixel in range(height * width):
                at = pixel // width * stride + pixel % width
                needed[pixel] = np.float32(0)
                for channel in range(channels):
                    needed[pixel] += max(-planes[channel * size + at], np.float32(0))
            ready = True
        # Within reach of where it lies, so that a slot stays in its part of the image.
        x, y = theta[X * padded + n], theta[Y * padded + n]
        top = int(min(max(y - reach, np.float32(0)), np.float32(height - 1)))
        bottom = int(min(max(y + reach, np.float32(0)), np.float32(height - 1)))
        left = int(min(max(x - reach, np.float32(0)), np.float32(width - 1)))
        right = int(min(max(x + reach, np.float32(0)), np.float32(width - 1)))
        row, column = top, left
        for i in range(top, bottom + 1):
            for j in range(left, right + 1):
                if needed[i * width + j] > needed[row * width + column]:
                    row, column = i, j
        if needed[row * width + column] <= np.float32(DARK):
            continue
        for parameter in range(COLOUR + channels):
            first[parameter * padded + n] = np.float32(0)
            second[parameter * padded + n] = np.float32(0)
        theta[X * padded + n] = np.float32(column + 0.5)
        theta[Y * padded + n] = np.float32(row + 0.5)
        theta[LOG_A * padded + n] = theta[LOG_C * padded + n] = -np.log(np.float32(RESEEDED_SIGMA))
        theta[B * padded + n] = np.float32(0)
        for channel in range(channels):
            lack = max(-planes[channel * size + row * stride + column], np.float32(0))
            theta[(COLOUR + channel) * padded + n] = min(lack, np.float32(1))
        # Its neighbours are served by the same Gaussian.
        for i in range(max(row - 1, 0), min(row + 2, height)):
            for j in range(max(column - 1, 0), min(column + 2, width)):
                needed[i * width + j] = np.float32(0)
