"""Where Gaussians begin, by ``start``: the same for every engine.

* ``grid``: the anchors themselves (``encoders.start.tables``).
* ``transport``: an entropic optimal-transport map carries the anchors to where the image needs them. The map is
  smooth in the image, and Gaussian i keeps index i: nearly equal images begin nearly equal, slot by slot.
* ``adaptive``: one point in each of K strata of equal mass along a Hilbert curve, then Lloyd's iteration: the best
  places, without an order that images share.

All three then size each Gaussian by its distance to its neighbours and colour it by the pixels under it.
"""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import ADDITIVE
from encoders.base import LARGE_PIXELS, FitSettings
from encoders.frame import COLOUR
from encoders.start.tables import StartRecipe, anchors, cached_tables, transport_levels

if TYPE_CHECKING:
    from encoders.team import Team

__all__ = ["StartRecipe", "Starts", "anchors", "begin"]


class Starts(Protocol):
    """Starts that an engine is handed instead of those of this module."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As :func:`begin`; what an image is given depends on its pixels alone."""
        ...

    def recipe(self) -> dict[str, Any]:
        """What decides them, for the store's attributes (JSON types only)."""
        ...


@lru_cache(maxsize=8)
def _hilbert(height: int, width: int) -> NDArray[np.int32]:
    """Pixels of a height x width image along a Hilbert curve of the next power of two."""
    order = max(1, (max(height, width) - 1).bit_length())
    x, y = np.zeros(1, np.int32), np.zeros(1, np.int32)
    for side in (1 << level for level in range(order)):
        # Four copies of the curve so far: mirrored at the diagonal, above, beside that, mirrored at the other diagonal.
        x, y = (
            np.concatenate([y, x, x + side, 2 * side - 1 - y]),
            np.concatenate([x, y + side, y + side, side - 1 - x]),
        )
    inside = (x < width) & (y < height)
    return (y[inside] * width + x[inside]).astype(np.int32)


def _offset(image: NDArray[np.uint8], seed: int) -> float:
    """A number in [0, 1) that depends on the seed and the pixels only."""
    digest = hashlib.blake2b(image.tobytes(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") / 2**64


def begin(
    images: NDArray[np.uint8], settings: FitSettings, recipe: StartRecipe | None = None, team: Team | None = None
) -> NDArray[np.float32]:
    """Pixel-frame parameters of K Gaussians for every image.

    Args:
        images: uint8 [image, height, width, channel].
        settings: K, start, seed and codec.
        recipe: constants of the starts; None takes the defaults.
        team: threads that share large images (``encoders.base.LARGE_PIXELS``); None works in this one.

    Returns:
        float32 [image, gaussian, 5 + channel] (encoders.frame); the team does not change it.
    """
    # Inside: recipes are read, and engines made, where nothing is fitted; the kernel brings Numba.
    from encoders.start.kernel import ADAPTIVE, GRID, TRANSPORT, begin_images

    recipe = recipe or StartRecipe()
    count, height, width, channels = images.shape
    gaussians = settings.gaussians
    kind = {"grid": GRID, "transport": TRANSPORT, "adaptive": ADAPTIVE}[settings.start]
    images = np.ascontiguousarray(images)
    # Only what the start needs: a table of 64x64 images and K=500 takes megabytes.
    levels = transport_levels(recipe.epsilons, gaussians) if kind == TRANSPORT else ()
    curve = _hilbert(height, width) if kind == ADAPTIVE else np.empty(0, np.int32)
    offsets = np.array([_offset(image, settings.seed) if kind == ADAPTIVE else 0.0 for image in images])
    frames = np.empty((count, gaussians, COLOUR + channels), np.float32)
    points = anchors(gaussians, height, width)
    weights = np.array([recipe.ink, recipe.edge, recipe.adaptive_floor if kind == ADAPTIVE else recipe.floor])
    brightness = recipe.brightness if settings.codec == ADDITIVE else 1.0
    if team is not None or height * width >= LARGE_PIXELS:
        from encoders.start.shared import begin_shared
        from encoders.team import Team

        with nullcontext(team) if team is not None else Team(1) as threads:
            for image, offset, frame in zip(images, offsets, frames, strict=True):
                positions = points.copy()
                begin_shared(image, kind, positions, weights, levels, recipe, curve, offset, brightness, frame, threads)
        return frames
    begin_images(
        images,
        kind,
        points,
        weights,
        *cached_tables(gaussians, height, width, levels),
        np.array(levels, np.float32),
        recipe.iterations,
        curve,
        offsets,
        recipe.lloyd_rounds,
        recipe.spread,
        brightness,
        frames,
    )
    return frames
