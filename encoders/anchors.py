"""Anchors: K fixed points of the image extent, in an order that every image of a store shares."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


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
