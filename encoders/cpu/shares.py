"""Shares of one step on one image, for threads that work on it together (``encoders.cpu.large``).

A sum is cut where it holds no addition: the forward pass between rows of pixels, the backward pass between Gaussians.
So every number is the one that ``encoders.cpu.fit`` computes, however many shares there are.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.cpu.boxes import CHAIN, HALF, ROWS, SLOPE, TOP, VECTORS, derive, room
from encoders.cpu.moments import backward
from encoders.cpu.moves import adam
from encoders.cpu.sums import forward, lay_spans, residual
from encoders.frame import X, Y
from encoders.vector import LANES, entry

SETTING_UP = 12.0
"""Time to set up a box, in rows of 8 pixels (docs/performance.md)."""

SKIPPING = 0.15
"""Time to pass over the rows of a box that lie above a cut, on average, in that of summing all of its rows."""


@compiled
def prepare(theta, derived, chains, spans, layout, places, row_work, again, work, count, padded, height, width):
    """Where the numbers of each Gaussian lie, and the work of each row and each Gaussian.

    Args:
        theta: float32, parameters as in ``encoders.cpu.fit``.
        derived: float32, the table of ``encoders.cpu.boxes.derive``.
        chains: float32, room for the numbers that a forward pass keeps.
        spans: the same, of needles.
        layout: float32, receives the spans of needles (``encoders.cpu.sums.lay_spans``).
        places: int64 [3, gaussian], receives the first place in ``chains``, ``spans`` and half of ``layout``.
        row_work: float64 [row], receives the work of the forward pass up to and with each row, in rows of 8 pixels.
        again: float64 [row], receives the work that is done twice where rows are cut above each.
        work: float64 [padded], receives that of the backward pass up to and with each Gaussian.
        count: K.
        padded: K rounded up to full vectors.
        height: rows.
        width: columns.

    Returns:
        ``chains``, ``spans`` and ``layout``, or greater ones where they were too small.
    """
    chain_room, span_room, layout_room = room(derived, count, padded)
    if chain_room > len(chains):
        chains = np.empty(chain_room + chain_room // 2, np.float32)
    if span_room > len(spans):
        spans = np.empty(span_room + span_room // 2, np.float32)
    if 2 * layout_room > len(layout):
        layout = np.empty(4 * layout_room, np.float32)
    chain_at, span_at, layout_at, run = 0, 0, 0, len(layout) // 2
    row_work[:] = 0.0
    again[:] = 0.0
    for n in range(count):
        vectors, rows = int(entry(derived, VECTORS * padded + n)), int(entry(derived, ROWS * padded + n))
        top = int(entry(derived, TOP * padded + n))
        places[0, n], places[1, n], places[2, n] = chain_at, span_at, layout_at
        work[n] = 1.0
        if vectors == 0 or rows == 0:
            continue
        each = float(vectors)
        if entry(derived, CHAIN * padded + n) > np.float32(0):
            chain_at += 2 * LANES * vectors
        else:
            slope = entry(derived, SLOPE * padded + n)
            dy = np.float32(top) + np.float32(0.5) - entry(theta, Y * padded + n)
            first_centre = entry(theta, X * padded + n) - slope * dy
            lay_spans(layout, layout_at, first_centre, slope, entry(derived, HALF * padded + n), rows, width)
            vectors = 0
            for row in range(rows):
                vectors += int(entry(layout, layout_at + run + row))
            span_at += LANES * vectors
            layout_at += (rows + LANES - 1) // LANES * LANES
            # An exponential for every vector.
            each = 3.0 * vectors / rows
        work[n] = SETTING_UP + each * rows
        # Differences down the rows, summed up below.
        twice = SETTING_UP + SKIPPING * each * rows
        row_work[top] += each
        again[top] += twice
        if top + rows < height:
            row_work[top + rows] -= each
            again[top + rows] -= twice
    running, crossing, whole = 0.0, 0.0, 0.0
    for row in range(height):
        running += row_work[row]
        crossing += again[row]
        whole += running + width / LANES
        row_work[row], again[row] = whole, crossing
    whole = 0.0
    for n in range(padded):
        if n < count:
            whole += work[n]
        work[n] = whole
    return chains, spans, layout


@compiled
def sum_rows(
    theta,
    derived,
    planes,
    chains,
    spans,
    layout,
    places,
    target,
    low,
    high,
    mask,
    differences,
    first,
    last,
    count,
    padded,
    height,
    width,
    tag,
    channels,
    epsilon,
):
    """The forward pass of rows ``first`` to ``last`` and their residual; arrays as in ``encoders.cpu.fit``."""
    rows = (first, last, places)
    forward(theta, derived, planes, chains, spans, layout, count, padded, height, width, tag, channels, None, rows)
    shown = (first, last, differences)
    residual(planes, target, low, high, mask, height, width, tag, channels, epsilon, shown)


@compiled
def move_gaussians(
    theta,
    first_moments,
    second_moments,
    derived,
    planes,
    chains,
    spans,
    layout,
    places,
    moments,
    first,
    last,
    count,
    padded,
    height,
    width,
    tag,
    channels,
    rates,
    betas,
    limits,
    bounded,
    cut,
):
    """The backward pass of Gaussians ``first`` to ``last`` (multiples of 8), their step of Adam, their new boxes."""
    share = (first, min(last, count), places)
    backward(
        theta, derived, planes, chains, spans, layout, moments, count, padded, height, width, tag, channels, None, share
    )
    adam(
        theta,
        first_moments,
        second_moments,
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
        (first, last),
    )
    derive(theta, derived, padded, height, width, cut, (first, last))
