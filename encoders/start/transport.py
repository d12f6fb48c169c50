"""The start ``transport``: entropic optimal transport from anchors to a density, compiled.

Its parts take ranges of anchors or of columns, so that threads can share them (``encoders.start.shared``): nothing is
added up across ranges, and the result does not depend on them.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.vector import LANES, fused, load, splat, store

_GREATEST_SPREAD = np.float32(1e28)
"""Scalings of Sinkhorn's iteration may spread this far before float32 would overflow."""

BLOCK = 4 * LANES
"""Tables are padded to four vectors, which are summed side by side: enough to hide the latency of an addition."""


@compiled
def gather(density, by_column, by_row, sums, rows, padded, first, last):
    """sums_i = sum over pixels of by_row[y, i] by_column[x, i] density[y, x], for anchors ``first`` to ``last``.

    Lanes are anchors, four vectors wide: ``first`` and ``last`` are multiples of ``BLOCK``. ``rows`` = (height, width).
    """
    height, width = rows
    for n in range(first, last, BLOCK):
        result0, result1, result2, result3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
        # Two rows at a time, so that a table entry that was loaded serves twice.
        for row in range(0, height, 2):
            below = min(row + 1, height - 1)
            upper0, upper1, upper2, upper3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            lower0, lower1, lower2, lower3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for column in range(width):
                upper, lower = splat(density[row * width + column]), splat(density[below * width + column])
                at = column * padded + n
                table0, table1 = load(by_column, at), load(by_column, at + LANES)
                table2, table3 = load(by_column, at + 2 * LANES), load(by_column, at + 3 * LANES)
                upper0, lower0 = fused(upper, table0, upper0), fused(lower, table0, lower0)
                upper1, lower1 = fused(upper, table1, upper1), fused(lower, table1, lower1)
                upper2, lower2 = fused(upper, table2, upper2), fused(lower, table2, lower2)
                upper3, lower3 = fused(upper, table3, upper3), fused(lower, table3, lower3)
            at = row * padded + n
            result0 = fused(upper0, load(by_row, at), result0)
            result1 = fused(upper1, load(by_row, at + LANES), result1)
            result2 = fused(upper2, load(by_row, at + 2 * LANES), result2)
            result3 = fused(upper3, load(by_row, at + 3 * LANES), result3)
            if below > row:
                at = below * padded + n
                result0 = fused(lower0, load(by_row, at), result0)
                result1 = fused(lower1, load(by_row, at + LANES), result1)
                result2 = fused(lower2, load(by_row, at + 2 * LANES), result2)
                result3 = fused(lower3, load(by_row, at + 3 * LANES), result3)
        store(sums, n, result0)
        store(sums, n + LANES, result1)
        store(sums, n + 2 * LANES, result2)
        store(sums, n + 3 * LANES, result3)


@compiled
def spread(scales, by_anchor_column, by_row, sums, rows, count, padded, wide, first, last):
    """sums[y, x] = sum over anchors of scales_i by_row[y, i] by_anchor_column[i, x], for columns ``first`` to ``last``.

    Lanes are columns, four vectors wide: ``first`` and ``last`` are multiples of ``BLOCK``. ``rows`` = (height, width).
    """
    height, _ = rows
    # A block of columns, which lies in one piece, stays in the cache while the rows go by: the whole table of a
    # photograph is tens of megabytes.
    for column in range(first, last, BLOCK):
        # Two rows at a time, as above; the last of an odd number is written twice.
        for row in range(0, height, 2):
            below = min(row + 1, height - 1)
            upper0, upper1, upper2, upper3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            lower0, lower1, lower2, lower3 = splat(0.0), splat(0.0), splat(0.0), splat(0.0)
            for n in range(count):
                upper = splat(scales[n] * by_row[row * padded + n])
                lower = splat(scales[n] * by_row[below * padded + n])
                at = column * count + n * BLOCK
                table0, table1 = load(by_anchor_column, at), load(by_anchor_column, at + LANES)
                table2, table3 = load(by_anchor_column, at + 2 * LANES), load(by_anchor_column, at + 3 * LANES)
                upper0, lower0 = fused(upper, table0, upper0), fused(lower, table0, lower0)
                upper1, lower1 = fused(upper, table1, upper1), fused(lower, table1, lower1)
                upper2, lower2 = fused(upper, table2, upper2), fused(lower, table2, lower2)
                upper3, lower3 = fused(upper, table3, upper3), fused(lower, table3, lower3)
            at = row * wide + column
            store(sums, at, upper0)
            store(sums, at + LANES, upper1)
            store(sums, at + 2 * LANES, upper2)
            store(sums, at + 3 * LANES, upper3)
            at = below * wide + column
            store(sums, at, lower0)
            store(sums, at + LANES, lower1)
            store(sums, at + 2 * LANES, lower2)
            store(sums, at + 3 * LANES, lower3)


