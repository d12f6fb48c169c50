"""One image file: what its header says, and its pixels as uint8 grey or RGB.

The rules, so that every file gives one answer: the format is judged by content, not by name; the first frame
of an animation counts; transparency is laid over black; 16 bits become 8 by their high byte; a photograph is
turned as its EXIF orientation says.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from data_schemas.errors import ImageError
from pipeline.sources.base import MAX_IMAGE_PIXELS
from pipeline.sources.image_formats import READ_NAMES, pillow_formats

_ORIENTATION_TAG = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ORIENTED_FORMATS = ("JPEG", "MPO", "WEBP", "TIFF", "AVIF")
_GREY_MODES = ("1", "L", "LA", "La")
_WIDE_GREY_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N")


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        height: pixels, after turning upright.
        width: pixels, after turning upright.
        colour: whether grey alone would lose something.
        format: Pillow's name of the format.
        animated: whether there is more than one frame (only the first is read).
    """

    height: int
    width: int
    colour: bool
    format: str
    animated: bool


def read_header(stream: BinaryIO) -> ImageHeader:
    """Reads the header and decodes no pixels.

    Raises:
        ImageError: empty, no image of a known format, or more pixels than MAX_IMAGE_PIXELS.
    """
    try:
        image = _open(stream)
        width, height = image.size
        if _turn(image) in (5, 6, 7, 8):
            width, height = height, width
        animated = image.format not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))
        return ImageHeader(height, width, _is_colour(image), str(image.format), animated)
    except ImageError:
        raise
    # A decoder that is fed damaged bytes raises almost anything (struct.error, SyntaxError, IndexError,
    # zlib.error, ...); whatever it is, the answer is the same: this image cannot be read.
    except Exception as error:
        raise ImageError(f"The header is damaged ({_words(error)})") from error


def decode_image(data: bytes, *, colour: bool, size: int | None = None) -> NDArray[np.uint8]:
    """Decodes an image file.

    Args:
        data: the whole file.
        colour: True gives three channels (grey is repeated), False one.
        size: cut a centred square and resize it to so many pixels a side; None keeps the size.

    Returns:
        uint8 [height, width, channel].

    Raises:
        ImageError: says why the image cannot be read.
    """
    try:
        image = _open(io.BytesIO(data))
        turn = _turn(image)
        image.load()
        if turn in _TURNS:
            image = image.transpose(_TURNS[turn])
        flat = _flatten(image, colour=colour)
    except ImageError:
        raise
    except Exception as error:  # as in read_header
        raise ImageError(f"The pixels cannot be decoded ({_words(error)})") from error
    pixels = np.asarray(flat, dtype=np.uint8)
    pixels = pixels.reshape(pixels.shape[0], pixels.shape[1], 3 if colour else 1)
    return np.array(pixels, order="C") if size is None else resize_pixels(pixels, size)


def resize_pixels(pixels: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Cuts the largest centred square and resizes it (Lanczos, antialiased) to ``size`` x ``size``.

    Args:
        pixels: uint8 [height, width, channel], channel 1 or 3.
        size: pixels a side.

    Returns:
        uint8 [size, size, channel].
    """
    height, width, channels = pixels.shape
    if height == width == size:
        return np.array(pixels, order="C")
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    # Cut first: Pillow's own box would let the filter see beyond its edge.
    square = np.ascontiguousarray(pixels[top : top + side, left : left + side])
    image = Image.fromarray(square[..., 0] if channels == 1 else square)
    image = image.resize((size, size), Image.Resampling.LANCZOS)
    return np.array(image, dtype=np.uint8).reshape(size, size, channels)


def _open(stream: BinaryIO) -> Image.Image:
    try:
        image = Image.open(stream, formats=pillow_formats(stream))
    except UnidentifiedImageError:
        stream.seek(0)
        if not stream.read(1):
            raise ImageError("The file is empty (0 bytes)") from None
        raise ImageError(
            "The content is no image, or is damaged from its first bytes on",
            allowed=READ_NAMES,
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"The header announces more than {MAX_IMAGE_PIXELS:,} pixels: not decoded",
            allowed=f"up to {MAX_IMAGE_PIXELS:,} pixels",
        ) from None
    width, height = image.size
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageError(
            f"The header announces {width} x {height} pixels: not decoded",
            allowed=f"up to {MAX_IMAGE_PIXELS:,} pixels",
            next_step="reduce the image",
        )
    if width < 1 or height < 1:
        raise ImageError(f"The header announces {width} x {height} pixels", allowed="at least 1 x 1")
    return image


def _turn(image: Image.Image) -> int:
    # Only formats that keep EXIF ahead of the pixels: for a PNG Pillow would have to decode everything first.
    return int(image.getexif().get(_ORIENTATION_TAG, 1)) if image.format in _ORIENTED_FORMATS else 1


def _is_colour(image: Image.Image) -> bool:
    if image.mode in _GREY_MODES or image.mode in _WIDE_GREY_MODES or image.mode == "F":
        return False
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette() or [0, 0, 0], dtype=np.uint8).reshape(-1, 3)
        return bool((palette != palette[:, :1]).any())
    return True


def _flatten(image: Image.Image, *, colour: bool) -> Image.Image:
    """Any mode to L or RGB."""
    if image.mode in _WIDE_GREY_MODES:
        values = np.asarray(image)
        if values.dtype.itemsize > 2 and (values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF):
            raise ImageError(
                "The pixels are 32-bit integers",
                allowed="8 or 16 bits a channel",
                next_step="convert the image to 8 bits",
            )
        image = Image.fromarray((values.astype(np.uint16) >> 8).astype(np.uint8))
    elif image.mode == "F":
        raise ImageError(
            "The pixels are floating-point numbers of no known range",
            allowed="8 or 16 bits a channel",
            next_step="convert the image to 8 bits",
        )
    elif image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba).convert("RGB")
    if image.mode not in _GREY_MODES:
        image = image.convert("RGB")  # Pillow knows the way from LAB to RGB only
    return image.convert("RGB" if colour else "L")


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:200].strip(": ")
