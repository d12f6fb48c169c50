"""Where Gaussians begin, by ``start``: the same for every engine.

* ``grid``: the anchors themselves (``encoders.start.begin``).
* ``transport``: an entropic optimal-transport map carries the anchors to where the image needs them. The map is
  smooth in the image, and Gaussian i keeps index i: nearly equal images begin nearly equal, slot by slot.
* ``adaptive``: one point in each of K strata of equal mass along a Hilbert curve, then Lloyd's iteration: the best
  places, without an order that images share.

All three then size each Gaussian by its distance to its neighbours and colour it by the pixels under it.

Anchors: K fixed points of the image extent, in an order that every image of a store shares.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import ADDITIVE
from encoders.base import LARGE_PIXELS, FitSettings
from encoders.frame import COLOUR

if TYPE_CHECKING:
    from encoders.team import Team

__all__ = ["StartRecipe", "Starts", "anchors", "begin"]

_Tables = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


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


class Starts(Protocol):
    """Starts that an engine is handed instead of those of this module."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """As :func:`begin`; what an image is given depends on its pixels alone."""
        ...

    def recipe(self) -> dict[str, Any]:
        """What decides them, for the store's attributes (JSON types only)."""
        ...


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


def make_tables(gaussians: int, height: int, width: int, epsilons: tuple[float, ...]) -> _Tables:
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


_tables = lru_cache(maxsize=8)(make_tables)


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
        *_tables(gaussians, height, width, levels),
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
