"""Many images in one, and how many are in memory at once: a bound in bytes, since number and size are the user's."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BACKGROUND = 32
"""Grey between the images."""

LARGEST_GRID = 16_384
"""Pixels of a side, beyond which viewers refuse; further images are only left out of the grid, and counted."""

PORTION_BYTES = 128 * 2**20
"""Most memory of one portion; a single image may need more."""

BYTES_OF_A_VALUE = 14
"""Of one channel of one pixel while it is decoded: the sum and its plane, the intensity, the rounded copy, 8 bits."""


def picture_of(pixels: NDArray[np.uint8]) -> Image.Image:
    """One image [row, column, channel] with 1 or 3 channels as an image."""
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


class Grid:
    """Images row by row, placed as they come.

    Args:
        number: of all images that there will be, at least one.
        height: rows of each.
        width: columns of each.
        channels: 1 or 3.
        columns: images in a row; None makes the grid as square as their number allows.
        gap: pixels between images.
        smallest: pixels of the longer side below which images are enlarged by a whole factor.

    Attributes:
        room: images that can still be placed: as many as come, unless the grid would have more than
            ``LARGEST_GRID`` pixels a side.
    """

    def __init__(
        self,
        number: int,
        height: int,
        width: int,
        channels: int,
        *,
        columns: int | None = None,
        gap: int = 2,
        smallest: int = 64,
    ) -> None:
        self._factor = max(1, smallest // max(height, width))
        self._height, self._width, self._gap = height * self._factor + gap, width * self._factor + gap, gap
        wanted = columns or math.ceil(math.sqrt(number))
        self._across = max(1, min(wanted, (LARGEST_GRID - gap) // self._width))
        down = min(-(-number // self._across), max(1, (LARGEST_GRID - gap) // self._height))
        self.room = min(number, self._across * down)
        self._placed = 0
        size = gap + down * self._height, gap + self._across * self._width, channels
        self._canvas = np.full(size, BACKGROUND, np.uint8)

    def add(self, images: NDArray[np.uint8]) -> None:
        """Places images, uint8 [image, row, column, channel], as far as there is room."""
        for image in images[: self.room]:
            enlarged = image.repeat(self._factor, axis=0).repeat(self._factor, axis=1)
            row, column = divmod(self._placed, self._across)
            top, left = self._gap + row * self._height, self._gap + column * self._width
            self._canvas[top : top + len(enlarged), left : left + enlarged.shape[1]] = enlarged
            self._placed += 1
            self.room -= 1

    def picture(self) -> Image.Image:
        """The grid as it is."""
        return picture_of(self._canvas)


def grid_of(
    images: NDArray[np.uint8], *, columns: int | None = None, gap: int = 2, smallest: int = 64
) -> tuple[Image.Image, int]:
    """Images row by row.

    Args:
        images: uint8 [image, row, column, channel], 1 or 3 channels, at least one image.
        columns: images in a row; None makes the grid as square as their number allows.
        gap: pixels between images.
        smallest: pixels of the longer side below which images are enlarged by a whole factor.

    Returns:
        The grid, and how many images it shows: all, unless it would have more than ``LARGEST_GRID`` pixels a side.
    """
    number, height, width, channels = images.shape
    grid = Grid(number, height, width, channels, columns=columns, gap=gap, smallest=smallest)
    shown = grid.room
    grid.add(images)
    return grid.picture(), shown


def side_by_side(pictures: list[Image.Image], *, gap: int = 4) -> Image.Image:
    """Images of one height beside each other, in colour."""
    height = max(picture.height for picture in pictures)
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (width, height), (BACKGROUND,) * 3)
    left = 0
    for picture in pictures:
        canvas.paste(picture.convert("RGB"), (left, 0))
        left += picture.width + gap
    return canvas


def below_each_other(pictures: list[Image.Image], *, gap: int = 0) -> Image.Image:
    """Images of any size below each other, in colour, on white."""
    height = sum(picture.height for picture in pictures) + gap * (len(pictures) - 1)
    canvas = Image.new("RGB", (max(picture.width for picture in pictures), height), "white")
    top = 0
    for picture in pictures:
        canvas.paste(picture.convert("RGB"), (0, top))
        top += picture.height + gap
    return canvas


def pictures_at_once(height: int, width: int, channels: int) -> int:
    """Images of one size that may be decoded together: at least one.

    Args:
        height: rows.
        width: columns.
        channels: 1 or 3.
    """
    return max(1, PORTION_BYTES // (height * width * channels * BYTES_OF_A_VALUE))


def portions(count: int, at_once: int) -> Iterator[slice]:
    """Slices that go through ``count`` things, ``at_once`` at a time."""
    for first in range(0, count, at_once):
        yield slice(first, min(first + at_once, count))
