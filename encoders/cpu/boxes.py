"""Where the Gaussians of a sum lie: factors of their weights, boxes of pixels that they reach, and the room they need.

See ``encoders.cpu.sums``, which sums over these boxes.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.frame import LOG_A, LOG_C, B, X, Y
from encoders.vector import (
    LANES,
    ceil,
    entry,
    exponential,
    exponential_to_rounding,
    floor,
    fused,
    load,
    magnitude,
    maximum,
    minimum,
    splat,
    square_root,
    store,
)

BIAS = 55.0
_DEEPEST = 78.0
_STEEPEST = 80.0

_RUNS = ((4, 4.0), (8, 4.0), (16, 8.0))
"""Rows after which an exact sum may begin its chain of multiplications again, and how many more each is than the one
before. No more than 16, as an error e of the quotient grows to e t^2 / 2 within t rows. The fit goes on for whole
boxes, which are lower than that as a rule."""

_GREATEST_RISE, _STEEPEST_RISE = 120.0, 86.0
"""How much the exponent of an exact sum may rise within a run, and within its first row. A column that begins below
exp(-87 - BIAS) is left out until the next run, and by then its weight is below exp(120 - 87 - BIAS) = 3e-10."""

_THINNEST = 6.0
"""Greatest 1 / (1 - rho^2) of a chain in an exact sum: its moments are formed of those of dx and dy, which cancel."""

_SPANS_COST = 8.0
"""A vector of a span takes as long as about so many of a chain: wide boxes of thin Gaussians are summed in spans."""

# Rows of the table of derived quantities, each [gaussian].
FACTOR_A, FACTOR_C, QUOTIENT, LEFT, VECTORS, TOP, ROWS, CHAIN, HALF, SLOPE = range(10)
DERIVED = 10


@compiled
def derive(theta, derived, padded, height, width, cut, share=None):
    """Factors and boxes of all Gaussians, eight at a time.

    With ``share`` = (first Gaussian, the Gaussian after the last), both multiples of 8, of these only.
    """
    begin, end = 0, padded
    if share is not None:
        begin, end = share[0], share[1]
    for n in range(begin, end, LANES):
        store(derived, FACTOR_A * padded + n, exponential(load(theta, LOG_A * padded + n)))
        store(derived, FACTOR_C * padded + n, exponential(load(theta, LOG_C * padded + n)))
    place_boxes(theta, derived, padded, height, width, cut, None, share)


@compiled
def place_boxes(theta, derived, padded, height, width, cut, exact=None, share=None):
    """Boxes of all Gaussians, or of a share, whose factors a and c are in ``derived`` already, eight at a time.

    The row ``CHAIN`` is above 0 where weights follow from each other down the rows; with ``exact`` (anything but None:
    the choice is compiled) it holds after how many rows they are computed anew.
    """
    zero, half = splat(0.0), splat(0.5)
    wide, high = splat(np.float32(width)), splat(np.float32(height))
    reach = splat(cut)
    begin, end = 0, padded
    if share is not None:
        begin, end = share[0], share[1]
    for n in range(begin, end, LANES):
        x, y = load(theta, X * padded + n), load(theta, Y * padded + n)
        b = load(theta, B * padded + n)
        a, c = load(derived, FACTOR_A * padded + n), load(derived, FACTOR_C * padded + n)
        stiffness = fused(b, b, c * c)
        half_x = reach * square_root(stiffness) / (a * c)
        half_y = reach / c
        if exact is None:
            left = floor(maximum(x - half_x, zero))
            right = ceil(minimum(x + half_x, wide))
            top = floor(maximum(y - half_y, zero))
            bottom = ceil(minimum(y + half_y, high))
        else:
            # Pixels whose centres lie inside, a row and a column less on average.
            left = ceil(maximum(x - half_x - half, zero))
            right = floor(minimum(x + half_x + half, wide))
            top = ceil(maximum(y - half_y - half, zero))
            bottom = floor(minimum(y + half_y + half, high))
        vectors = ceil((right - left) * splat(1 / LANES))
        rows = bottom - top
        # Off the canvas on any side: no vectors at all.
        vectors = maximum(vectors, zero)
        rows = maximum(rows, zero)
        dx0, dy0 = left + half - x, top + half - y
        if exact is None:
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
            store(derived, QUOTIENT * padded + n, exponential(zero - stiffness))
        else:
            # Rows from the top of the box to the ridge of the Gaussian, in the column where it lies lowest.
            ridge = zero - a * b / stiffness
            first, last = maximum(dx0, zero - half_x), minimum(right - half - x, half_x)
            below = maximum(maximum(ridge * first, ridge * last) - dy0, zero)
            vectors_of_span = fused(reach, splat(2 / LANES) / a, splat(1.0))
            cheaper = _is_above_0(splat(_SPANS_COST) * vectors_of_span - vectors)
            chain = cheaper * _is_above_0(splat(_THINNEST) * c * c - stiffness) * _find_run(stiffness, below)
            store(derived, QUOTIENT * padded + n, exponential_to_rounding(zero - stiffness))
        store(derived, LEFT * padded + n, left)
        store(derived, VECTORS * padded + n, vectors)
        store(derived, TOP * padded + n, top)
        store(derived, ROWS * padded + n, rows)
        store(derived, CHAIN * padded + n, chain)
        store(derived, HALF * padded + n, reach / a)
        store(derived, SLOPE * padded + n, b / a)


@compiled
def _is_above_0(value):
    """1 where it is, 0 elsewhere and for NaN."""
    return ceil(minimum(maximum(value, splat(0.0)), splat(1.0)))


@compiled
def _find_run(stiffness, below):
    """Rows of a run of an exact sum, 0 where even few rows rise by more than float32 holds.

    t rows on, the exponent of a column whose ridge lies d rows below has risen by stiffness (t d - t^2 / 2).
    """
    half = splat(0.5)
    rows = splat(0.0)
    for run, more in _RUNS:
        further = minimum(below, splat(run - 1))
        risen = stiffness * further * fused(splat(-0.5), further, below)
        rows = fused(_is_above_0(splat(_GREATEST_RISE) - risen), splat(more), rows)
    return rows * _is_above_0(splat(_STEEPEST_RISE) - stiffness * (below - half))


@compiled
def room(derived, count, padded):
    """How many numbers a forward pass keeps for the backward pass: of chains, of spans, of their layout.

    Asked before every pass, since the room for the greatest possible boxes would be gigabytes for a photograph.
    """
    chains, spans, layout = 0, 0, 0
    for n in range(count):
        vectors, rows = int(entry(derived, VECTORS * padded + n)), int(entry(derived, ROWS * padded + n))
        if vectors == 0 or rows == 0:
            continue
        if entry(derived, CHAIN * padded + n) > np.float32(0):
            chains += 2 * LANES * vectors
        else:
            # A span is at most two reaches and two rounded columns long, and no longer than its box.
            columns = min(float(vectors * LANES), 2.0 * entry(derived, HALF * padded + n) + 2.0)
            spans += rows * (int(columns) // LANES + 1) * LANES
            layout += (rows + LANES - 1) // LANES * LANES
    return chains, spans, layout
