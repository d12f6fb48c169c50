"""From stored numbers to pixels, fast: the full sum of the codec on all cores.

The sum leaves out only what lies beyond ``decode_box.CUT`` marginal standard deviations, where a weight is below 1e-13:
no 8-bit value can change. ``encoders.render`` is its oracle.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreMismatchError
from data_schemas.splats import CODECS, NORMALISED, OVER, Layout

DEAD_BELOW = 0.5 / 255
"""A Gaussian whose greatest contribution to any pixel is smaller cannot be seen: it is counted as dead."""


def decode_with_dead(
    splats: NDArray[Any], *, layout: Layout, codec: str, height: int, width: int, workers: int | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Decodes splats and counts those that cannot be seen, in one rendering.

    A Gaussian is dead where its greatest contribution to a pixel is below half an 8-bit step. For ``normalised/1`` the
    weight before the division counts as a contribution, for ``over/1`` the share of the pixel that it covers as seen
    from the front: a black Gaussian darkens its place.

    Args:
        splats: float16 or float32 [image, gaussian, parameter] in ``layout``.
        layout: the columns of ``splats``.
        codec: one of ``CODECS``.
        height: rows of the decoded image.
        width: columns of the decoded image.
        workers: threads; None takes every core. The result does not depend on it.

    Returns:
        float32 [image, height, width, channel] in [0, 1], and int32 [image].

    Raises:
        StoreMismatchError: an unknown codec, or splats of another shape than the layout's.
    """
    if codec not in CODECS:
        raise StoreMismatchError(f"Codec {codec!r} cannot be decoded", allowed=", ".join(CODECS))
    if splats.ndim != 3 or splats.shape[2] != layout.width:
        raise StoreMismatchError(
            f"Splats of shape {splats.shape}", allowed=f"[image, gaussian, {layout.width}] for layout {layout.name!r}"
        )
    # Inside: who imports this module for its rounding, or for a decoder that may never be called, needs no Numba.
    from encoders.cpu.decode import decode_over, decode_sums

    numbers = np.asarray(splats, np.float32)
    images, gaussians, _ = numbers.shape
    geometry = np.ascontiguousarray(
        numbers[..., [layout.index(name) for name in ("sigma_x", "sigma_y", "rho", "x", "y")]]
    )
    colours = np.ascontiguousarray(numbers[..., layout.colour_slice])
    opacity = numbers[..., layout.index("alpha")] if layout.has_alpha else np.ones((images, gaussians), np.float32)
    opacity = np.ascontiguousarray(opacity)
    planes = [colours * opacity[..., None]]
    if codec == NORMALISED:
        planes.append(opacity[..., None])
    summed = np.ascontiguousarray(np.concatenate(planes, axis=-1))
    result = np.empty((images, height, width, layout.channels), np.float32)
    peaks = np.empty((images, gaussians), np.float32)

    def part(rows: slice) -> None:
        if codec == OVER:
            decode_over(geometry[rows], colours[rows], opacity[rows], height, width, result[rows], peaks[rows])
            return
        decode_sums(geometry[rows], summed[rows], codec == NORMALISED, height, width, result[rows], peaks[rows])

    threads = max(1, min(workers or os.cpu_count() or 1, images))
    if threads == 1:
        part(slice(None))
    else:
        size = -(-images // (4 * threads))
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(part, [slice(first, first + size) for first in range(0, images, size)]))
    # The plane of weights counts too: in a normalised sum a black Gaussian darkens its place.
    contributions = peaks if codec == OVER else peaks * np.abs(summed).max(axis=-1, initial=0)
    return result, (contributions < DEAD_BELOW).sum(axis=1, dtype=np.int32)


def decode(
    splats: NDArray[Any], *, layout: Layout, codec: str, height: int, width: int, workers: int | None = None
) -> NDArray[np.float32]:
    """Decodes splats to images at any resolution.

    Args:
        splats: float16 or float32 [image, gaussian, parameter] in ``layout``.
        layout: the columns of ``splats``.
        codec: one of ``CODECS``.
        height: rows of the decoded image.
        width: columns of the decoded image.
        workers: threads; None takes every core. The result does not depend on it.

    Returns:
        float32 [image, height, width, channel] in [0, 1].

    Raises:
        StoreMismatchError: an unknown codec, or splats of another shape than the layout's.
    """
    return decode_with_dead(splats, layout=layout, codec=codec, height=height, width=width, workers=workers)[0]


def to_uint8(image: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Rounds intensities in [0, 1] to 8 bits: floor(255 v + 0.5).

    Args:
        image: floats of any shape.

    Returns:
        uint8 of the same shape.
    """
    # In place: of a large image every copy is hundreds of megabytes.
    levels = np.asarray(np.clip(image, 0, 1) * np.float32(255))
    levels += np.float32(0.5)
    return np.floor(levels, out=levels).astype(np.uint8)
