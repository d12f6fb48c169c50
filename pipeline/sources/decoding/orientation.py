"""Which way up a photograph is: the orientation that cameras write beside the pixels, and turning by it.

The tag is 0x0112 of EXIF (CIPA DC-008, 4.6.4 A) and of TIFF 6.0; its eight values are the eight ways to lay down a
rectangle. Where a file has no EXIF value, Pillow takes ``tiff:Orientation`` of its XMP, and so does this.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

UPRIGHT = 1
"""The orientation of an image that is stored as it is seen."""

SIDEWAYS = (5, 6, 7, 8)
"""Orientations whose rows are the columns of what is seen."""


def orientation_of(image: Image.Image) -> int:
    """The orientation of an opened image, 1 to 8; decodes no pixels.

    Whatever else stands in the tag, and EXIF that cannot be read, means upright: the pixels are there all the same.
    In a PNG what stands before the pixels counts; in what comes after them Pillow would have to decode everything.
    """
    try:
        # Not the method of PNG itself, which decodes the pixels to look for EXIF behind them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, UPRIGHT)
    # EXIF is a small TIFF, written by every camera's own program; damaged, it may raise anything.
    except Exception:
        return UPRIGHT
    return value if type(value) is int and UPRIGHT <= value <= max(SIDEWAYS) else UPRIGHT


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Width and height of the pixels as they lie in the file, not turned.

    Of a TIFF Pillow gives the upright size from some version on, so here its own tags are asked.
    """
    tags: Any = getattr(image, "tag_v2", None)
    if tags is None:
        return image.size
    return int(tags[ExifTags.Base.ImageWidth]), int(tags[ExifTags.Base.ImageLength])


def load_as_stored(image: Image.Image) -> Image.Image:
    """Decodes the pixels as they lie in the file; Pillow on its own would turn a TIFF while decoding it.

    Args:
        image: just opened; its EXIF is emptied.

    Returns:
        The image with its stored size.
    """
    if hasattr(image, "tag_v2"):
        try:
            exif = Image.Image.getexif(image)
        except Exception:
            # As in ``orientation_of``; what could be read before the fault is given the second time.
            exif = Image.Image.getexif(image)
        for tag in list(exif):
            del exif[tag]
        image.info.pop("xmp", None)
    image.load()
    # Pillow has swapped the size of a TIFF that lies sideways and now holds pixels of the other: a copy agrees again.
    return image.copy() if image.size != image.im.size else image


def turn_upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns an image as a viewer does.

    Args:
        pixels: uint8 [row, column, channel] as stored.
        orientation: 1 to 8.

    Returns:
        uint8 [height, width, channel], a view.
    """
    if orientation in SIDEWAYS:
        pixels = pixels.transpose(1, 0, 2)
    # What is left is to mirror: the first row of the file is the visual top, bottom, left or right.
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
