"""What kind of numbers the pixels of a file are, judged by its header alone: how many bits, or why they are not read.

A folder must not be read half by one rule and half by another, so values are never looked at to guess a range:
a kind has a range that its format declares, or it is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO

from PIL import Image, TiffImagePlugin

from data_schemas.errors import ImageError

ALLOWED = "grey, palette, RGB or CMYK of 1 to 16 bits a channel, without a sign"
NEXT_STEP = "convert the image to 8 bits, grey or RGB, such as in a PNG"

WIDE_GREY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")

_SAMPLE_FORMATS = {
    1: "unsigned integers",
    2: "signed integers",
    3: "floating-point numbers",
    5: "complex integers",
    6: "complex floating-point numbers",
}
_PHOTOMETRIC = {
    0: "WhiteIsZero",
    1: "BlackIsZero",
    2: "RGB",
    3: "palette",
    4: "transparency mask",
    5: "CMYK",
    6: "YCbCr",
    8: "CIE L*a*b*",
    9: "ICC L*a*b*",
    32803: "colour filter array",
    34892: "linear raw",
}
_NEEDED = (TiffImagePlugin.IMAGEWIDTH, TiffImagePlugin.IMAGELENGTH)
_PLACES = (TiffImagePlugin.STRIPOFFSETS, TiffImagePlugin.TILEOFFSETS)
_WHITE_IS_ZERO = 0
_SEPARATE_PLANES = 2
_PLANAR_MODES = ("RGB", "RGBA", "CMYK")


@dataclass(frozen=True)
class PixelKind:
    """What the numbers of an image mean.

    Attributes:
        bits: of one grey sample, as declared; 16 where Pillow has scaled to them.
        white_is_zero: whether Pillow hands over wide grey in which 0 is white.
        wide_colour: Pillow's name of the format where colours have 16 bits, of which it hands over 8; else "".
    """

    bits: int = 8
    white_is_zero: bool = False
    wide_colour: str = ""


def kind_of(image: Image.Image) -> PixelKind:
    """The kind of an opened image; decodes no pixels.

    Raises:
        ImageError: numbers without a range: signed, of 32 bits or floating; or a layout that Pillow misreads.
    """
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return _kind_of_tiff(image)
    if image.mode == "F":
        raise _refuse(f"The pixels of this {image.format} are floating-point numbers of no known range")
    if image.mode == "I" and image.format != "PPM":  # which Pillow scales to 16 bits by the greatest value announced
        raise _refuse(f"The pixels of this {image.format} are 32-bit integers of no known range")
    return PixelKind(bits=16) if image.mode in WIDE_GREY_MODES else PixelKind(wide_colour=_wide_colour(image))


def raw_modes(image: Image.Image) -> set[str]:
    """Pillow's names of how the samples of an opened image lie in its file."""
    tiles = getattr(image, "tile", [])
    return {str(tile.args[0] if isinstance(tile.args, tuple) and tile.args else tile.args) for tile in tiles}


def explain_unsupported_tiff(stream: BinaryIO) -> ImageError | None:
    """Why a TIFF that Pillow does not open is not read, where its directory is sound; None where it is damaged."""
    try:
        stream.seek(0)
        head = stream.read(8)
        if not head.startswith(tuple(TiffImagePlugin.PREFIXES)):
            return None
        tags = TiffImagePlugin.ImageFileDirectory_v2(head + (stream.read(8) if head[2] == 43 else b""))
        stream.seek(tags.next)
        tags.load(stream)
        words = _describe(tags)
        complete = all(tag in tags for tag in _NEEDED) and any(tag in tags for tag in _PLACES)
    # A damaged directory may raise anything.
    except Exception:
        return None
    return _refuse(f"A TIFF of this kind is not read: {words}") if complete else None


