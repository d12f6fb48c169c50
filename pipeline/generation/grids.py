"""Many pictures in one."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BACKGROUND = 32
"""Grey between the pictures."""

LARGEST_GRID = 16_384
"""Pixels of a side, beyond which viewers refuse; further pictures are only left out of the grid, and counted."""


def picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """One image [row, column, channel] with 1 or 3 channels as a picture."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def grid_of(
    images: NDArray[np.uint8], *, columns: int | None = None, gap: int = 2, smallest: int = 64
) -> tuple[Image.Image, int]:
    """Pictures row by row.

    Args:
        images: uint8 [image, row, column, channel], 1 or 3 channels, at least one image.
        columns: pictures in a row; None makes the grid as square as their number allows.
        gap: pixels between pictures.
        smallest: pixels of the longer side below which pictures are enlarged by a whole factor.

    Returns:
        The grid, and how many pictures it shows: all, unless it would have more than ``LARGEST_GRID`` pixels a side.
    """
    factor = max(1, smallest // max(images.shape[1:3]))
    height, width = (side * factor for side in images.shape[1:3])
    wanted = columns or math.ceil(math.sqrt(len(images)))
    across = max(1, min(wanted, (LARGEST_GRID - gap) // (width + gap)))
    down = min(-(-len(images) // across), max(1, (LARGEST_GRID - gap) // (height + gap)))
    shown = images[: across * down]
    channels = images.shape[3]
    canvas = np.full((gap + down * (height + gap), gap + across * (width + gap), channels), BACKGROUND, np.uint8)
    for index, image in enumerate(shown):
        top, left = gap + index // across * (height + gap), gap + index % across * (width + gap)
        canvas[top : top + height, left : left + width] = image.repeat(factor, axis=0).repeat(factor, axis=1)
    return picture_of(canvas), len(shown)


def most_shown(height: int, width: int, *, gap: int = 2, smallest: int = 64) -> int:
    """How many pictures :func:`grid_of` can show at all, so that no more need be rendered for it.

    Args:
        height: rows of a picture.
        width: columns of a picture.
        gap: see there.
        smallest: see there.
    """
    factor = max(1, smallest // max(height, width))
    across, down = (max(1, (LARGEST_GRID - gap) // (side * factor + gap)) for side in (width, height))
    return across * down


def side_by_side(pictures: list[Image.Image], *, gap: int = 4) -> Image.Image:
    """Pictures of one height beside each other, in colour."""
    height = max(picture.height for picture in pictures)
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    left = 0
    for picture in pictures:
        canvas.paste(picture.convert("RGB"), (left, 0))
        left += picture.width + gap
    return canvas


def below_each_other(pictures: list[Image.Image], *, gap: int = 0) -> Image.Image:
    """Pictures of any size below each other, in colour, on white."""
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        canvas.paste(picture.convert("RGB"), (0, top))
        top += picture.height + gap
    return canvas
