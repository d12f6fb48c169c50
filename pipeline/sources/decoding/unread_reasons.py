"""Why a file is not read: empty, of a kind that is not supported, or damaged, which must not be confused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import BinaryIO

from PIL import Image

from data_schemas.errors import ImageError
from pipeline.sources.decoding.formats import READ_NAMES
from pipeline.sources.decoding.pixel_kinds import NEXT_STEP, explain_unsupported_tiff

_UNSUPPORTED = re.compile(
    r"unsupported(?! header size)|not (yet )?supported|not available|cannot handle|cannot decode|"
    r"unknown (raw mode|pixel mode|TGA|TIFF|data|compression)",
    re.IGNORECASE,
)
_CUT = re.compile("truncated|corrupt", re.IGNORECASE)
_TOO_LARGE_TEXT = re.compile(r"MAX_TEXT_(CHUNK|MEMORY)")


def why_not_opened(
    stream: BinaryIO, formats: Sequence[str], error: BaseException, messages: Sequence[str]
) -> ImageError:
    """Why an image file cannot be opened.

    Args:
        stream: the file.
        formats: Pillow's names of what may be opened.
        error: what Pillow raised.
        messages: what its decoders said.
    """
    stream.seek(0)
    start = stream.read(16)
    if not start:
        return ImageError("The file is empty (0 bytes)")
    if not _is_cut(messages) and (refused := explain_unsupported_tiff(stream)) is not None:
        return refused
    named = _format_of(start, formats)
    if named is None:
        return ImageError(
            "The content is no image, or is damaged from its first bytes on",
            allowed=READ_NAMES,
        )
    # ``Image.open`` keeps to itself what a decoder said that could not make sense of the file: it is asked again.
    if isinstance(error, Image.UnidentifiedImageError):
        try:
            stream.seek(0)
            Image.OPEN[named][0](stream, "")
        except Exception as own:
            error = own
    return why_not_read(error, messages, f"The header of this {named} is damaged", f"this kind of {named}")


def why_not_read(error: BaseException, messages: Sequence[str], damaged: str, kind: str) -> ImageError:
    """Why a file whose format is known cannot be read.

    Args:
        error: what Pillow raised.
        messages: what its decoders said.
        damaged: how to call it where it is damaged.
        kind: how to call it where it is sound and of a kind that is not supported.
    """
    words = "; ".join(dict.fromkeys((f"{type(error).__name__}: {error}"[:200].strip(": "), *messages)))
    if _TOO_LARGE_TEXT.search(str(error)):
        return ImageError(
            "The texts or the colour profile in this PNG unpack to too much",
            allowed="up to 64 MiB of texts, and 64 MiB of profile",
            next_step="save the image without them",
        )
    if _UNSUPPORTED.search(str(error)) and not _is_cut(messages):
        return ImageError(f"{kind[0].upper()}{kind[1:]} is not read ({words})", next_step=NEXT_STEP)
    return ImageError(f"{damaged} ({words})")


def _is_cut(messages: Sequence[str]) -> bool:
    """Whether a decoder missed bytes: what it made of the others is no kind of image then."""
    return any(_CUT.search(message) for message in messages)


def _format_of(start: bytes, formats: Sequence[str]) -> str | None:
    """The format that the first bytes promise."""
    for name in formats:
        accept = Image.OPEN[name][1] if name in Image.OPEN else None
        if accept is not None and accept(start) is True:
            return name
    return None
