"""The rotated layout: two principal deviations in pixels, an angle, opacity, three colours and a centre, activated.

Centres: pixel coordinate 0.5 * side * x + 0.5 * side. The public rasteriser of these files has the centre of pixel j
at coordinate j, half a pixel from a store's, whose x covers the image from edge to edge.
"""

from __future__ import annotations

import numpy as np

from data_schemas.published_layouts.covariance import Floats, from_principal, keep_invertible, to_principal
from data_schemas.published_layouts.options import AngleSense, PixelCentre
from data_schemas.published_layouts.rows import UnreadableImageError
from data_schemas.splats import RGB, Layout


def _offset(pixel_centre: PixelCentre) -> float:
    """Pixels from the published coordinate of a pixel's centre to j + 0.5."""
    return 0.5 if pixel_centre == "integer" else 0.0


def to_splats(
    fields: dict[str, Floats], height: int, width: int, *, pixel_centre: PixelCentre, angle: AngleSense
) -> Floats:
    """Columns of a store from one published image.

    Args:
        fields: ``scaling`` [K, 2] pixels, ``rotation`` [K, 1] radians, ``opacity`` [K, 1], ``features`` [K, 3],
            ``xyz`` [K, 2].
        height: of the image in pixels.
        width: of the image in pixels.
        pixel_centre: where the rasteriser has the centre of pixel j.
        angle: in which sense a rotation turns.

    Returns:
        float64 [K, 8] in layout ``rgb``, the opacity multiplied into the colours.

    Raises:
        UnreadableImageError: a number is not finite or a deviation is negative.
    """
    if not all(np.all(np.isfinite(values)) for values in fields.values()):
        raise UnreadableImageError("values that are not finite")
    scaling = fields["scaling"]
    if np.any(scaling < 0):
        raise UnreadableImageError("negative deviations")
    turn = fields["rotation"][:, 0] * (-1.0 if angle == "up" else 1.0)
    sigma_x, sigma_y, rho = from_principal(scaling[:, 0], scaling[:, 1], turn)
    splats = np.empty((len(scaling), RGB.width))
    sigmas = np.stack([sigma_x * 2 / width, sigma_y * 2 / height], axis=1)
    splats[:, :2], splats[:, 2:3] = keep_invertible(sigmas, rho[:, None])
    splats[:, RGB.colour_slice] = fields["features"] * fields["opacity"]
    splats[:, -2] = fields["xyz"][:, 0] + 2 * _offset(pixel_centre) / width
    splats[:, -1] = fields["xyz"][:, 1] + 2 * _offset(pixel_centre) / height
    return splats


def from_splats(
    splats: Floats, layout: Layout, height: int, width: int, *, pixel_centre: PixelCentre, angle: AngleSense
) -> dict[str, Floats]:
    """The published fields of one image: the inverse of ``to_splats``; grey becomes three equal colours.

    Args:
        splats: float64 [K, parameter] in ``layout``, without alpha.
        layout: the columns of ``splats``.
        height: of the image in pixels.
        width: of the image in pixels.
        pixel_centre: where the rasteriser has the centre of pixel j.
        angle: in which sense a rotation turns.
    """
    major, minor, turn = to_principal(splats[:, 0] * width / 2, splats[:, 1] * height / 2, splats[:, 2])
    if angle == "up":
        turn = np.mod(-turn, np.pi)
        turn = np.where(turn >= np.pi, 0.0, turn)
    centres = splats[:, -2:] - 2 * _offset(pixel_centre) / np.array([width, height])
    colours = splats[:, layout.colour_slice]
    return {
        "scaling": np.stack([major, minor], axis=1),
        "rotation": turn[:, None],
        "opacity": np.ones((len(splats), 1)),
        "features": np.repeat(colours, 3, axis=1) if layout.channels == 1 else colours,
        "xyz": centres,
    }