@compiled
def divide(density, sums, wide, first, last, quotient):
    """Divides the density by the sums, for columns ``first`` to ``last``; rows of ``sums`` are ``wide`` apart."""
    height, width = density.shape
    for row in range(height):
        for column in range(first, min(last, width)):
            quotient[row * width + column] = density[row, column] / sums[row * wide + column]


@compiled
def scale_anchors(sums, share, first, last, scales):
    """Scales by which anchors ``first`` to ``last`` get a mass of ``share`` each."""
    for n in range(first, min(last, len(scales))):
        scales[n] = share / sums[n]


@compiled
def keep_scales(scales, kept):
    """Copies the scales [count] to ``kept``, unless they are too far apart for float32; returns whether it did."""
    count = len(scales)
    low, high = scales[0], scales[0]
    for n in range(count):
        low, high = min(low, scales[n]), max(high, scales[n])
    if not (low > 0 and high < np.float32(np.inf) and high < low * _GREATEST_SPREAD):
        return False
    for n in range(count):  # one loop: assigning a slice compiles numpy's error messages too, for seconds
        kept[n] = scales[n]
    return True


@compiled
def carry_over(scales, power):
    """Scales of the next level: potentials are epsilon log u, so they carry over."""
    count = len(scales)
    low, high = scales[0], scales[0]
    for n in range(count):
        low, high = min(low, scales[n]), max(high, scales[n])
    middle = np.sqrt(low) * np.sqrt(high)
    for n in range(count):
        scales[n] = np.float32((scales[n] / middle) ** power)


@compiled
def place_pixels(height, width, first, last, moment):
    """Rows 1 and 2 of ``moment`` [3, height * width]: row 0 times x and y in [-1, 1]; columns ``first`` to ``last``."""
    for row in range(height):
        for column in range(first, min(last, width)):
            at = row * width + column
            value = moment[0, at]
            moment[1, at] = value * np.float32((2 * column + 1) / width - 1)
            moment[2, at] = value * np.float32((2 * row + 1) / height - 1)


@compiled
def transport(density, tables_column, tables_row, tables_anchor, epsilons, iterations, count, positions):
    """Entropic optimal transport from K anchors of equal mass to ``density``; barycentric projection.

    Sinkhorn's scaling with annealed regularisation (Cuturi 2013, arXiv:1306.0895). The Gibbs kernel of the squared
    distance is a product over the axes, so it is never formed.

    Args:
        density: float32 [height, width], sums to 1.
        tables_column: float32 [level, width * padded], exp(-(x - x_i)^2 / epsilon), anchors last.
        tables_row: float32 [level, height * padded], the same for y.
        tables_anchor: float32 [level, count * wide], the same numbers as ``tables_column``: by blocks of ``BLOCK``
            columns, in a block by anchor, columns last.
        epsilons: float32 [level], regularisation of each level (normalised units squared), falling.
        iterations: of each level.
        count: K.
        positions: float32 [count, 2], receives (x, y) in [-1, 1].
    """
    height, width = density.shape
    levels = len(epsilons)
    padded = (count + BLOCK - 1) // BLOCK * BLOCK
    wide = (width + BLOCK - 1) // BLOCK * BLOCK
    rows = (height, width)
    u = np.ones(count, np.float32)
    kept = np.zeros(padded, np.float32)
    sums = np.zeros(padded, np.float32)
    spread_mass = np.zeros(height * wide, np.float32)
    v = np.zeros(height * width, np.float32)
    share = np.float32(1.0 / count)
    good = 0
    for level in range(levels):
        for _ in range(iterations):
            spread(u, tables_anchor[level], tables_row[level], spread_mass, rows, count, padded, wide, 0, wide)
            divide(density, spread_mass, wide, 0, width, v)
            gather(v, tables_column[level], tables_row[level], sums, rows, padded, 0, padded)
            scale_anchors(sums, share, 0, count, u)
        # A map too far for float32 at this level keeps the last level's: smooth, only blunter.
        if not keep_scales(u, kept):
            break
        good = level
        if level + 1 < levels:
            carry_over(u, epsilons[level] / epsilons[level + 1])
    spread(kept, tables_anchor[good], tables_row[good], spread_mass, rows, count, padded, wide, 0, wide)
    moment = np.empty((3, height * width), np.float32)
    divide(density, spread_mass, wide, 0, width, moment[0])
    place_pixels(height, width, 0, width, moment)
    mass = np.empty((3, padded), np.float32)
    for axis in range(3):
        gather(moment[axis], tables_column[good], tables_row[good], mass[axis], rows, padded, 0, padded)
    for n in range(count):
        positions[n, 0] = mass[1, n] / mass[0, n]
        positions[n, 1] = mass[2, n] / mass[0, n]
