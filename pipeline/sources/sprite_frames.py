"""Where the pixels of Sprites come from: layer sheets, the ready array, or files of composed frames."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import ImageError
from pipeline.sources.decode_image import decode_image
from pipeline.sources.image_files import ImageFile
from pipeline.sources.sprite_sheets import CELL, CHARACTERS, SpriteSheets, halve


class Frames(Protocol):
    """Pixels by the numbers of image of the whole set, pose * 1296 + character."""

    def take(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
        """Pixels uint8 [size, size, 3], or why there are none."""
        ...


class ComposedFrames:
    """Composes on request and keeps nothing.

    Args:
        sheets: the layers.
        size: 64 or 32 pixels a side.
    """

    def __init__(self, sheets: SpriteSheets, size: int) -> None:
        self._sheets = sheets
        self._size = size

    def take(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
        """Pixels, or why there are none."""
        result = np.empty((len(numbers), self._size, self._size, 3), np.uint8)
        poses = numbers // CHARACTERS
        for pose in np.unique(poses):
            at = np.flatnonzero(poses == pose)
            result[at] = self._sheets.compose(int(pose), numbers[at] % CHARACTERS, half=self._size != CELL)
        return list(result)


class ArrayFrames:
    """The ready array, in memory.

    Args:
        images: uint8 [image, 32, 32, 3], all of them.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def take(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
        """Pixels, or why there are none."""
        return list(self._images[numbers])


class FileFrames:
    """Composed frames as PNG files.

    Args:
        files: by number of the image.
        size: 64 or 32 pixels a side.
    """

    def __init__(self, files: dict[int, ImageFile], size: int) -> None:
        self._files = files
        self._size = size

    def take(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
        """Pixels, or why there are none."""
        return [self._one(self._files[int(number)]) for number in numbers]

    def _one(self, file: ImageFile) -> NDArray[np.uint8] | str:
        try:
            with file.open() as stream:
                pixels = decode_image(stream.read(), colour=True)
        except (ImageError, OSError) as error:
            return str(error)
        if pixels.shape != (CELL, CELL, 3):
            return f"The frame has {pixels.shape[1]} x {pixels.shape[0]} pixels. Allowed: {CELL} x {CELL}."
        return pixels if self._size == CELL else halve(pixels[None])[0]
