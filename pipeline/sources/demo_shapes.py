"""A tiny painter of shaded, outlined shapes: what the built-in sprites are drawn with.

Only additions, multiplications, divisions, square roots and comparisons of float64: the same bytes everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CANVAS = 64
"""Pixels a side of the canvas; the sprites are its 2x2 box means."""

_Y, _X = np.mgrid[0:CANVAS, 0:CANVAS].astype(np.float64) + 0.5

Colour = tuple[int, int, int]

# Tones from shadow to light: (least light, factor, lift). Shadows lean to blue, lights to yellow.
_TONES = (
    (-9.0, 0.48, (0, 0, 14)),
    (-0.45, 0.74, (0, 0, 6)),
    (0.05, 1.0, (0, 0, 0)),
    (0.5, 1.12, (18, 16, 8)),
)
_EDGES = np.array([least for least, _, _ in _TONES[1:]])
_OUTLINE = 0.28


@dataclass(frozen=True)
class Shape:
    """Where a part is, and how bright each of its pixels is.

    Attributes:
        mask: bool [64, 64].
        light: float64 [64, 64], about -1 (shadow) to 1 (light from the upper left).
    """

    mask: NDArray[np.bool_]
    light: NDArray[np.float64]

    def above(self, y: float) -> Shape:
        """The part of the shape above a line."""
        return Shape(self.mask & (y > _Y), self.light)

    def below(self, y: float) -> Shape:
        """The part of the shape below a line."""
        return Shape(self.mask & (y <= _Y), self.light)

    def left_of(self, x: float) -> Shape:
        """The part of the shape left of a line."""
        return Shape(self.mask & (x > _X), self.light)

    def without(self, other: Shape) -> Shape:
        """The shape with another cut out."""
        return Shape(self.mask & ~other.mask, self.light)

    def joined(self, other: Shape) -> Shape:
        """Both shapes under one outline."""
        return Shape(self.mask | other.mask, np.where(self.mask, self.light, other.light))

    def streaked(self, every: int) -> Shape:
        """With slanted streaks of light and shadow, as of hair or cloth."""
        streak = (2 * _X.astype(int) + _Y.astype(int)) % every
        return Shape(self.mask, self.light + np.where(streak < 2, 0.35, np.where(streak > every - 2, -0.3, 0.0)))


def ellipse(x: float, y: float, radius_x: float, radius_y: float) -> Shape:
    """An ellipse about (x, y)."""
    across, down = (_X - x) / radius_x, (_Y - y) / radius_y
    return Shape(across * across + down * down <= 1.0, -0.55 * across - 0.8 * down)


def limb(start: tuple[float, float], end: tuple[float, float], thick: float, thin: float) -> Shape:
    """A rounded stroke whose radius goes from ``thick`` to ``thin``."""
    step_x, step_y = end[0] - start[0], end[1] - start[1]
    length = max(step_x * step_x + step_y * step_y, 1e-9)
    along = np.clip(((_X - start[0]) * step_x + (_Y - start[1]) * step_y) / length, 0.0, 1.0)
    radius = thick + (thin - thick) * along
    across, down = (_X - start[0] - along * step_x) / radius, (_Y - start[1] - along * step_y) / radius
    return Shape(across * across + down * down <= 1.0, -0.7 * across - 0.4 * down)


def trapezium(x: float, top: float, bottom: float, half_top: float, half_bottom: float, lean: float = 0.0) -> Shape:
    """A trapezium with level edges; ``lean`` moves its top sideways."""
    down = (_Y - top) / (bottom - top)
    half = half_top + (half_bottom - half_top) * down
    across = (_X - x - lean * (1.0 - down)) / np.maximum(half, 0.5)
    return Shape((down >= 0) & (down <= 1) & (np.abs(across) <= 1.0), -0.75 * across - 0.5 * down + 0.2)


def paint(canvas: NDArray[np.uint8], shape: Shape, colour: Colour, *, outline: bool = True) -> None:
    """Paints a shape in four tones of a colour, with a dark outline inside its edge.

    Args:
        canvas: uint8 [64, 64, 3], changed in place.
        shape: what to paint.
        colour: its middle tone.
        outline: whether the edge is darkened.
    """
    tones = np.array(
        [[min(255, int(value * factor) + more) for value, more in zip(colour, lift, strict=True)]
         for _, factor, lift in _TONES] + [[int(value * _OUTLINE) for value in colour]],
        dtype=np.uint8,
    )  # fmt: skip
    where = np.flatnonzero(shape.mask)
    tone = np.searchsorted(_EDGES, shape.light.ravel()[where], side="right")
    if outline:
        mask = np.zeros((CANVAS + 2, CANVAS + 2), bool)
        mask[1:-1, 1:-1] = shape.mask
        inside = mask[:-2, 1:-1] & mask[2:, 1:-1] & mask[1:-1, :-2] & mask[1:-1, 2:]
        tone[~inside.ravel()[where]] = len(_TONES)
    canvas.reshape(-1, 3)[where] = tones[tone]


def dots(canvas: NDArray[np.uint8], places: Sequence[tuple[int, int, int, int]], colour: Colour) -> None:
    """Paints flat rectangles (x, y, width, height)."""
    for x, y, width, height in places:
        canvas[y : y + height, x : x + width] = colour
