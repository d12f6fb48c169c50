"""The pixels of a decoded image as 8-bit grey, RGB or RGBA, whatever the file held.

Of colours of 16 bits Pillow keeps the high bytes only; the low ones are read here.
"""

from __future__ import annotations

import io
import struct
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from pipeline.sources.decoding.background import colour_of
from pipeline.sources.decoding.orientation import load_as_stored
from pipeline.sources.decoding.pixel_kinds import WIDE_GREY_MODES, PixelKind, mend_planes, raw_modes

_GREY_AND_ALPHA = "LA;16B"

LEAST_SPAN = 16
"""Grey levels between the darkest and the brightest pixel, below which an image that had more than 8 bits is called
flattened: numbers of 12 bits in a file that declares 16 span 15 of 255, numbers of 8 bits none."""

_GREY_MODES = ("1", "L")
_PREMULTIPLIED = {"La": "LA", "RGBa": "RGBA"}
_SHALLOW_GREY = {"1": 1, "L;2": 2, "L;4": 4, "L": 8, "I;16B": 16}


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
        swapped = _swap_byte_order(str(first))
        tiles[number] = tile._replace(args=(swapped, *rest) if isinstance(tile.args, tuple) else swapped)
    values = np.asarray(load_as_stored(image))
    return values[..., 1:2] if grey_and_alpha else values


def _swap_byte_order(raw: str) -> str:
    """The raw mode that takes a sample for one of the other byte order, so that the byte it keeps is the low one."""
    if raw == _GREY_AND_ALPHA:
        return "RGBA"  # of no other order; as four bytes they are grey high, grey low, alpha high, alpha low
    name, _, order = raw.rpartition(";16")
    little = order == "L" or (order == "N" and sys.byteorder == "little")
    return f"{name};16{'B' if little else 'L'}"


@dataclass(frozen=True)
class TransparentSample:
    """The one value that a PNG of no alpha channel declares transparent (chunk tRNS), in samples of the file.

    Attributes:
        bits: of a sample: 1, 2, 4, 8 or 16.
        values: of each channel: one for grey, three for RGB.
    """

    bits: int
    values: tuple[int, ...]


def transparent_sample(image: Image.Image) -> TransparentSample | None:
    """The transparent value of a grey or RGB PNG; None where there is none. Called before the pixels are decoded."""
    key = image.info.get("transparency")
    if not isinstance(image, PngImagePlugin.PngImageFile) or image.mode in ("P", "PA") or key is None:
        return None
    raw = image.tile[0].args
    if image.mode == "RGB":
        bits = 16 if raw == "RGB;16B" else 8
        values = tuple(key)
    else:
        bits = _SHALLOW_GREY[str(raw)]
        values = (1 if key else 0,) if bits == 1 else (key,)
    # Of a sample narrower than 16 bits only its own low bits count (PNG, 11.3.2.1).
    return TransparentSample(bits, tuple(value & ((1 << bits) - 1) for value in values))


def as_eight_bits(
    image: Image.Image, kind: PixelKind, transparent: TransparentSample | None, data: bytes
) -> tuple[Image.Image, bool]:
    """A decoded image in 8 bits.

    Args:
        image: decoded, not turned.
        kind: from its header.
        transparent: from its header.
        data: the file, for what Pillow does not tell of it.

    Returns:
        The image with mode L, RGB or, where anything may be transparent, RGBA; and whether it was flattened:
        its wide values differed, and now it is of one grey or nearly.
    """
    flattened = False
    mask: NDArray[np.bool_] | None = None
    if image.mode in WIDE_GREY_MODES:
        values = np.asarray(image)
        mask = None if transparent is None else values == transparent.values[0]
        grey = _narrow(values, kind, data)
        flattened = _is_flattened(values, grey)
        image = Image.fromarray(grey)
    elif transparent is not None:
        mask = _mask_of(image, transparent, data)
    elif kind.wide_colour:
        flattened = _is_flattened_colour(image, kind.wide_colour, data)
    if mask is not None:
        image = image.convert("RGB").convert("RGBA") if image.mode == "RGB" else image.convert("L").convert("RGBA")
        image.putalpha(Image.fromarray(np.where(mask, 0, 255).astype(np.uint8)))
        return image, flattened
    if image.mode in _PREMULTIPLIED:
        image = image.convert(_PREMULTIPLIED[image.mode])
    if image.has_transparency_data:
        return image.convert("RGBA"), flattened
    # By way of RGB also to grey: Pillow knows no other way from LAB.
    return image.convert("L" if image.mode in _GREY_MODES else "RGB"), flattened


