"""Headers that say too little: TGA and DIB have no signature, and an icon's directory may hide larger images.

TGA: Truevision TGA File Format Specification, version 2.0. DIB and ICO: the BITMAPINFOHEADER and the icon directory
of Windows.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

from data_schemas.errors import ImageError

_DIB_HEADERS = (12, 40, 52, 56, 64, 108, 124)
_MOST_ICONS = 256
_PNG = b"\x89PNG\r\n\x1a\n"


def tga_fits(head: bytes, length: int) -> bool:
    """Whether a file without a signature may be a TGA.

    Args:
        head: its first 18 bytes at least.
        length: of the file in bytes.
    """
    if len(head) < 18:
        return False
    id_length, has_map, kind = head[:3]
    _, map_entries, map_depth = struct.unpack("<HHB", head[3:8])
    width, height, depth, flags = struct.unpack("<HHBB", head[12:18])
    depths = {1: (8,), 2: (15, 16, 24, 32), 3: (8, 16)}.get(kind & 7, ())
    if has_map > 1 or kind not in (1, 2, 3, 9, 10, 11) or depth not in depths or flags & 0xC0 or not width * height:
        return False
    if kind & 7 == 1 and not has_map:
        return False
    pixels = 18 + id_length + (map_entries * -(-map_depth // 8) if has_map else 0)
    # Run-length coding saves at most 127 of 128 pixels. A file cut short is still a TGA: half of it is enough.
    least = width * height * -(-depth // 8) // (128 if kind > 8 else 2)
    return length >= pixels + least


def dib_fits(head: bytes, length: int) -> bool:
    """Whether a file without a signature may be a DIB; arguments as :func:`tga_fits`."""
    if len(head) < 16 or length <= (size := struct.unpack("<I", head[:4])[0]) or size not in _DIB_HEADERS:
        return False
    planes, bits = struct.unpack("<HH", head[8:12] if size == 12 else head[12:16])
    return planes == 1 and bits in (1, 4, 8, 16, 24, 32)


def require_icon_as_announced(stream: BinaryIO) -> None:
    """Checks that each image of an icon has the size that its directory states: Pillow decodes what the image says.

    Args:
        stream: of the whole file.

    Raises:
        ImageError: another size, or a directory that is cut short.
    """
    stream.seek(4)
    (count,) = struct.unpack("<H", stream.read(2).ljust(2, b"\0"))
    entries = stream.read(16 * min(count, _MOST_ICONS))
    if not 1 <= count <= _MOST_ICONS or len(entries) < 16 * count:
        raise ImageError(f"The icon's directory lists {count} images and is cut short or too long", allowed="1 to 256")
    for number in range(count):
        width, height, _, _, _, _, _, offset = struct.unpack_from("<BBBBHHII", entries, 16 * number)
        announced = (width or 256, height or 256)
        stream.seek(offset)
        start = stream.read(24)
        if start.startswith(_PNG) and len(start) == 24:
            found = struct.unpack(">II", start[16:24])
        elif len(start) == 24:
            wide, high = struct.unpack_from("<ii", start, 4)
            found = (wide, high // 2)  # the mask lies below the pixels
        else:
            raise ImageError(f"Image {number} of the icon lies outside of the file")
        if found != announced:
            raise ImageError(
                f"Image {number} of the icon has {found[0]} x {found[1]} pixels, its directory says "
                f"{announced[0]} x {announced[1]}",
                allowed="one size",
                next_step="convert it to PNG",
            )
