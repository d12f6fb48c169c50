"""Anchors, the constants of the starts, and the tables that a transport of anchors needs.

Anchors: K fixed points of the image extent, in an order that every image of a store shares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Tables = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def anchors(gaussians: int, height: int, width: int) -> NDArray[np.float32]:
    """K points in rows of nearly equal length, evenly spaced: exactly K, without random numbers.

    The number of rows makes the cells as square as K allows; rows differ by at most one point, the longer ones
    spread evenly (Bresenham).

    Args:
        gaussians: K.
        height: rows of the image in pixels (for the aspect ratio only).
        width: columns of the image in pixels.

    Returns:
        float32 [gaussian, 2] of (x, y) in [-1, 1], row by row from the top left.
    """
    rows = min(gaussians, max(1, round(math.sqrt(gaussians * height / width))))
    points = []
    for row in range(rows):
        count = (row + 1) * gaussians // rows - row * gaussians // rows
        y = (2 * row + 1) / rows - 1
        points += [((2 * column + 1) / count - 1, y) for column in range(count)]
    return np.array(points, np.float32)


@dataclass(frozen=True)
class StartRecipe:
    """Constants of the starts.

    Attributes:
        ink: weight of a pixel's brightness in the density of Gaussians.
        edge: weight of its contrast to its neighbours.
        floor: share of the Gaussians that is spread evenly over the image (``transport``).
        adaptive_floor: the same for ``adaptive``.
        epsilons: regularisation of the transport, level by level, in normalised units squared. Where anchors lie much
            closer than the last level blurs (some hundreds of Gaussians), it is divided by 3 until they do not.
        iterations: Sinkhorn iterations of each level.
        lloyd_rounds: rounds of Lloyd's iteration (``adaptive``).
        spread: standard deviation of a Gaussian over the mean distance to its three nearest neighbours.
        brightness: colour of a Gaussian over the local mean of the pixels (additive sums overlap).
    """

    ink: float = 1.0
    edge: float = 2.0
    floor: float = 0.06
    adaptive_floor: float = 0.05
    epsilons: tuple[float, ...] = (0.2, 0.06, 0.03)
    iterations: int = 6
    lloyd_rounds: int = 4
    spread: float = 0.45
    brightness: float = 0.5


def transport_levels(epsilons: tuple[float, ...], gaussians: int) -> tuple[float, ...]:
    """The levels of a transport for K anchors, which share the area 4 of normalised units."""
    levels = list(epsilons)
    while levels[-1] > 3 * 4 / gaussians:
        levels.append(levels[-1] / 3)
    return tuple(levels)


def make_tables(gaussians: int, height: int, width: int, epsilons: tuple[float, ...]) -> Tables:
    """Gibbs kernels of every level along each axis, in the layouts of ``encoders.start.transport.transport``."""
    from encoders.start.transport import BLOCK

    points = anchors(gaussians, height, width).astype(np.float64)
    padded = -(-gaussians // BLOCK) * BLOCK
    wide = -(-width // BLOCK) * BLOCK
    xs, ys = (2 * np.arange(width) + 1) / width - 1, (2 * np.arange(height) + 1) / height - 1
    # Anchors share columns and rows, by the hundred on a photograph.
    (columns, in_column), (rows, in_row) = (np.unique(axis, return_inverse=True) for axis in points.T)
    column = np.zeros((len(epsilons), width, padded), np.float32)
    row = np.zeros((len(epsilons), height, padded), np.float32)
    anchor = np.zeros((len(epsilons), wide // BLOCK, gaussians, BLOCK), np.float32)
    for level, epsilon in enumerate(epsilons):
        # At least 1e-30, so that no product of two underflows to a division by zero.
        gibbs_x = np.maximum(np.exp(-((xs[:, None] - columns) ** 2) / epsilon), 1e-18).astype(np.float32)
        gibbs_y = np.maximum(np.exp(-((ys[:, None] - rows) ** 2) / epsilon), 1e-18).astype(np.float32)
        column[level, :, :gaussians] = gibbs_x[:, in_column]
        row[level, :, :gaussians] = gibbs_y[:, in_row]
        by_column = np.zeros((len(columns), wide), np.float32)
        by_column[:, :width] = gibbs_x.T
        for block in range(wide // BLOCK):
            anchor[level, block] = by_column[in_column, block * BLOCK : (block + 1) * BLOCK]
    levels = len(epsilons)
    return (
        column.reshape(levels, width * padded),
        row.reshape(levels, height * padded),
        anchor.reshape(levels, gaussians * wide),
    )


cached_tables = lru_cache(maxsize=8)(make_tables)
