"""Boxes in an image, and which Gaussians lie in one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import Layout

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels."""


def inside(splats: NDArray[Any], layout: Layout, box: Box, height: int, width: int) -> NDArray[np.bool_]:
    """Which Gaussians have their centre in a box.

    Args:
        splats: [..., parameter].
        layout: its columns.
        box: (left, top, right, bottom) in pixels.
        height: rows of the image in which the box is given.
        width: its columns.

    Returns:
        bool [...].
    """
    column = (splats[..., layout.index("x")].astype(np.float64) + 1) / 2 * width
    row = (splats[..., layout.index("y")].astype(np.float64) + 1) / 2 * height
    left, top, right, bottom = box
    return (left <= column) & (column <= right) & (top <= row) & (row <= bottom)
