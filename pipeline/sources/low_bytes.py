"""The low bytes of colours of 16 bits, of which Pillow keeps the high ones only."""

from __future__ import annotations

import io
import sys

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.sources.orientation import load_as_stored
from pipeline.sources.pixel_kinds import mend_planes, raw_modes

_GREY_AND_ALPHA = "LA;16B"


def low_bytes(data: bytes, kind: str) -> NDArray[np.uint8]:
    """Decodes an image file once more, for the other byte of each sample.

    Args:
        data: the file, of 16-bit colours.
        kind: Pillow's name of its format.

    Returns:
        uint8 [row, column, channel], as stored, not turned.
    """
    image = Image.open(io.BytesIO(data), formats=(kind,))
    mend_planes(image)
    grey_and_alpha = _GREY_AND_ALPHA in raw_modes(image)
    tiles = getattr(image, "tile", [])
    for number, tile in enumerate(tiles):
        first, *rest = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        swapped = _swapped(str(first))
        tiles[number] = tile._replace(args=(swapped, *rest) if isinstance(tile.args, tuple) else swapped)
    values = np.asarray(load_as_stored(image))
    return values[..., 1:2] if grey_and_alpha else values


def _swapped(raw: str) -> str:
    """The raw mode that takes a sample for one of the other byte order, so that the byte it keeps is the low one."""
    if raw == _GREY_AND_ALPHA:
        return "RGBA"  # of no other order; as four bytes they are grey high, grey low, alpha high, alpha low
    name, _, order = raw.rpartition(";16")
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    return f"{name};16{'B' if little else 'L'}"
