"""One image file: what its header says, and its pixels as uint8 grey or RGB.

The rules, so that every file gives one answer: the format is judged by content, not by name; the first frame
of an animation counts; transparency is laid over a background, black unless another is asked for; numbers of more
than 8 bits become 8 by their highest; a photograph is turned as its EXIF orientation says.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from data_schemas.errors import ImageError
from pipeline.image_limits import BLACK
from pipeline.sources.base import MAX_IMAGE_PIXELS
from pipeline.sources.decoding.background import is_grey
from pipeline.sources.decoding.eight_bits import as_eight_bits, lay_over, transparent_sample
from pipeline.sources.decoding.formats import pillow_formats
from pipeline.sources.decoding.messages import collect_messages
from pipeline.sources.decoding.orientation import SIDEWAYS, load_as_stored, orientation_of, stored_size, turn_upright
from pipeline.sources.decoding.pixel_kinds import WIDE_GREY_MODES, PixelKind, kind_of, mend_planes
from pipeline.sources.decoding.unread_reasons import why_not_opened, why_not_read

MOST_TEXT_BYTES = 64 << 20
"""Most bytes of one text or colour profile of a PNG after unpacking. Pillow's own bound of 1 MiB refuses photographs
that carry a program's whole history, such as one of ImageNet; all texts together have this bound in Pillow too."""

PngImagePlugin.MAX_TEXT_CHUNK = MOST_TEXT_BYTES

_GREY_MODES = ("1", "L", "LA", "La")


@dataclass(frozen=True)
class ImageHeader:
    """What the header of an image file says.

    Attributes:
        height: pixels, after turning upright.
        width: pixels, after turning upright.
        colour: whether grey alone would lose something.
        format: Pillow's name of the format.
        animated: whether there is more than one frame (only the first is read).
        messages: what the decoders had to say of the header.
    """

    height: int
    width: int
    colour: bool
    format: str
    animated: bool
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecodedImage:
    """The pixels of an image file and what is to be known of them.

    Attributes:
        pixels: uint8 [height, width, channel].
        flattened: its values had more than 8 bits and differed, and now it is of one grey or nearly.
        vanished: it has transparent pixels, and nothing is seen but what it was laid over.
        messages: what the decoders had to say.
    """

    pixels: NDArray[np.uint8]
    flattened: bool = False
    vanished: bool = False
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Opened:
    image: Image.Image
    kind: PixelKind
    orientation: int
    width: int
    height: int


def read_header(stream: BinaryIO, background: str = BLACK) -> ImageHeader:
    """Reads the header and decodes no pixels.

    Args:
        stream: the file.
        background: what transparency will be laid over, ``#rrggbb``: grey images get colour from one that has.

    Raises:
        ImageError: empty, no image of a known format, a kind of pixels that is not read, damaged, or more pixels
            than MAX_IMAGE_PIXELS.
    """
    with collect_messages() as messages:
        opened = _open(stream, messages)
        image = opened.image
        try:
            animated = image.format not in ("JPEG", "MPO") and bool(getattr(image, "is_animated", False))
            colour = _is_colour(image) or (not is_grey(background) and image.has_transparency_data)
        # As in ``_open``: the palette may be what is damaged.
        except Exception as error:
            raise why_not_read(error, messages, "The header is damaged", f"this kind of {image.format}") from error
        return ImageHeader(opened.height, opened.width, colour, str(image.format), animated, tuple(messages))


def decode_image(data: bytes, *, colour: bool, size: int | None = None, background: str = BLACK) -> NDArray[np.uint8]:
    """The pixels of ``read_image``: uint8 [height, width, channel]; same arguments and errors."""
    return read_image(data, colour=colour, size=size, background=background).pixels


