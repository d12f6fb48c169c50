"""Sums over the pixels of a Gaussian, backward: the moments of the residual that every gradient follows from.

The gradient of all five geometry parameters follows from the moments of g = w * sum_c(residual_c colour_c) over
(1, dx, dy, dx^2, dx dy, dy^2). The moments in dy come from running sums down the rows. Boxes, rows and vectors are
those of ``encoders.cpu.sums``.
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
from encoders.cpu.sums import lay_spans
from encoders.frame import COLOUR, B, X, Y
from encoders.vector import (
    LANES,
    entry,
    exponential,
    exponential_to_rounding,
    fused,
    keep_rolled,
    lanes,
    load,
    scatter_totals,
    splat,
)

MOMENTS = 8


@compiled
def backward(
    theta,
    derived,
    planes,
    chains,
    spans,
    layout,
    moments,
    count,
    padded,
    height,
    width,
    tag,
    channels,
    exact=None,
    share=None,
):
    """Moments of the residual under every Gaussian.

    ``moments`` [8, gaussian] receives the sums of g dx, g dy, g dx^2, g dx dy, g dy^2 and of residual * weight per
    channel, g = weight * sum_c(residual_c colour_c). With ``exact`` (as in ``forward``) weights are computed again, and
    u = a dx + b dy takes the place of dx: the moments of a needle, whose dx and dy cancel, keep their digits. With
    ``share`` = (first Gaussian, the Gaussian after the last, places) only these are summed.
    """
    number = len(tag)
    stride = width + LANES
    size = height * stride
    unbias = np.float32(np.exp(-BIAS))
    zero = splat(0.0)
    chain_at, span_at, layout_at, run = 0, 0, 0, len(layout) // 2
    begin, end = 0, count
    if share is not None:
        begin, end = share[0], share[1]
    for n in range(begin, end):
        vectors = int(entry(derived, VECTORS * padded + n))
        rows = int(entry(derived, ROWS * padded + n))
        if vectors == 0 or rows == 0:
            for moment in range(MOMENTS):
                moments[moment * padded + n] = np.float32(0)
            continue
        x, y, b = entry(theta, X * padded + n), entry(theta, Y * padded + n), entry(theta, B * padded + n)
        a, c = entry(derived, FACTOR_A * padded + n), entry(derived, FACTOR_C * padded + n)
        top = int(entry(derived, TOP * padded + n))
        k0, k1, k2 = np.float32(1), np.float32(1), np.float32(1)
        if number > 1:
            # With one plane the colour is a common factor: multiplied in at the end.
            k0 = entry(theta, COLOUR * padded + n)
        if channels > 1:
            k1 = entry(theta, (COLOUR + 1) * padded + n)
        if channels > 2:
            k2 = entry(theta, (COLOUR + 2) * padded + n)
        c0, c1, c2 = splat(k0), splat(k1), splat(k2)
        if share is not None:
            chain_at, span_at, layout_at = share[2][0, n], share[2][1, n], share[2][2, n]
        gather0, gather1, gather2 = zero, zero, zero
        sum_x, sum_y, sum_xx, sum_xy, sum_yy = zero, zero, zero, zero, zero
        scale = np.float32(1)
        if entry(derived, CHAIN * padded + n) > np.float32(0):
            scale = unbias
            left = int(entry(derived, LEFT * padded + n))
            quotient = splat(entry(derived, QUOTIENT * padded + n))
            below = np.float32(top + rows) + np.float32(0.5) - y
            length = rows if exact is None else int(entry(derived, CHAIN * padded + n))
            runs = 1 if exact is None else (rows + length - 1) // length
            for vector in range(vectors):
                start = left + vector * LANES
                # Running sums down the rows: first = sum g, second = sum g t, third = sum g t (t + 1) / 2, where t
                # counts rows from the bottom edge of the box, dy = below - t.
                first, second, third = zero, zero, zero
                at = top * stride + start
                for part in range(runs):
                    if exact is None:
                        weight, ratio = load(chains, chain_at), load(chains, chain_at + LANES)
                        chain_at += 2 * LANES
                    else:
                        dy = np.float32(top + part * length) + np.float32(0.5) - y
                        v = c * dy
                        u = fused(splat(a), lanes() + splat(np.float32(start) + np.float32(0.5) - x), splat(b * dy))
                        shift = np.float32(BIAS) - np.float32(0.5) * v * v
                        weight = exponential_to_rounding(fused(splat(np.float32(-0.5)) * u, u, splat(shift)))
                        slope = np.float32(0.5) * (b * b + c * c) + c * v
                        ratio = exponential_to_rounding(fused(splat(-b), u, splat(-slope)))
                    for _ in range(rows if exact is None else min(length, rows - part * length)):
                        r0 = load(planes, at)
                        if number == 1:
                            first = fused(weight, r0, first)
                        else:
                            gather0 = fused(weight, r0, gather0)
                            pull = r0 * c0
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
                        if exact is not None:
                            keep_rolled()
                if exact is not None:
                    # Before the squares of distances, which overflow with the bias for a Gaussian far off the canvas.
                    first, second, third = first * splat(unbias), second * splat(unbias), third * splat(unbias)
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
            if exact is not None:
                scale = np.float32(1)
                if number > 1:
                    unbiased = splat(unbias)
                    gather0, gather1, gather2 = gather0 * unbiased, gather1 * unbiased, gather2 * unbiased
                to_x, to_y = splat(a), splat(b)
                sum_x = fused(to_x, sum_x, to_y * sum_y)
                across = fused(to_x, sum_xx, to_y * sum_xy)
                sum_xy = fused(to_x, sum_xy, to_y * sum_yy)
                sum_xx = fused(to_x, across, to_y * sum_xy)
        else:
            if exact is not None:
                slope = entry(derived, SLOPE * padded + n)
                centre = x - slope * (np.float32(top) + np.float32(0.5) - y)
                lay_spans(layout, 0, centre, slope, entry(derived, HALF * padded + n), rows, width)
            for row in range(top, top + rows):
                dy = np.float32(row) + np.float32(0.5) - y
                height_y = splat(dy)
                left = int(entry(layout, layout_at + row - top))
                for vector in range(int(entry(layout, layout_at + run + row - top))):
                    start = left + vector * LANES
                    at = row * stride + start
                    dx = lanes() + splat(np.float32(start) + np.float32(0.5) - x)
                    if exact is None:
                        weight = load(spans, span_at)
                        span_at += LANES
                    else:
                        v = c * dy
                        dx = fused(splat(a), dx, splat(b * dy))
                        weight = exponential(splat(np.float32(-0.5)) * fused(dx, dx, splat(v * v)))
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
            if exact is None:
                layout_at += (rows + LANES - 1) // LANES * LANES
        scatter_totals(moments, n, padded, scale, sum_x, sum_y, sum_xx, sum_xy, sum_yy, gather0, gather1, gather2)
        if number == 1:
            colour = entry(theta, COLOUR * padded + n)
            for moment in range(5):
                moments[moment * padded + n] *= colour
