"""The whole optimisation of an image inside one compiled function.

Per step: boxes of all Gaussians (8 Gaussians per vector), the sum inside each box, the residual, the moments
of the residual under each Gaussian, Adam. Nothing but numbers in registers and in the first-level cache.

* A weight is summed inside the box of ``CUT`` marginal standard deviations, 8 pixels of a row per vector. Down
  the rows of a column of 8 pixels the exponent is a quadratic of the row, so the weight follows from two
  multiplications a row (``w *= r; r *= q``) instead of an exponential. Weights carry a factor exp(BIAS) so that
  the corners of a box do not underflow.
* A thin tilted Gaussian has corners beyond even that: it is summed row by row in short spans around its ridge,
  one exponential a vector.
* The gradient of all five geometry parameters follows from the moments of g = w * sum_c(residual_c colour_c)
  over (1, dx, dy, dx^2, dx dy, dy^2). The moments in dy come from running sums down the rows.
* Rows of planes are padded by 8 pixels whose residual is held at 0, so boxes may hang over the right edge and
  no vector needs a mask.

Sources of the formulas: differentiate ``encoders.frame``'s weight; Adam as in Kingma and Ba, 2015
(arXiv:1412.6980). Steps of the geometry are taken in the Gaussian's own frame: (u, v) for the centre, and
L <- (I + [[e1, e2], [0, e3]]) L for the shape, whose gradients are the moments of (u, v, u^2, uv, v^2).
"""

from __future__ import annotations

import numba
import numpy as np

from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y
from encoders.vector import (
    LANES,
    ceil,
    exponential,
    floor,
    flush_denormals,
    fused,
    lanes,
    load,
    magnitude,
    maximum,
    minimum,
    restore_denormals,
    scatter_totals,
    splat,
    square_root,
    store,
    total,
)

CUT = 3.5
BIAS = 55.0
_DEEPEST = 78.0
_STEEPEST = 80.0
_MOMENTS = 8

