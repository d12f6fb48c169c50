"""Splats as an image of what they are: one-sigma ellipses in their own colours."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from data_schemas.errors import JobError
from data_schemas.splats import Layout

BACKGROUND = (16, 18, 24)
"""RGB behind the ellipses: dark, but no black, so that a black Gaussian still shows."""

_OUTLINE = (92, 98, 112)
_OVERSAMPLING = 3
_MAXIMUM_SIDE = 4096
_POINTS = 48
_FILL_OPACITY = 205


def draw_ellipses(
    splats: NDArray[Any], layout: Layout, height: int, width: int, size_px: int, *, outline: bool = True
) -> Image.Image:
    """Draws the one-sigma ellipse of every Gaussian, the largest at the back.

    Args:
        splats: float [gaussian, parameter]; ones that are not finite are left out.
        layout: names the parameters.
        height: rows of the image that the splats stand for; with ``width`` it decides the aspect.
        width: columns of the image.
        size_px: longer side of the drawing in pixels, 1 to 4096.
        outline: draw a thin grey line around each ellipse, so that dark ones can be told from the background.

    Returns:
        RGB image. The colour of an ellipse is its Gaussian's, clipped to [0, 1]; its opacity is that of the Gaussian
        times 0.8, so that what lies below shows through.

    Raises:
        JobError: ``size_px`` out of range, or splats of another shape than the layout's.
    """
    if not 1 <= size_px <= _MAXIMUM_SIDE:
        raise JobError(f"A drawing of {size_px} pixels", allowed=f"1 to {_MAXIMUM_SIDE} pixels on the longer side")
    if splats.ndim != 2 or splats.shape[1] != layout.width:
        raise JobError(
            f"Splats of shape {splats.shape}", allowed=f"[gaussian, {layout.width}] for layout {layout.name!r}"
        )
    size = (max(1, round(size_px * width / max(width, height))), max(1, round(size_px * height / max(width, height))))
    scale = max(1, min(_OVERSAMPLING, _MAXIMUM_SIDE // size_px))
    canvas = Image.new("RGB", (size[0] * scale, size[1] * scale), BACKGROUND)
    draw = ImageDraw.Draw(canvas, "RGBA")
    numbers = np.asarray(splats, np.float64)
    numbers = numbers[np.isfinite(numbers).all(axis=1)]
    line = max(1, round(scale * size_px / 400)) if outline else 0
    area = np.abs(numbers[:, layout.index("sigma_x")] * numbers[:, layout.index("sigma_y")])
    for splat in numbers[np.argsort(-area, kind="stable")]:
        opacity = float(np.clip(splat[layout.index("alpha")], 0, 1)) if layout.has_alpha else 1.0
        colour = tuple(int(v) for v in np.floor(np.clip(splat[layout.colour_slice], 0, 1) * 255 + 0.5))
        points = [(float(x), float(y)) for x, y in ellipse_points(splat, layout, canvas.width, canvas.height)]
        fill = (*(colour * 3 if len(colour) == 1 else colour), round(opacity * _FILL_OPACITY))
        draw.polygon(points, fill=fill)
        if line:
            draw.line([*points, points[0]], fill=(*_OUTLINE, round(80 + 80 * opacity)), width=line)
    return canvas.resize(size, Image.Resampling.BOX) if scale > 1 else canvas


def ellipse_points(splat: NDArray[Any], layout: Layout, width: int, height: int) -> NDArray[np.float64]:
    """Points of the one-sigma ellipse, (p - m)^T S^-1 (p - m) = 1, on a canvas.

    The points are m + L (cos t, sin t) with L the Cholesky factor of S.

    Args:
        splat: float [parameter].
        layout: names the parameters.
        width: of the canvas in pixels.
        height: of the canvas in pixels.

    Returns:
        float64 [point, 2] (x, y) in pixels from the upper left corner, within ten canvas sizes of it.
    """
    sigma_x, sigma_y, rho, x, y = (float(splat[layout.index(n)]) for n in ("sigma_x", "sigma_y", "rho", "x", "y"))
    rho = min(max(rho, -1.0), 1.0)
    angle = np.linspace(0, 2 * math.pi, _POINTS, endpoint=False)
    along = x + sigma_x * np.cos(angle)
    down = y + sigma_y * (rho * np.cos(angle) + math.sqrt(1 - rho * rho) * np.sin(angle))
    points = np.stack([(along + 1) / 2, (down + 1) / 2], axis=1)
    return np.clip(points, -10, 10) * (width, height)
