"""Where Gaussians begin, by ``start``: the same for every engine.

* ``grid``: the anchors themselves (``encoders.anchors``).
* ``transport``: an entropic optimal-transport map carries the anchors to where the image needs them. The map is
  smooth in the image, and Gaussian i keeps index i: nearly equal images begin nearly equal, slot by slot.
* ``adaptive``: one point in each of K strata of equal mass along a Hilbert curve, then Lloyd's iteration: the best
  places, without an order that images share.

All three then size each Gaussian by its distance to its neighbours and colour it by the pixels under it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import ADDITIVE
from encoders.anchors import anchors
from encoders.base import FitSettings
from encoders.frame import B, COLOUR, LOG_A, LOG_C, X, Y
from encoders.start_kernel import local_colours, relax, saliency, spacings, stratify, transport
from encoders.vector import LANES

__all__ = ["StartRecipe", "anchors", "begin"]


@dataclass(frozen=True)
class StartRecipe:
    """Constants of the starts.

    Attributes:
        ink: weight of a pixel's brightness in the density of Gaussians.
        edge: weight of its contrast to its neighbours.
        floor: share of the Gaussians that is spread evenly over the image (``transport``).
        adaptive_floor: the same for ``adaptive``.
        epsilons: regularisation of the transport, level by level, in normalised units squared.
        iterations: Sinkhorn iterations of each level.
        lloyd_rounds: rounds of Lloyd's iteration (``adaptive``).
        spread: standard deviation of a Gaussian over the mean distance to its three nearest neighbours.
        brightness: colour of a Gaussian over the local mean of the pixels (additive sums overlap).
    """

    ink: float = 1.0
    edge: float = 1.0
    floor: float = 0.15
    adaptive_floor: float = 0.03
    epsilons: tuple[float, ...] = (0.5, 0.25, 0.12, 0.06, 0.03, 0.015)
    iterations: int = 6
    lloyd_rounds: int = 4
    spread: float = 0.51
    brightness: float = 0.5


@lru_cache(maxsize=8)
def _tables(gaussians: int, height: int, width: int, epsilons: tuple[float, ...]) -> tuple[NDArray[np.float32], ...]:
    """Gibbs kernels of every level along each axis, in the layouts of ``start_kernel.transport``."""
    points = anchors(gaussians, height, width).astype(np.float64)
    padded = -(-gaussians // LANES) * LANES
    wide = -(-width // LANES) * LANES
    xs, ys = (2 * np.arange(width) + 1) / width - 1, (2 * np.arange(height) + 1) / height - 1
    column = np.zeros((len(epsilons), width, padded), np.float32)
    row = np.zeros((len(epsilons), height, padded), np.float32)
    anchor = np.zeros((len(epsilons), gaussians, wide), np.float32)
    for level, epsilon in enumerate(epsilons):
        # At least 1e-30, so that no product of two underflows to a division by zero.
        gibbs_x = np.maximum(np.exp(-((xs[:, None] - points[:, 0]) ** 2) / epsilon), 1e-18)
        gibbs_y = np.maximum(np.exp(-((ys[:, None] - points[:, 1]) ** 2) / epsilon), 1e-18)
        column[level, :, :gaussians] = gibbs_x
        row[level, :, :gaussians] = gibbs_y
        anchor[level, :, :width] = gibbs_x.T
    levels = len(epsilons)
    return column.reshape(levels, -1), row.reshape(levels, -1), anchor.reshape(levels, -1)


@lru_cache(maxsize=8)
def _hilbert(height: int, width: int) -> NDArray[np.int32]:
    """Pixels of a height x width image along a Hilbert curve of the next power of two."""
    order = max(1, (max(height, width) - 1).bit_length())
    index = np.arange(1 << (2 * order), dtype=np.int64)
    x, y = np.zeros_like(index), np.zeros_like(index)
    rest, side = index.copy(), 1
    while side < 1 << order:
        rx = 1 & (rest >> 1)
        ry = 1 & (rest ^ rx)
        flip = (ry == 0) & (rx == 1)
        x, y = np.where(flip, side - 1 - x, x), np.where(flip, side - 1 - y, y)
        swap = ry == 0
        x, y = np.where(swap, y, x), np.where(swap, x, y)
        x, y = x + side * rx, y + side * ry
        rest >>= 2
        side *= 2
    inside = (x < width) & (y < height)
    return (y[inside] * width + x[inside]).astype(np.int32)


def _offset(image: NDArray[np.uint8], seed: int) -> float:
    """A number in [0, 1) that depends on the seed and the pixels only."""
    digest = hashlib.blake2b(image.tobytes(), digest_size=8, key=seed.to_bytes(8, "little")).digest()
    return int.from_bytes(digest, "little") / 2**64


def begin(images: NDArray[np.uint8], settings: FitSettings, recipe: StartRecipe | None = None) -> NDArray[np.float32]:
    """Pixel-frame parameters of K Gaussians for every image.

    Args:
        images: uint8 [image, height, width, channel].
        settings: K, start, seed and codec.
        recipe: constants of the starts; None takes the defaults.

    Returns:
        float32 [image, gaussian, 5 + channel] (encoders.frame).
    """
    recipe = recipe or StartRecipe()
    count, height, width, channels = images.shape
    gaussians = settings.gaussians
    points = anchors(gaussians, height, width)
    half = np.array([width / 2, height / 2], np.float32)
    frames = np.empty((count, gaussians, COLOUR + channels), np.float32)
    density = np.empty((height, width), np.float32)
    positions = np.empty((gaussians, 2), np.float32)
    distances = np.empty(gaussians, np.float32)
    colours = np.empty((gaussians, channels), np.float32)
    # Between a third of a pixel and the whole image; fewer than four Gaussians share the image evenly.
    fewest, most = 0.3, 0.5 * max(height, width)
    alone = 0.5 * (height * width / gaussians) ** 0.5
    for number, image in enumerate(np.ascontiguousarray(images)):
        if settings.start == "grid":
            positions[:] = (points + 1) * half
        elif settings.start == "transport":
            saliency(image, recipe.ink, recipe.edge, recipe.floor, density)
            tables = _tables(gaussians, height, width, recipe.epsilons)
            transport(density, *tables, np.array(recipe.epsilons, np.float32), recipe.iterations, gaussians, positions)
            positions += 1
            positions *= half
        else:
            saliency(image, recipe.ink, recipe.edge, recipe.adaptive_floor, density)
            stratify(density, _hilbert(height, width), _offset(image, settings.seed), positions)
            relax(density, positions, recipe.lloyd_rounds)
        spacings(positions, distances)
        local_colours(image, positions, colours)
        sigma = np.clip(np.where(np.isfinite(distances), recipe.spread * distances, alone), fewest, most)
        frame = frames[number]
        frame[:, X], frame[:, Y] = positions[:, 0], positions[:, 1]
        frame[:, LOG_A] = frame[:, LOG_C] = -np.log(sigma)
        frame[:, B] = 0
        frame[:, COLOUR:] = colours * (recipe.brightness if settings.codec == ADDITIVE else 1.0)
    return frames
