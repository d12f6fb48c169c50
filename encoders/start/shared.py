"""The start of one large image, shared by threads: the parts of ``encoders.start.kernel``, cut into ranges.

Points, columns and rows are cut where nothing is added up across a cut, so the start is the one that
``begin_images`` computes, however many threads there are. The tables of a transport are made level by level: those of
a photograph would take half a gigabyte together.
"""

from __future__ import annotations

from functools import partial

import numpy as np
from numpy.typing import NDArray

from encoders.compiled import compiled
from encoders.start.kernel import (
    ADAPTIVE,
    TRANSPORT,
    find_nearest,
    lay_frame,
    move_to_centroids,
    saliency,
    spacings,
    stratify,
    to_pixels,
)
from encoders.start.tables import StartRecipe, make_tables
from encoders.start.transport import (
    BLOCK,
    carry_over,
    divide,
    gather,
    keep_scales,
    place_pixels,
    scale_anchors,
    spread,
)
from encoders.team import Team, cut_evenly

SHARES_PER_THREAD = 4


def begin_shared(
    image: NDArray[np.uint8],
    kind: int,
    positions: NDArray[np.float32],
    weights: NDArray[np.float64],
    levels: tuple[float, ...],
    recipe: StartRecipe,
    curve: NDArray[np.int32],
    offset: float,
    brightness: float,
    frame: NDArray[np.float32],
    team: Team,
) -> None:
    """The start of one image; see ``encoders.start.kernel.begin_images``.

    Args:
        image: uint8 [height, width, channel].
        kind: GRID, TRANSPORT or ADAPTIVE.
        positions: float32 [gaussian, 2], the anchors in [-1, 1]; overwritten.
        weights: (ink, edge, floor) of the density.
        levels: regularisation of the transport, level by level.
        recipe: the other constants.
        curve: int32 [height * width], pixels in the order of the curve (``adaptive``).
        offset: in [0, 1) (``adaptive``).
        brightness: colour over the local mean.
        frame: float32 [gaussian, 5 + channel], receives the start.
        team: threads that share the work.
    """
    height, width, channels = image.shape
    count = len(positions)
    if kind != ADAPTIVE and kind != TRANSPORT:
        to_pixels(positions, height, width)
    else:
        density = np.empty((height, width), np.float32)
        saliency(image, weights[0], weights[1], weights[2], density)
        if kind == ADAPTIVE:
            stratify(density, curve, offset, positions)
            _relax(density, positions, recipe.lloyd_rounds, team)
        else:
            _transport(density, positions, levels, recipe.iterations, team)
            to_pixels(positions, height, width)
    distances = np.empty(count, np.float32)
    ranges = cut_evenly(np.arange(1.0, count + 1), SHARES_PER_THREAD * team.threads)
    team.share([partial(spacings, positions, *points, distances) for points in ranges])
    lay_frame(image, positions, distances, recipe.spread, brightness, np.empty((count, channels), np.float32), frame)


def _relax(density: NDArray[np.float32], positions: NDArray[np.float32], rounds: int, team: Team) -> None:
    """``encoders.start.kernel.relax``: the nearest points of rows are shared, the sums are not."""
    height, width = density.shape
    sums = np.zeros((len(positions), 3), np.float32)
    nearest = np.empty(height * width, np.int32)
    ranges = cut_evenly(np.arange(1.0, height + 1), SHARES_PER_THREAD * team.threads)
    for _ in range(rounds):
        order = top_down(positions)
        team.share([partial(find_nearest, positions, order, *rows, width, nearest) for rows in ranges])
        move_to_centroids(density, nearest, sums, positions)


def _transport(
    density: NDArray[np.float32],
    positions: NDArray[np.float32],
    levels: tuple[float, ...],
    iterations: int,
    team: Team,
) -> None:
    """``encoders.start.transport.transport`` from anchors to ``positions``: anchors and columns are shared."""
    height, width = density.shape
    count = len(positions)
    padded, wide = -(-count // BLOCK) * BLOCK, -(-width // BLOCK) * BLOCK
    anchors = cut_evenly(np.arange(1.0, padded + 1), SHARES_PER_THREAD * team.threads, BLOCK)
    columns = cut_evenly(np.arange(1.0, wide + 1), SHARES_PER_THREAD * team.threads, BLOCK)
    size = ((height, width), count, padded, wide)
    scales, kept = np.ones(count, np.float32), np.zeros(padded, np.float32)
    sums, spread_mass = np.zeros(padded, np.float32), np.zeros(height * wide, np.float32)
    moment, mass = np.zeros((3, height * width), np.float32), np.empty((3, padded), np.float32)
    epsilons = np.array(levels, np.float32)
    good = None
    for level, epsilon in enumerate(levels):
        column, row, anchor = (table[0] for table in make_tables(count, height, width, (epsilon,)))
        for _ in range(iterations):
            scaled = (scales, anchor, row, spread_mass, density, moment)
            team.share([partial(_spread_columns, *scaled, *size, *some) for some in columns])
            gathered = (moment[0], column, row, sums, scales)
            team.share([partial(_gather_anchors, *gathered, size[0], padded, *some) for some in anchors])
        good = good or (column, row, anchor)
        # A map too far for float32 at this level keeps the last level's: smooth, only blunter.
        if not keep_scales(scales, kept):
            break
        good = (column, row, anchor)
        if level + 1 < len(levels):
            carry_over(scales, epsilons[level] / epsilons[level + 1])
    assert good is not None, "a transport has a level at least"
    column, row, anchor = good
    scaled = (kept, anchor, row, spread_mass, density, moment)
    team.share([partial(_spread_columns, *scaled, *size, *some) for some in columns])
    team.share(
        [
            partial(gather, moment[axis], column, row, mass[axis], size[0], padded, *some)
            for axis in range(3)
            for some in anchors
        ]
    )
    np.divide(mass[1:, :count].T, mass[0, :count, None], out=positions)


@compiled
def top_down(positions):
    """Points float32 [count, 2] from the top down; numpy orders equal ones otherwise."""
    return np.argsort(positions[:, 1])


@compiled
def _spread_columns(scales, by_anchor_column, by_row, sums, density, moment, rows, count, padded, wide, first, last):
    """``spread``, the quotient of the density and the sums (``moment`` row 0), and its moments (rows 1 and 2)."""
    spread(scales, by_anchor_column, by_row, sums, rows, count, padded, wide, first, last)
    divide(density, sums, wide, first, last, moment[0])
    place_pixels(rows[0], rows[1], first, last, moment)


@compiled
def _gather_anchors(density, by_column, by_row, sums, scales, rows, padded, first, last):
    """``gather``, and the scale of each anchor."""
    gather(density, by_column, by_row, sums, rows, padded, first, last)
    scale_anchors(sums, np.float32(1.0 / len(scales)), first, last, scales)