def _kind_of_tiff(image: TiffImagePlugin.TiffImageFile) -> PixelKind:
    tags = image.tag_v2
    bits = _tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, 1))
    formats = set(_tuple(tags.get(TiffImagePlugin.SAMPLEFORMAT, 1)))
    if formats != {1} or max(bits) > 16:
        raise _refuse(f"The pixels of this TIFF have no known range: {_describe(tags)}")
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    if tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == _SEPARATE_PLANES:
        _require_planes_that_are_read(image, inverted=photometric == _WHITE_IS_ZERO, bits=bits)
    if image.mode not in WIDE_GREY_MODES:
        return PixelKind(wide_colour=_wide_colour(image))
    # Pillow inverts 8 bits and fewer, and leaves 16 as they are.
    return PixelKind(bits=max(bits), white_is_zero=photometric == _WHITE_IS_ZERO)


def mend_planes(image: Image.Image) -> None:
    """Lets Pillow read 16-bit channels in separate planes that are not compressed, which it takes for 8-bit ones."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.mode not in _PLANAR_MODES:
        return
    tags = image.tag_v2
    separate = tags.get(TiffImagePlugin.PLANAR_CONFIGURATION, 1) == _SEPARATE_PLANES
    if separate and not _is_compressed(image) and set(_tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, 1))) == {16}:
        order = "L" if tags.prefix == TiffImagePlugin.II else "B"
        for number, tile in enumerate(image.tile):
            if isinstance(tile.args, tuple):
                plane, *layout = tile.args
                image.tile[number] = tile._replace(args=(f"{plane};16{order}", *layout))


def _require_planes_that_are_read(
    image: TiffImagePlugin.TiffImageFile, *, inverted: bool, bits: tuple[int, ...]
) -> None:
    """RGB and CMYK are read; grey beside other planes comes out wrong or not at all.

    A single plane that is not compressed is read by the first letter of its kind ("1;I" as "1").
    """
    if int(image.tag_v2.get(TiffImagePlugin.SAMPLESPERPIXEL, 1)) > 1:
        read = image.mode in _PLANAR_MODES
    else:
        read = _is_compressed(image) or (max(bits) == 8 and not inverted)
    if not read:
        raise _refuse(f"A TIFF of this kind in separate planes is not read: {_describe(image.tag_v2)}")


def _is_compressed(image: TiffImagePlugin.TiffImageFile) -> bool:
    return image.tag_v2.get(TiffImagePlugin.COMPRESSION, 1) != 1


def _wide_colour(image: Image.Image) -> str:
    is_read_twice = image.format in ("PNG", "TIFF")
    planes = image.format == "TIFF" and max(_tuple(getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, 1)))
    wide = planes == 16 or any(";16" in name for name in raw_modes(image))
    return str(image.format) if is_read_twice and wide else ""


def _describe(tags: Any) -> str:
    bits = _tuple(tags.get(TiffImagePlugin.BITSPERSAMPLE, 1))
    formats = _tuple(tags.get(TiffImagePlugin.SAMPLEFORMAT, 1))
    samples = tags.get(TiffImagePlugin.SAMPLESPERPIXEL, len(bits))
    photometric = tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION)
    compression = tags.get(TiffImagePlugin.COMPRESSION, 1)
    number = _SAMPLE_FORMATS.get(formats[0], "samples of an undefined kind")
    widths = "/".join(str(width) for width in dict.fromkeys(bits))
    words = [
        f"{samples} channel{'s' if samples != 1 else ''} of {widths}-bit {number}",
        _PHOTOMETRIC.get(photometric, f"photometric interpretation {photometric}"),
    ]
    if compression != 1:
        known = TiffImagePlugin.COMPRESSION_INFO.get(compression, "unknown")
        words.append(f"compression {compression} ({known.removeprefix('tiff_')})")
    return ", ".join(words)


def _tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple) else (value,)


def _refuse(got: str) -> ImageError:
    return ImageError(got, allowed=ALLOWED, next_step=NEXT_STEP)