def read_image(data: bytes, *, colour: bool, size: int | None = None, background: str = BLACK) -> DecodedImage:
    """Decodes an image file.

    Args:
        data: the whole file.
        colour: True gives three channels (grey is repeated), False one.
        size: cut a centred square and resize it to so many pixels a side; None keeps the size.
        background: what transparency is laid over, ``#rrggbb``.

    Raises:
        ImageError: says why the image cannot be read.
    """
    layer, flattened, orientation, messages = _decode(data)
    flat, vanished = lay_over(layer, background)
    pixels = turn_upright(_channels(flat.convert("RGB" if colour else "L")), orientation)
    pixels = np.array(pixels, order="C") if size is None else resize_pixels(pixels, size)
    return DecodedImage(pixels, flattened, vanished, messages)


def decode_layer(data: bytes) -> NDArray[np.uint8]:
    """Decodes an image file and keeps its transparency, for sheets that are laid over one another.

    Args:
        data: the whole file.

    Returns:
        uint8 [height, width, RGBA].

    Raises:
        ImageError: says why the image cannot be read.
    """
    layer, _, orientation, _ = _decode(data)
    return np.array(turn_upright(_channels(layer.convert("RGBA")), orientation), order="C")


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


def _decode(data: bytes) -> tuple[Image.Image, bool, int, tuple[str, ...]]:
    """The image as it lies in the file, with mode L, RGB or RGBA; whether it was flattened; orientation; messages."""
    with collect_messages() as messages:
        opened = _open(io.BytesIO(data), messages)
        try:
            transparent = transparent_sample(opened.image)
            mend_planes(opened.image)
            image = load_as_stored(opened.image)
            layer, flattened = as_eight_bits(image, opened.kind, transparent, data)
        # A decoder that is fed damaged bytes raises almost anything (struct.error, SyntaxError, IndexError,
        # zlib.error, ...); whatever it is, the answer is the same: this image cannot be read.
        except Exception as error:
            kind = f"this kind of {opened.image.format}"
            raise why_not_read(error, messages, "The pixels cannot be decoded", kind) from error
        return layer, flattened, opened.orientation, tuple(messages)


def _open(stream: BinaryIO, messages: Sequence[str]) -> _Opened:
    formats = pillow_formats(stream)
    try:
        image = Image.open(stream, formats=formats)
        width, height = stored_size(image)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ImageError(
            f"The header announces more than {MAX_IMAGE_PIXELS:,} pixels: not decoded",
            allowed=f"up to {MAX_IMAGE_PIXELS:,} pixels",
        ) from None
    except UnidentifiedImageError as error:
        raise why_not_opened(stream, formats, error, messages) from None
    except Exception as error:  # as in ``_decode``
        raise why_not_opened(stream, formats, error, messages) from error
    if width * height > MAX_IMAGE_PIXELS:
        raise ImageError(
            f"The header announces {width} x {height} pixels: not decoded",
            allowed=f"up to {MAX_IMAGE_PIXELS:,} pixels",
            next_step="reduce the image",
        )
    if width < 1 or height < 1:
        raise ImageError(f"The header announces {width} x {height} pixels", allowed="at least 1 x 1")
    kind = kind_of(image)
    orientation = orientation_of(image)
    if orientation in SIDEWAYS:
        width, height = height, width
    return _Opened(image, kind, orientation, width, height)


def _is_colour(image: Image.Image) -> bool:
    if image.mode in _GREY_MODES or image.mode in WIDE_GREY_MODES:
        return False
    if image.mode in ("P", "PA"):
        palette = _palette_of(image)
        return bool((palette != palette[:, :1]).any())
    return True


def _palette_of(image: Image.Image) -> NDArray[np.uint8]:
    """The palette, uint8 [entry, RGB], by way of an image of one pixel: asked of the file's, it decodes the pixels."""
    probe = Image.new("P", (1, 1))
    if image.palette is not None:
        rawmode, content = image.palette.getdata()
        probe.putpalette(content, rawmode)
    return np.array(probe.getpalette() or [0, 0, 0], dtype=np.uint8).reshape(-1, 3)


def _channels(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [height, width, channel]."""
    pixels = np.asarray(image, dtype=np.uint8)
    return pixels[..., None] if pixels.ndim == 2 else pixels