def lay_over(image: Image.Image, background: str) -> tuple[Image.Image, bool]:
    """Lays an RGBA image over a colour.

    Args:
        image: L, RGB or RGBA.
        background: ``#rrggbb``.

    Returns:
        The image with mode L or RGB; and whether it has vanished: it has transparent pixels, and the background is
        all that is seen.
    """
    if image.mode != "RGBA":
        return image, False
    colour = colour_of(background)
    below = Image.new("RGBA", image.size, (*colour, 255))
    flat = Image.alpha_composite(below, image).convert("RGB")
    has_holes = image.getchannel("A").getextrema() != (255, 255)
    vanished = has_holes and flat.getextrema() == tuple((level, level) for level in colour)
    return flat, vanished


def _narrow(values: NDArray[Any], kind: PixelKind, data: bytes) -> NDArray[np.uint8]:
    """Wide grey to 8 bits by its highest ones."""
    bits = kind.bits
    significant = _significant_bits(data) if bits == 16 else 0
    # PNG wants samples scaled to 16 bits, with sBIT telling how many of them carry anything: then the others are zero
    # or repeat the first. Programs that write the numbers of a 10- or 12-bit camera as they are set sBIT all the
    # same, and leave values that fit in so many bits and use the lowest of them.
    fits = 8 <= significant < 16 and int(values.max(initial=0)) >> significant == 0
    if fits and (values & ((1 << (16 - significant)) - 1)).any():
        bits = significant
    narrow = (values >> (bits - 8)).astype(np.uint8)
    return 255 - narrow if kind.white_is_zero else narrow


def _is_flattened(values: NDArray[Any], grey: NDArray[np.uint8]) -> bool:
    if not values.size:
        return False
    span = int(grey.max()) - int(grey.min())
    return span < LEAST_SPAN and int(values.max()) - int(values.min()) > span


def _is_flattened_colour(image: Image.Image, kind: str, data: bytes) -> bool:
    colours = np.asarray(image)[..., : 1 if image.mode in ("LA", "La") else 3]
    spans = np.ptp(colours, axis=(0, 1))
    if not colours.size or spans.max() >= LEAST_SPAN:
        return False
    return bool(spans.any() or np.ptp(low_bytes(data, kind)[..., :3], axis=(0, 1)).any())


def _mask_of(image: Image.Image, transparent: TransparentSample, data: bytes) -> NDArray[np.bool_] | None:
    """Where a decoded grey or RGB image has its transparent value: bool [height, width]."""
    if image.mode in _GREY_MODES:
        # Pillow spreads 1, 2 and 4 bits over 0 to 255, and the value of the chunk not.
        level = transparent.values[0] * 255 // ((1 << transparent.bits) - 1)
        return np.asarray(image.convert("L")) == level
    values = np.asarray(image).astype(np.uint16)
    if transparent.bits == 16:
        values = values << 8 | low_bytes(data, "PNG")
    return (values == transparent.values).all(axis=2)


def _significant_bits(data: bytes) -> int:
    """Chunk sBIT of a grey PNG; 0 where there is none. Pillow does not hand it on."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return 0
    place = 8
    while place + 9 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name == b"sBIT" and length == 1:
            return data[place + 8]
        if name == b"IDAT":
            return 0
        place += length + 12
    return 0
