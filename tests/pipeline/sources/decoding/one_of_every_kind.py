"""A file of every kind, made from known pixels by hand or losslessly, and what is to become of each."""

from __future__ import annotations

import io
import struct
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]

SIDE = 12
FTYP = b"\0\0\0\x1cftyp"


def colours() -> Pixels:
    """Distinct smooth pixels: uint8 [SIDE, SIDE, 3]."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    return np.stack([x * 20, y * 20, 255 - 10 * (x + y)], axis=-1).astype(np.uint8)


def greys() -> Pixels:
    """The red channel alone: uint8 [SIDE, SIDE]."""
    return np.ascontiguousarray(colours()[..., 0])


def saved(kind: str, pixels: Pixels | None = None, **options: object) -> bytes:
    """By Pillow, without loss where the format allows it."""
    stream = io.BytesIO()
    Image.fromarray(colours() if pixels is None else pixels).save(stream, kind, **options)
    return stream.getvalue()


def tga(pixels: Pixels) -> bytes:
    """Uncompressed, bottom line first, without a footer."""
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, pixels.shape[1], pixels.shape[0], 24, 0)
    return head + pixels[::-1, :, ::-1].tobytes()


def tga_runs(pixels: Pixels) -> bytes:
    """Packets of one pixel each, top line first."""
    head = struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, pixels.shape[1], pixels.shape[0], 24, 0x20)
    return head + b"".join(b"\x80" + bytes(pixel[::-1]) for pixel in pixels.reshape(-1, 3))


def dib(pixels: Pixels) -> bytes:
    """A bitmap of Windows without its file header; lines of 12 pixels need no filling."""
    head = struct.pack("<IiiHHIIiiII", 40, pixels.shape[1], pixels.shape[0], 1, 24, 0, 0, 0, 0, 0, 0)
    return head + pixels[::-1, :, ::-1].tobytes()


def icon(image: bytes, side: int = SIDE) -> bytes:
    """A directory of one PNG of 32 bits."""
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", side, side, 0, 0, 1, 32, len(image), 22) + image


def sgi(pixels: Pixels) -> bytes:
    """Verbatim, plane by plane, bottom line first."""
    head = struct.pack(">HBBHHHH", 474, 0, 1, 3, pixels.shape[1], pixels.shape[0], 3).ljust(512, b"\0")
    return head + pixels[::-1].transpose(2, 0, 1).tobytes()


def dds(pixels: Pixels) -> bytes:
    """Uncompressed, 24 bits, blue first."""
    size = struct.pack("<4sIIIIIII", b"DDS ", 124, 0x1007, pixels.shape[0], pixels.shape[1], pixels.shape[1] * 3, 0, 0)
    kind = struct.pack("<IIIIIIII", 32, 0x40, 0, 24, 0xFF0000, 0xFF00, 0xFF, 0)
    return size + bytes(44) + kind + struct.pack("<IIIII", 0x1000, 0, 0, 0, 0) + pixels[..., ::-1].tobytes()


def qoi(pixels: Pixels) -> bytes:
    """Each pixel written out (QOI_OP_RGB)."""
    head = b"qoif" + struct.pack(">IIBB", pixels.shape[1], pixels.shape[0], 3, 0)
    return head + b"".join(b"\xfe" + bytes(pixel) for pixel in pixels.reshape(-1, 3)) + bytes(7) + b"\1"


def sun(pixels: Pixels) -> bytes:
    """Standard kind, blue first."""
    size = pixels.shape[0] * pixels.shape[1] * 3
    head = struct.pack(">IIIIIIII", 0x59A66A95, pixels.shape[1], pixels.shape[0], 24, size, 1, 0, 0)
    return head + pixels[..., ::-1].tobytes()


def raw_of_a_camera() -> bytes:
    """To Pillow a TIFF: the small image that lies in front."""
    return saved("TIFF")


def netpbm(kind: str, most: int, values: bytes) -> bytes:
    """Head and values of a PPM, PGM or PBM."""
    sides = f"{kind}\n# made by hand\n{SIDE} {SIDE}\n"
    return (sides + (f"{most}\n" if most else "")).encode() + values


@cache
def read_files() -> dict[str, tuple[bytes, Pixels, int]]:
    """Bytes, the right pixels [y, x, channel], and the greatest difference that the format allows, by name."""
    rgb, grey = colours(), greys()
    grey3 = np.repeat(grey[..., None], 3, axis=2)
    bits = (grey > 127).astype(np.uint8)
    black_bits = np.packbits(1 - bits, axis=1).tobytes()
    wide = (grey.astype(">u2") * 257).tobytes()
    text = " ".join(map(str, rgb.reshape(-1))).encode()
    moving = {"save_all": True, "append_images": [Image.new("RGB", (SIDE, SIDE))]}
    exact: dict[str, tuple[bytes, Pixels]] = {
        "a.png": (saved("PNG"), rgb),
        "b.apng": (saved("PNG", **moving), rgb),
        "c.tif": (saved("TIFF"), rgb),
        "d.tiff": (saved("TIFF", compression="tiff_lzw"), rgb),
        "e.bmp": (saved("BMP"), rgb),
        "f.dib": (dib(rgb), rgb),
        "g.webp": (saved("WEBP", lossless=True), rgb),
        "h.gif": (saved("GIF", grey), grey3),
        "i.jp2": (saved("JPEG2000"), rgb),
        "i.j2k": (saved("JPEG2000", no_jp2=True), rgb),
        "j.tga": (tga(rgb), rgb),
        "k.TGA": (tga_runs(rgb), rgb),
        "l.ppm": (netpbm("P6", 255, rgb.tobytes()), rgb),
        "m.pnm": (netpbm("P3", 255, text), rgb),
        "n.pgm": (netpbm("P5", 255, grey.tobytes()), grey3),
        "o.pgm": (netpbm("P5", 65535, wide), grey3),
        "p.pbm": (netpbm("P4", 0, black_bits), np.repeat(bits[..., None] * np.uint8(255), 3, axis=2)),
        "q.ico": (icon(saved("PNG", np.dstack([rgb, np.full_like(grey, 255)]))), rgb),
        "r.sgi": (sgi(rgb), rgb),
        "s.dds": (dds(rgb), rgb),
        "t.pcx": (saved("PCX"), rgb),
        "u.qoi": (qoi(rgb), rgb),
        "v.ras": (sun(rgb), rgb),
        "without an ending": (saved("PNG"), rgb),
        "w.dat": (qoi(rgb), rgb),
        "x.jpg": (saved("PNG"), rgb),
        "drawn.svg": (saved("PNG"), rgb),
    }
    lossy = {name: (saved("JPEG", quality=100, subsampling=0), rgb, 6) for name in ("y.jfif", "y.JPG", "y.pjpeg")}
    lossy["z.avif"] = (saved("AVIF", quality=100, subsampling="4:4:4"), rgb, 4)
    return {name: (*file, 0) for name, file in exact.items()} | lossy


@cache
def failed_files() -> dict[str, tuple[bytes, str]]:
    """Bytes, and what the reason says, by name."""
    jpeg, png = saved("JPEG"), saved("PNG")
    return {
        "phone.heic": (FTYP + b"heic\0\0\0\0mif1heic" + bytes(200), "HEIC, which is not read"),
        "phone.jpg": (FTYP + b"mif1\0\0\0\0mif1heic" + bytes(200), "HEIC, which is not read"),
        "phone": (FTYP + b"heix\0\0\0\0mif1heix" + bytes(200), "HEIC, which is not read"),
        "empty.heic": (b"", "HEIC, which is not read"),
        "new.jxl": (b"\xff\x0a" + bytes(50), "JPEG XL"),
        "camera.DNG": (raw_of_a_camera(), "camera's raw"),
        "layers.psd": (b"8BPS\0\1" + bytes(60), "Photoshop"),
        "drawing.svg": (b"<?xml version='1.0'?>\n<!-- a -->\n<svg xmlns='x'/>", "without pixels"),
        "light.exr": (b"v/1\x01" + bytes(60), "known range"),
        "scan.dcm": (bytes(128) + b"DICM" + bytes(60), "DICOM"),
        "any.pam": (b"P7\nWIDTH 1\n", "PAM"),
        "floats.pfm": (b"Pf\n12 12\n-1.0\n" + bytes(4 * SIDE * SIDE), "floating-point"),
        "cut.jfif": (jpeg[:100], "damaged"),
        "cut": (jpeg[:100], "damaged"),
        "cut.png": (png[: len(png) // 2], "decoded"),
        "empty.tga": (b"", "empty"),
        "text.avif": (b"no image at all", "no image"),
        "cut.dds": (b"DDS " + bytes(30), "damaged"),
        "liar.ico": (icon(png, 16), "directory says 16 x 16"),
        "bomb.qoi": (b"qoif" + struct.pack(">IIBB", 60_000, 60_000, 3, 0), "not decoded"),
        "bomb.tga": (tga(colours())[:12] + struct.pack("<HHBB", 60_000, 60_000, 24, 0) + bytes(99), "no image"),
        "bomb.pgm": (b"P5 60000 60000 255\n" + bytes(20), "not decoded"),
    }


@cache
def other_files() -> dict[str, bytes]:
    """No images, and hidden ones."""
    return {
        "notes.txt": b"hello",
        "bitmaps.txt": b"BM is how a bitmap begins, and this text",
        "music.txt": b"P5 is a chord\n",
        "table.csv": b"",
        "empty": b"",
        "film.mp4": FTYP + b"isom\0\0\2\0isomiso2" + bytes(99),
        "zeros.bin": bytes(500),
        "tga.bin": tga(colours())[:12] + bytes(40),
        "inner.zip": b"PK\x05\x06" + bytes(18),
        "document.pdf": b"%PDF-1.4",
        ".hidden.png": saved("PNG"),
        ".git/config": b"x",
        "__MACOSX/._a.png": b"x",
    }
