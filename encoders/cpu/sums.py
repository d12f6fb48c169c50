"""Sums over the pixels of Gaussians: forward and residual; backward is ``encoders.cpu.moments``.

* A weight is summed inside the box of ``recipe.CUT`` marginal standard deviations, 8 pixels of a row per vector. Down
  the rows of a column of 8 pixels the exponent is a quadratic of the row, so the weight follows from two
  multiplications a row (``w *= r; r *= q``) instead of an exponential. Weights carry a factor exp(BIAS) so that
  the corners of a box do not underflow.
* A thin tilted Gaussian has corners beyond even that: it is summed row by row in short spans around its ridge,
  one exponential a vector.
* Rows of planes are padded by 8 pixels whose residual is held at 0, so boxes may hang over the right edge and
  no vector needs a mask.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.cpu.boxes import (
    BIAS,
    CHAIN,
    FACTOR_A,
    FACTOR_C,
    HALF,
    LEFT,
    QUOTIENT,
    ROWS,
    SLOPE,
    TOP,
    VECTORS,
)
from encoders.frame import COLOUR, B, X, Y
from encoders.vector import (
    LANES,
    ceil,
    entry,
    exponential,
    exponential_to_rounding,
    floor,
    fused,
    keep_rolled,
    lanes,
    load,
    maximum,
    minimum,
    splat,
    store,
    total,
)


@compiled
def lay_spans(layout, at, first_centre, slope, half, rows, width):
    """First column and number of vectors of the row spans of a thin Gaussian, eight rows at a time.

    Args:
        layout: float32, receives the columns from ``at`` and the numbers of vectors half its length later.
        at: where in ``layout``; ``rows`` rounded up to full vectors are written.
        first_centre: column of the ridge at the middle of the first row.
        slope: columns that the ridge moves to the left per row.
        half: columns on either side of the ridge that are summed.
        rows: rows of the box.
        width: columns of the image.
    """
    zero, wide, around = splat(0.0), splat(np.float32(width)), splat(half)
    for row in range(0, rows, LANES):
        centre = fused(splat(-slope), lanes() + splat(np.float32(row)), splat(first_centre))
        first = floor(maximum(centre - around, zero))
        last = ceil(minimum(centre + around, wide))
        # None where the span misses the canvas: the last column lies before the first.
        store(layout, at + row, first)
        store(layout, at + len(layout) // 2 + row, ceil(maximum(last - first, zero) * splat(1 / LANES)))


@compiled
def forward(
    theta,
    derived,
    planes,
    chains,
    spans,
    layout,
    count,
    padded,
    height,
    width,
    tag,
    channels,
    exact=None,
    share=None,
):
    """Adds every Gaussian to the planes; keeps what the backward pass repeats.

    With ``exact`` (anything but None: the choice is compiled) weights are right to 1e-5 however high a box is, nothing
    is kept, and ``layout`` has room for the rows of one Gaussian only.

    With ``share`` = (first row, row after the last, places) only these rows are summed: every pixel
    is still the sum of the same weights in the same order. ``places`` and ``layout`` come from ``encoders.cpu.shares``.
    """
    number = len(tag)
    stride = width + LANES
    size = height * stride
    if share is None:
        planes[: number * size] = np.float32(0)
    else:
        for plane in range(number):
            planes[plane * size + share[0] * stride : plane * size + share[1] * stride] = np.float32(0)
    unbias = np.float32(np.exp(-BIAS))
    chain_at, span_at, layout_at, run = 0, 0, 0, len(layout) // 2
    for n in range(count):
        vectors = int(entry(derived, VECTORS * padded + n))
        rows = int(entry(derived, ROWS * padded + n))
        if vectors == 0 or rows == 0:
            continue
        x, y, b = entry(theta, X * padded + n), entry(theta, Y * padded + n), entry(theta, B * padded + n)
        a, c = entry(derived, FACTOR_A * padded + n), entry(derived, FACTOR_C * padded + n)
        top = int(entry(derived, TOP * padded + n))
        above, within = 0, rows
        if share is not None:
            # Rows of the box above the share, and inside of it.
            above = max(share[0] - top, 0)
            within = min(share[1] - top, rows) - above
            if within <= 0:
                continue
            chain_at, span_at, layout_at = share[2][0, n], share[2][1, n], share[2][2, n]
        k0 = entry(theta, COLOUR * padded + n)
        k1 = entry(theta, (COLOUR + 1) * padded + n) if channels > 1 else np.float32(1)
        k2 = entry(theta, (COLOUR + 2) * padded + n) if channels > 2 else np.float32(1)
        if entry(derived, CHAIN * padded + n) > np.float32(0):
            left = int(entry(derived, LEFT * padded + n))
            stiffness = b * b + c * c
            c0, c1, c2, c3 = splat(k0 * unbias), splat(k1 * unbias), splat(k2 * unbias), splat(unbias)
            quotient = splat(entry(derived, QUOTIENT * padded + n))
            length = rows if exact is None else int(entry(derived, CHAIN * padded + n))
            runs = 1 if exact is None else (rows + length - 1) // length
            for part in range(runs):
                row = top + part * length
                dy = np.float32(row) + np.float32(0.5) - y
                v = c * dy
                shift = np.float32(BIAS) - np.float32(0.5) * v * v
                slope = np.float32(0.5) * stiffness + c * v
                for vector in range(vectors):
                    start = left + vector * LANES
                    u = fused(splat(a), lanes() + splat(np.float32(start) + np.float32(0.5) - x), splat(b * dy))
                    depth = fused(splat(np.float32(-0.5)) * u, u, splat(shift))
                    steepness = fused(splat(-b), u, splat(-slope))
                    if exact is None:
                        weight, ratio = exponential(depth), exponential(steepness)
                    else:
                        weight, ratio = exponential_to_rounding(depth), exponential_to_rounding(steepness)
                    if exact is None and above == 0:
                        store(chains, chain_at, weight)
                        store(chains, chain_at + LANES, ratio)
                    chain_at += 2 * LANES
                    at = row * stride + start
                    if share is not None:
                        for _ in range(above):
                            weight = weight * ratio
                            ratio = ratio * quotient
                        at += above * stride
                    for _ in range(within if exact is None else min(length, rows - part * length)):
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
                        if exact is not None:
                            keep_rolled()
        else:
            slope = entry(derived, SLOPE * padded + n)
            dy = np.float32(top) + np.float32(0.5) - y
            if share is None:
                lay_spans(layout, layout_at, x - slope * dy, slope, entry(derived, HALF * padded + n), rows, width)
            else:
                for row in range(above):
                    span_at += int(entry(layout, layout_at + run + row)) * LANES
            c0, c1, c2, c3 = splat(k0), splat(k1), splat(k2), splat(np.float32(1))
            for row in range(top + above, top + above + within):
                dy = np.float32(row) + np.float32(0.5) - y
                v = c * dy
                first = int(entry(layout, layout_at + row - top))
                for vector in range(int(entry(layout, layout_at + run + row - top))):
                    start = first + vector * LANES
                    u = fused(splat(a), lanes() + splat(np.float32(start) + np.float32(0.5) - x), splat(b * dy))
                    weight = exponential(splat(np.float32(-0.5)) * fused(u, u, splat(v * v)))
                    if exact is None:
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
            if exact is None:
                layout_at += (rows + LANES - 1) // LANES * LANES


@compiled
def residual(planes, target, low, high, mask, height, width, tag, channels, epsilon, share=None):
    """Replaces the rendered planes by their residual and returns half the sum of squares.

    One-sided: where the target is 0 the sum may be negative, where it is 1 it may exceed 1, as clipping hides it.

    With ``share`` = (first row, row after the last, differences) only these rows are replaced; of a normalised sum
    ``differences`` receives what ``half_sum_of_squares`` adds up (of an additive one the planes hold it already).
    """
    number = len(tag)
    normalised = number > channels
    stride = width + LANES
    size = height * stride
    error = splat(0.0)
    first, last = 0, height
    if share is not None:
        first, last = share[0], share[1]
    for row in range(first, last):
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
                    if share is not None:
                        store(share[2], here, difference)
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


@compiled
def half_sum_of_squares(differences, height, width, channels):
    """What ``residual`` returns, from the differences that it left: the same additions in the same order."""
    stride = width + LANES
    size = height * stride
    error = splat(0.0)
    for row in range(height):
        for column in range(0, width, LANES):
            for channel in range(channels):
                difference = load(differences, channel * size + row * stride + column)
                error = fused(difference, difference, error)
    return np.float32(0.5) * total(error)