# Rows of the table of derived quantities, each [gaussian].
_A, _C, _Q, _LEFT, _VECTORS, _TOP, _ROWS, _CHAIN, _HALF, _SLOPE = range(10)
_DERIVED = 10


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _derive(theta, derived, padded, height, width, cut):  # pragma: no cover - compiled
    """Factors and boxes of all Gaussians, eight at a time."""
    zero, half = splat(0.0), splat(0.5)
    wide, high = splat(np.float32(width)), splat(np.float32(height))
    reach = splat(cut)
    for n in range(0, padded, LANES):
        x, y = load(theta, X * padded + n), load(theta, Y * padded + n)
        b = load(theta, B * padded + n)
        a = exponential(load(theta, LOG_A * padded + n))
        c = exponential(load(theta, LOG_C * padded + n))
        stiffness = fused(b, b, c * c)
        half_x = reach * square_root(stiffness) / (a * c)
        half_y = reach / c
        left = floor(maximum(x - half_x, zero))
        right = ceil(minimum(x + half_x, wide))
        top = floor(maximum(y - half_y, zero))
        bottom = ceil(minimum(y + half_y, high))
        vectors = ceil((right - left) * splat(1 / LANES))
        rows = bottom - top
        # Off the canvas on any side: no vectors at all.
        vectors = maximum(vectors, zero)
        rows = maximum(rows, zero)
        dx0, dy0 = left + half - x, top + half - y
        dx1, dy1 = fused(vectors, splat(LANES), dx0 - splat(1.0)), dy0 + rows
        u = maximum(
            maximum(magnitude(fused(a, dx0, b * dy0)), magnitude(fused(a, dx0, b * dy1))),
            maximum(magnitude(fused(a, dx1, b * dy0)), magnitude(fused(a, dx1, b * dy1))),
        )
        v = c * maximum(magnitude(dy0), magnitude(dy1))
        depth = half * fused(u, u, v * v)
        slope = fused(magnitude(b), u, half * stiffness + c * v)
        # 1 where the chain of multiplications stays inside float32: depth and slope below their limits.
        chain = minimum(splat(_DEEPEST + BIAS) - depth, splat(_STEEPEST) - slope)
        store(derived, _A * padded + n, a)
        store(derived, _C * padded + n, c)
        store(derived, _Q * padded + n, exponential(zero - stiffness))
        store(derived, _LEFT * padded + n, left)
        store(derived, _VECTORS * padded + n, vectors)
        store(derived, _TOP * padded + n, top)
        store(derived, _ROWS * padded + n, rows)
        store(derived, _CHAIN * padded + n, chain)
        store(derived, _HALF * padded + n, reach / a)
        store(derived, _SLOPE * padded + n, b / a)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _span(centre, half, width):  # pragma: no cover - compiled
    """First column and number of vectors of a row span around ``centre``; none where it misses the canvas."""
    first = int(np.floor(max(centre - half, np.float32(0))))
    last = int(np.ceil(min(centre + half, np.float32(width))))
    if last <= first:
        return 0, 0
    return first, (last - first + LANES - 1) // LANES


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _forward(theta, derived, planes, chains, spans, count, padded, height, width, tag, channels):
    # pragma: no cover - compiled
    """Adds every Gaussian to the planes; keeps what the backward pass repeats."""
    number = len(tag)
    stride = width + LANES
    size = height * stride
    planes[: number * size] = np.float32(0)
    unbias = np.float32(np.exp(-BIAS))
    chain_at, span_at = 0, 0
    for n in range(count):
        vectors = int(derived[_VECTORS * padded + n])
        rows = int(derived[_ROWS * padded + n])
        if vectors == 0 or rows == 0:
            continue
        x, y, b = theta[X * padded + n], theta[Y * padded + n], theta[B * padded + n]
        a, c = derived[_A * padded + n], derived[_C * padded + n]
        top = int(derived[_TOP * padded + n])
        k0 = theta[COLOUR * padded + n]
        k1 = theta[(COLOUR + 1) * padded + n] if channels > 1 else np.float32(1)
        k2 = theta[(COLOUR + 2) * padded + n] if channels > 2 else np.float32(1)
        if derived[_CHAIN * padded + n] > np.float32(0):
            left = int(derived[_LEFT * padded + n])
            dy = np.float32(top) + np.float32(0.5) - y
            v = c * dy
            stiffness = b * b + c * c
            shift = np.float32(BIAS) - np.float32(0.5) * v * v
            slope = np.float32(0.5) * stiffness + c * v
            c0, c1, c2, c3 = splat(k0 * unbias), splat(k1 * unbias), splat(k2 * unbias), splat(unbias)
            quotient = splat(derived[_Q * padded + n])
            for vector in range(vectors):
                start = left + vector * LANES
                u = fused(splat(a), lanes() + splat(np.float32(start) + np.float32(0.5) - x), splat(b * dy))
                weight = exponential(fused(splat(np.float32(-0.5)) * u, u, splat(shift)))
                ratio = exponential(fused(splat(-b), u, splat(-slope)))
                store(chains, chain_at, weight)
                store(chains, chain_at + LANES, ratio)
                chain_at += 2 * LANES
                at = top * stride + start
                for _ in range(rows):
                    store(planes, at, fused(weight, c0, load(planes, at)))
                    if number > 1:
                        store(planes, at + size, fused(weight, c1, load(planes, at + size)))
                    if number > 2:
                        store(planes, at + 2 * size, fused(weight, c2, load(planes, at + 2 * size)))
                    if number > 3:
                        store(planes, at + 3 * size, fused(weight, c3, load(planes, at + 3 * size)))
                    weight = weight * ratio
                    ratio = ratio * quotient
                    at += stride
        else:
            half, slope = derived[_HALF * padded + n], derived[_SLOPE * padded + n]
            c0, c1, c2, c3 = splat(k0), splat(k1), splat(k2), splat(np.float32(1))
            for row in range(top, top + rows):
                dy = np.float32(row) + np.float32(0.5) - y
                v = c * dy
                first, many = _span(x - slope * dy, half, width)
                for vector in range(many):
                    start = first + vector * LANES
                    u = fused(splat(a), lanes() + splat(np.float32(start) + np.float32(0.5) - x), splat(b * dy))
                    weight = exponential(splat(np.float32(-0.5)) * fused(u, u, splat(v * v)))
                    store(spans, span_at, weight)
                    span_at += LANES
                    at = row * stride + start
                    store(planes, at, fused(weight, c0, load(planes, at)))
                    if number > 1:
                        store(planes, at + size, fused(weight, c1, load(planes, at + size)))
                    if number > 2:
                        store(planes, at + 2 * size, fused(weight, c2, load(planes, at + 2 * size)))
                    if number > 3:
                        store(planes, at + 3 * size, fused(weight, c3, load(planes, at + 3 * size)))


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _residual(planes, target, low, high, mask, height, width, tag, channels, epsilon):  # pragma: no cover - compiled
    """Replaces the rendered planes by their residual and returns half the sum of squares.

    One-sided: where the target is 0 the sum may be negative, where it is 1 it may exceed 1, as clipping hides it.
    """
    number = len(tag)
    normalised = number > channels
    stride = width + LANES
    size = height * stride
    error = splat(0.0)
    for row in range(height):
        for column in range(0, width, LANES):
            valid = load(mask, column)
            at = row * stride + column
            if normalised:
                scale = splat(1.0) / (load(planes, at + channels * size) + splat(epsilon))
                pull = splat(0.0)
                for channel in range(channels):
                    here = at + channel * size
                    value = load(planes, here) * scale
                    clipped = minimum(maximum(value, load(low, here)), load(high, here))
                    difference = (clipped - load(target, here)) * valid
                    error = fused(difference, difference, error)
                    scaled = difference * scale
                    store(planes, here, scaled)
                    pull = fused(scaled, value, pull)
                store(planes, at + channels * size, splat(0.0) - pull)
            else:
                for channel in range(channels):
                    here = at + channel * size
                    clipped = minimum(maximum(load(planes, here), load(low, here)), load(high, here))
                    difference = (clipped - load(target, here)) * valid
                    error = fused(difference, difference, error)
                    store(planes, here, difference)
        # Only padding: no residual there, so boxes that hang over the edge gather nothing.
        for plane in range(number):
            store(planes, plane * size + row * stride + width, splat(0.0))
    return np.float32(0.5) * total(error)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _backward(theta, derived, planes, chains, spans, moments, count, padded, height, width, tag, channels):
    # pragma: no cover - compiled
    """Moments of the residual under every Gaussian.

    ``moments`` [8, gaussian] receives the sums of g dx, g dy, g dx^2, g dx dy, g dy^2 and of residual * weight per
    channel, g = weight * sum_c(residual_c colour_c).
    """
    number = len(tag)
    stride = width + LANES
    size = height * stride
    unbias = np.float32(np.exp(-BIAS))
    zero = splat(0.0)
    chain_at, span_at = 0, 0
    for n in range(count):
        vectors = int(derived[_VECTORS * padded + n])
        rows = int(derived[_ROWS * padded + n])
        if vectors == 0 or rows == 0:
            for moment in range(_MOMENTS):
                moments[moment * padded + n] = np.float32(0)
            continue
        x, y = theta[X * padded + n], theta[Y * padded + n]
        top = int(derived[_TOP * padded + n])
        k0, k1, k2 = np.float32(1), np.float32(1), np.float32(1)
        if number > 1:
            # With one plane the colour is a common factor: multiplied in at the end.
            k0 = theta[COLOUR * padded + n]
        if channels > 1:
            k1 = theta[(COLOUR + 1) * padded + n]
        if channels > 2:
            k2 = theta[(COLOUR + 2) * padded + n]
        c0, c1, c2 = splat(k0), splat(k1), splat(k2)
        gather0, gather1, gather2 = zero, zero, zero
        sum_x, sum_y, sum_xx, sum_xy, sum_yy = zero, zero, zero, zero, zero
        scale = np.float32(1)
        if derived[_CHAIN * padded + n] > np.float32(0):
            scale = unbias
            left = int(derived[_LEFT * padded + n])
            quotient = splat(derived[_Q * padded + n])
            below = np.float32(top + rows) + np.float32(0.5) - y
            for vector in range(vectors):
                start = left + vector * LANES
                weight = load(chains, chain_at)
                ratio = load(chains, chain_at + LANES)
                chain_at += 2 * LANES
                # Running sums down the rows: first = sum g, second = sum g t, third = sum g t (t + 1) / 2, where t
                # counts rows from the bottom edge of the box, dy = below - t.
                first, second, third = zero, zero, zero
                at = top * stride + start
                for _ in range(rows):
                    r0 = load(planes, at)
                    if number == 1:
                        first = fused(weight, r0, first)
                    else:
                        gather0 = fused(weight, r0, gather0)
                        pull = r0 * c0
                        if number > 1:
                            r1 = load(planes, at + size)
                            if channels > 1:
                                gather1 = fused(weight, r1, gather1)
                                pull = fused(r1, c1, pull)
                            else:
                                pull = pull + r1
                        if number > 2:
                            r2 = load(planes, at + 2 * size)
                            gather2 = fused(weight, r2, gather2)
                            pull = fused(r2, c2, pull)
                        if number > 3:
                            pull = pull + load(planes, at + 3 * size)
                        first = fused(weight, pull, first)
                    second = second + first
                    third = third + second
                    weight = weight * ratio
                    ratio = ratio * quotient
                    at += stride
                if number == 1:
                    gather0 = gather0 + first
                dx = lanes() + splat(np.float32(start) + np.float32(0.5) - x)
                edge = splat(below)
                along_y = fused(edge, first, zero - second)
                sum_y = sum_y + along_y
                sum_xy = fused(dx, along_y, sum_xy)
                # sum g t^2 = 2 third - second, so sum g dy^2 = below (below first - 2 second) + 2 third - second.
                twice = second + second
                sum_yy = sum_yy + fused(edge, fused(edge, first, zero - twice), third + third - second)
                along_x = first * dx
                sum_x = sum_x + along_x
                sum_xx = fused(along_x, dx, sum_xx)
        else:
            half, slope = derived[_HALF * padded + n], derived[_SLOPE * padded + n]
            for row in range(top, top + rows):
                dy = np.float32(row) + np.float32(0.5) - y
                height_y = splat(dy)
                begin, many = _span(x - slope * dy, half, width)
                for vector in range(many):
                    start = begin + vector * LANES
                    weight = load(spans, span_at)
                    span_at += LANES
                    at = row * stride + start
                    dx = lanes() + splat(np.float32(start) + np.float32(0.5) - x)
                    r0 = load(planes, at)
                    gather0 = fused(weight, r0, gather0)
                    pull = r0 * c0
                    if number > 1:
                        r1 = load(planes, at + size)
                        if channels > 1:
                            gather1 = fused(weight, r1, gather1)
                            pull = fused(r1, c1, pull)
                        else:
                            pull = pull + r1
                    if number > 2:
                        r2 = load(planes, at + 2 * size)
                        gather2 = fused(weight, r2, gather2)
                        pull = fused(r2, c2, pull)
                    if number > 3:
                        pull = pull + load(planes, at + 3 * size)
                    g = weight * pull
                    along_y = g * height_y
                    sum_y = sum_y + along_y
                    sum_yy = fused(along_y, height_y, sum_yy)
                    along_x = g * dx
                    sum_x = sum_x + along_x
                    sum_xx = fused(along_x, dx, sum_xx)
                    sum_xy = fused(along_x, height_y, sum_xy)
        scatter_totals(moments, n, padded, scale, sum_x, sum_y, sum_xx, sum_xy, sum_yy, gather0, gather1, gather2)
        if number == 1:
            colour = theta[COLOUR * padded + n]
            for moment in range(5):
                moments[moment * padded + n] *= colour


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _adam(theta, first, second, derived, moments, padded, height, width, channels, rates, betas, limits, bounded):
    # pragma: no cover - compiled
    """One step of Adam on all Gaussians, eight at a time.

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
    for n in range(0, padded, LANES):
        a, c = load(derived, _A * padded + n), load(derived, _C * padded + n)
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


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _reseed(
    theta, first, second, planes, needed, count, padded, height, width, channels
):  # pragma: no cover - compiled
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
        if brightest >= np.float32(0.5 / 255):
            continue
        if not ready:
            for pixel in range(height * width):
                at = pixel // width * stride + pixel % width
                needed[pixel] = np.float32(0)
                for channel in range(channels):
                    needed[pixel] += max(-planes[channel * size + at], np.float32(0))
            ready = True
        worst = int(np.argmax(needed[: height * width]))
        if needed[worst] <= np.float32(0):
            return
        row, column = worst // width, worst % width
        for parameter in range(COLOUR + channels):
            first[parameter * padded + n] = np.float32(0)
            second[parameter * padded + n] = np.float32(0)
        theta[X * padded + n] = np.float32(column + 0.5)
        theta[Y * padded + n] = np.float32(row + 0.5)
        theta[LOG_A * padded + n] = theta[LOG_C * padded + n] = -np.log(np.float32(0.7))
        theta[B * padded + n] = np.float32(0)
        for channel in range(channels):
            lack = max(-planes[channel * size + row * stride + column], np.float32(0))
            theta[(COLOUR + channel) * padded + n] = min(lack, np.float32(1))
        # Its neighbours are served by the same Gaussian.
        for i in range(max(row - 1, 0), min(row + 2, height)):
            for j in range(max(column - 1, 0), min(column + 2, width)):
                needed[i * width + j] = np.float32(0)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def fit_images(
    images,
    frames,
    result,
    steps_taken,
    errors,
    rates,
    betas,
    limits,
    target_error,
    tag,
    bounded,
    epsilon,
    cut,
    tail,
    reseed_every,
    reseed_until,
):  # pragma: no cover - compiled
    """Fits a range of images, one after the other.

    Args:
        images: uint8 [image, height, width, channel].
        frames: float32 [image, gaussian, 5 + channel], where Gaussians begin (encoders.frame).
        result: float32 like ``frames``, receives the best iterate.
        steps_taken: int32 [image], receives the optimiser steps taken.
        errors: float32 [image], receives half the sum of squared residuals of the best iterate.
        rates: float32 [step, 3], steps of centre, shape and colour with Adam's bias corrections folded in.
        betas: float32 [3]: beta1, beta2, epsilon.
        limits: float32 [4]: see ``_adam``.
        target_error: stop an image below this half sum of squares.
        tag: a tuple as long as there are planes (channels, and one more when normalised): a compile-time constant.
        bounded: whether colours are held in [0, 1].
        epsilon: floor of the weight sum (normalised codec only).
        cut: half-width of the summed box in marginal standard deviations.
        tail: from this step on the best iterate is kept.
        reseed_every: move dark Gaussians every so many steps; 0 never.
        reseed_until: and not after this step.
    """
    count = frames.shape[1]
    channels = frames.shape[2] - COLOUR
    _, height, width, _ = images.shape
    number = len(tag)
    padded = (count + LANES - 1) // LANES * LANES
    stride = width + LANES
    size = height * stride
    parameters = COLOUR + channels
    theta = np.zeros(parameters * padded, np.float32)
    best = np.zeros(parameters * padded, np.float32)
    first = np.zeros(parameters * padded, np.float32)
    second = np.zeros(parameters * padded, np.float32)
    derived = np.zeros(_DERIVED * padded, np.float32)
    moments = np.zeros(_MOMENTS * padded, np.float32)
    planes = np.zeros(number * size + LANES, np.float32)
    target = np.zeros(channels * size + LANES, np.float32)
    low = np.zeros(channels * size + LANES, np.float32)
    high = np.zeros(channels * size + LANES, np.float32)
    mask = np.zeros(stride + LANES, np.float32)
    mask[:width] = np.float32(1)
    columns = (width + LANES - 1) // LANES + 1
    chains = np.zeros(count * columns * 2 * LANES, np.float32)
    spans = np.zeros(count * columns * height * LANES, np.float32)
    needed = np.zeros(height * width, np.float32)
    steps = rates.shape[0]
    before = flush_denormals()
    for image in range(images.shape[0]):
        for channel in range(channels):
            for row in range(height):
                for column in range(width):
                    at = channel * size + row * stride + column
                    value = images[image, row, column, channel]
                    target[at] = np.float32(value) * np.float32(1 / 255)
                    low[at] = np.float32(0) if value == 0 else np.float32(-1e30)
                    high[at] = np.float32(1) if value == 255 else np.float32(1e30)
        theta[:] = np.float32(0)
        for n in range(count):
            for parameter in range(parameters):
                theta[parameter * padded + n] = frames[image, n, parameter]
        for n in range(count, padded):
            theta[X * padded + n] = np.float32(-1e4)
        first[:] = np.float32(0)
        second[:] = np.float32(0)
        moments[:] = np.float32(0)
        least = np.float32(np.inf)
        taken = 0
        for step in range(steps + 1):
            _derive(theta, derived, padded, height, width, cut)
            _forward(theta, derived, planes, chains, spans, count, padded, height, width, tag, channels)
            error = _residual(planes, target, low, high, mask, height, width, tag, channels, epsilon)
            if error < least and (step >= tail or error <= target_error):
                least = error
                best[:] = theta
            if step == steps or error <= target_error:
                break
            _backward(theta, derived, planes, chains, spans, moments, count, padded, height, width, tag, channels)
            _adam(
                theta,
                first,
                second,
                derived,
                moments,
                padded,
                height,
                width,
                channels,
                rates[step],
                betas,
                limits,
                bounded,
            )
            taken += 1
            if reseed_every > 0 and taken % reseed_every == 0 and taken <= reseed_until:
                _reseed(theta, first, second, planes, needed, count, padded, height, width, channels)
        for n in range(count):
            for parameter in range(parameters):
                result[image, n, parameter] = best[parameter * padded + n]
        steps_taken[image] = taken
        errors[image] = least
    restore_denormals(before)
