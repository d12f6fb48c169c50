"""One image's splats as SVG: a radial gradient for each Gaussian, added or laid over each other by the viewer.

The profile exp(-r^2 / 2) becomes a line of stops out to ``REACH`` standard deviations. ``additive/1`` is drawn with
``mix-blend-mode: plus-lighter``, ``over/1`` back to front. Differences to the codec: light cannot be negative or
brighter than 1 in one Gaussian (such colours are cut and counted), the profile is piecewise straight, and viewers
round to 8 bits after every Gaussian. ``as_viewers_show`` computes what that costs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.splats import NORMALISED, OVER, Layout

REACH = 3.5
"""Standard deviations at which a gradient ends: 0.2 % of its middle."""

STOPS = 15
_DECIMALS = 5


def stops() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Offsets (share of ``REACH``) and opacities of the gradient's stops; the last is 0."""
    offsets = np.linspace(0, 1, STOPS)
    opacities: NDArray[np.float64] = np.exp(-0.5 * (offsets * REACH) ** 2).astype(np.float64)
    opacities[-1] = 0
    return np.round(offsets, _DECIMALS), np.round(opacities, _DECIMALS)


def svg_of(splats: NDArray[Any], *, layout: Layout, codec: str, height: int, width: int) -> tuple[str, int]:
    """Writes one image.

    Args:
        splats: [gaussian, parameter].
        layout: its columns.
        codec: ``additive/1`` or ``over/1``.
        height: rows of the image.
        width: columns of the image.

    Returns:
        The document, and how many Gaussians have a colour outside [0, 1] that was cut.

    Raises:
        JobError: a weighted mean, which SVG cannot draw.
    """
    geometry, colours, opacity, cut = _drawable(splats, layout, codec)
    offsets, shares = stops()
    blend = "" if codec == OVER else ' style="mix-blend-mode:plus-lighter"'
    definitions, shapes = [], []
    for index, ((a, b, c, x, y), colour, alpha) in enumerate(
        zip(_pixel_frames(geometry, height, width), colours, opacity, strict=True)
    ):
        red, green, blue = (f"{100 * channel:.3f}%" for channel in np.broadcast_to(colour, 3))
        points = "".join(
            f'<stop offset="{offset:g}" stop-color="rgb({red},{green},{blue})" stop-opacity="{share * alpha:.5g}"/>'
            for offset, share in zip(offsets, shares, strict=True)
        )
        # The lower triangle of the covariance's root, times the reach, turns the unit circle into the ellipse.
        matrix = f"matrix({a * REACH:.5g} {b * REACH:.5g} 0 {c * REACH:.5g} {x:.5g} {y:.5g})"
        definitions.append(
            f'<radialGradient id="g{index}" gradientUnits="userSpaceOnUse" cx="0" cy="0" r="1" '
            f'gradientTransform="{matrix}">{points}</radialGradient>'
        )
        shapes.append(f'<rect width="{width}" height="{height}" fill="url(#g{index})"{blend}/>')
    if codec == OVER:
        shapes.reverse()
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}">',
        f"<desc>{len(splats)} Gaussians, codec {codec}; {cut} with a colour outside of [0, 1], cut</desc>",
        "<defs>",
        *definitions,
        "</defs>",
        '<g style="isolation:isolate">',
        f'<rect width="{width}" height="{height}" fill="#000"/>',
        *shapes,
        "</g>",
        "</svg>",
        "",
    ]
    return "\n".join(lines), cut


def as_viewers_show(splats: NDArray[Any], *, layout: Layout, codec: str, height: int, width: int) -> NDArray[np.uint8]:
    """The document drawn by the rules of SVG and CSS compositing, rounded to 8 bits after every Gaussian.

    Args:
        splats: as for :func:`svg_of`.
        layout: the same.
        codec: the same.
        height: the same.
        width: the same.

    Returns:
        uint8 [row, column, channel].

    Raises:
        JobError: as :func:`svg_of`.
    """
    geometry, colours, opacity, _ = _drawable(splats, layout, codec)
    offsets, shares = stops()
    rows, columns = np.mgrid[:height, :width] + 0.5
    canvas = np.zeros((height, width, layout.channels))
    order = range(len(splats))
    frames = list(_pixel_frames(geometry, height, width))
    for index in reversed(order) if codec == OVER else order:
        a, b, c, x, y = frames[index]
        # The inverse of the lower triangle: what is round there is an ellipse here.
        u = (columns - x) / a
        v = (rows - y - b * u) / c
        share = np.interp(np.hypot(u, v) / REACH, offsets, shares, right=0)[..., None] * opacity[index]
        added = share * colours[index]
        canvas = canvas * (1 - share) + added if codec == OVER else canvas + added
        canvas = np.floor(np.clip(canvas, 0, 1) * 255 + 0.5) / 255
    return np.round(canvas * 255).astype(np.uint8)


def _drawable(
    splats: NDArray[Any], layout: Layout, codec: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], int]:
    """Geometry [gaussian, 5], colours [gaussian, channel] in [0, 1], opacities [gaussian], number of cut ones."""
    if codec == NORMALISED:
        raise JobError(
            f"Codec {codec} as SVG: viewers cannot draw a weighted mean",
            allowed="additive/1, over/1",
            next_step="encode with --codec additive, or export a PNG with splatspace render",
        )
    values = splats.astype(np.float64)
    geometry = values[:, [layout.index(name) for name in ("sigma_x", "sigma_y", "rho", "x", "y")]]
    colours = values[:, layout.colour_slice]
    opacity = values[:, layout.index("alpha")] if layout.has_alpha else np.ones(len(values))
    cut = int(((colours < 0) | (colours > 1)).any(axis=1).sum())
    return geometry, colours.clip(0, 1), opacity.clip(0, 1), cut


def _pixel_frames(
    geometry: NDArray[np.float64], height: int, width: int
) -> list[tuple[float, float, float, float, float]]:
    """(a, b, c, x, y) of each Gaussian in pixels: [[a, 0], [b, c]] is the lower root of its covariance."""
    sigma_x, sigma_y = geometry[:, 0] * width / 2, geometry[:, 1] * height / 2
    rho = geometry[:, 2]
    root = np.sqrt(np.maximum(1 - rho**2, 1e-6))
    x, y = (geometry[:, 3] + 1) / 2 * width, (geometry[:, 4] + 1) / 2 * height
    return [tuple(row) for row in np.stack([sigma_x, rho * sigma_y, root * sigma_y, x, y], axis=1).tolist()]
