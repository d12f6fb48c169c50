"""Which formats of image files there are: how each is known, whether it is read, and what to do where it is not.

A file is judged by its first bytes. Its name counts where they say nothing: then it tells that an image was promised.
Formats that are read are few on purpose (fewer decoders, fewer holes): each is decoded by Pillow's own code or by a
library that Pillow ships, starts no other program, and states its size ahead of its pixels. The others are known by
name and signature only, so that no image is taken for a file that is none.

Signatures and endings are those of the formats' own specifications.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import BinaryIO, NamedTuple

from data_schemas.errors import ImageError
from pipeline.sources.decoding.weak_headers import dib_fits, require_icon_as_announced, tga_fits

HEAD_BYTES = 4096
"""So many first bytes of a file are looked at: an SVG may begin with a long comment."""

_RAW = "dng cr2 cr3 crw nef nrw arw srf sr2 orf rw2 raf pef srw 3fr fff erf kdc dcr mrw x3f iiq mos"

_NETPBM = re.compile(rb"P[1-6f]\s")
_SVG = re.compile(rb"\s*(<\?xml.*?)?<svg[\s>]", re.DOTALL)
_AVIF_BRANDS, _HEIC_BRANDS = (
    {b"avif", b"avis"},
    {b"heic", b"heix", b"hevc", b"heim", b"heis", b"hevm", b"mif1", b"msf1"},
)


class ImageFormat(NamedTuple):
    """One format.

    Attributes:
        name: for people.
        suffixes: endings of file names, lower case, that promise it.
        signatures: (offset, bytes) of its files; one that matches is enough.
        pillow: Pillow's name of it; "" where it is not read.
        advice: what to do where it is not read.
        weak: whether other files may begin like this: then a file is an image only where its name says so or its
            header can be read.
        inside: Pillow's name of the format whose signature its files have. Read as that, they would give the
            thumbnail that lies in front, so here the name decides.
    """

    name: str
    suffixes: tuple[str, ...]
    signatures: tuple[tuple[int, bytes], ...] = ()
    pillow: str = ""
    advice: str = "convert it to PNG"
    weak: bool = False
    inside: str = ""


def _starts(*texts: bytes) -> tuple[tuple[int, bytes], ...]:
    return tuple((0, text) for text in texts)


READ_FORMATS = (
    ImageFormat("PNG", (".png", ".apng"), _starts(b"\x89PNG\r\n\x1a\n"), "PNG"),
    # Pillow opens the photographs of some phones, which it calls MPO, as JPEG.
    ImageFormat(
        "JPEG",
        (".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".jfi", ".pjpeg", ".pjp", ".mpo"),
        _starts(b"\xff\xd8\xff"),
        "JPEG",
    ),
    ImageFormat("WebP", (".webp",), ((8, b"WEBP"),), "WEBP"),
    ImageFormat("GIF", (".gif",), _starts(b"GIF87a", b"GIF89a"), "GIF"),
    ImageFormat("TIFF", (".tif", ".tiff"), _starts(b"II*\0", b"MM\0*", b"MM*\0", b"II\0*", b"MM\0+", b"II+\0"), "TIFF"),
    ImageFormat("BMP", (".bmp",), _starts(b"BM"), "BMP", weak=True),
    ImageFormat("DIB", (".dib",), (), "DIB"),
    ImageFormat(
        "JPEG 2000",
        (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
        _starts(b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n"),
        "JPEG2000",
    ),
    ImageFormat("AVIF", (".avif", ".avifs"), (), "AVIF"),
    ImageFormat("TGA", (".tga", ".icb", ".vda"), (), "TGA"),
    ImageFormat("PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), (), "PPM", weak=True),
    ImageFormat("ICO", (".ico",), _starts(b"\0\0\1\0"), "ICO", weak=True),
    ImageFormat("SGI", (".sgi", ".rgb", ".rgba", ".bw"), _starts(b"\x01\xda"), "SGI", weak=True),
    ImageFormat("DDS", (".dds",), _starts(b"DDS "), "DDS"),
    ImageFormat("PCX", (".pcx",), _starts(b"\n\0", b"\n\2", b"\n\3", b"\n\5"), "PCX", weak=True),
    ImageFormat("QOI", (".qoi",), _starts(b"qoif"), "QOI"),
    ImageFormat("Sun raster", (".ras",), _starts(b"\x59\xa6\x6a\x95"), "SUN"),
)

READ_NAMES = ", ".join(form.name for form in READ_FORMATS[:-1]) + f" or {READ_FORMATS[-1].name}"
"""What is read, for messages."""

UNREAD_FORMATS = (
    ImageFormat("HEIC", (".heic", ".heif", ".hif", ".heics", ".avci"), (), advice="convert it to PNG or JPEG"),
    ImageFormat("JPEG XL", (".jxl",), _starts(b"\0\0\0\x0cJXL \r\n\x87\n"), advice="convert it to PNG (djxl does)"),
    ImageFormat("JPEG XR", (".jxr", ".wdp", ".hdp"), _starts(b"II\xbc\x01")),
    ImageFormat(
        "a camera's raw image",
        tuple("." + name for name in _RAW.split()),
        ((8, b"CR\2\0"), *_starts(b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FUJIFILMCCD-RAW", b"FOVb", b"\0MRM")),
        advice="develop it to PNG or TIFF of 8 bits",
        inside="TIFF",
    ),
    ImageFormat("Photoshop", (".psd", ".psb"), _starts(b"8BPS"), advice="export it as PNG"),
    ImageFormat("GIMP", (".xcf",), _starts(b"gimp xcf"), advice="export it as PNG"),
    ImageFormat("Krita", (".kra",), advice="export it as PNG"),
    ImageFormat("OpenRaster", (".ora",), advice="export it as PNG"),
    ImageFormat("SVG", (".svg", ".svgz"), (), advice="it is a drawing without pixels: export it as PNG of your size"),
    ImageFormat(
        "EPS",
        (".eps", ".epsf", ".epsi"),
        _starts(b"\xc5\xd0\xd3\xc6"),
        advice="it is a drawing without pixels: export it as PNG of your size",
    ),
    ImageFormat("WMF", (".wmf", ".emf"), ((0, b"\xd7\xcd\xc6\x9a"), (40, b" EMF"))),
    ImageFormat("OpenEXR", (".exr",), _starts(b"v/1\x01"), advice="bring it into a known range and 8 bits, as PNG"),
    ImageFormat("Radiance", (), _starts(b"#?RADIANCE", b"#?RGBE"), advice="bring it into a known range and 8 bits"),
    ImageFormat("DPX", (".dpx", ".cin"), _starts(b"SDPX", b"XPDS", b"\x80\x2a\x5f\xd7")),
    ImageFormat("FITS", (".fits", ".fts"), _starts(b"SIMPLE  ="), advice="bring it into a known range and 8 bits"),
    ImageFormat("DICOM", (".dcm", ".dicom"), ((128, b"DICM"),), advice="export its pixels as PNG"),
    ImageFormat("PAM", (".pam",), _starts(b"P7\n"), advice="convert it to PNG"),
    ImageFormat("CUR", (".cur", ".ani")),
    ImageFormat("ICNS", (".icns",), _starts(b"icns")),
    ImageFormat("XBM", (".xbm",)),
    ImageFormat("XPM", (".xpm",), _starts(b"/* XPM */", b"! XPM2")),
    ImageFormat("XWD", (".xwd",)),
    ImageFormat("MNG", (".mng", ".jng"), _starts(b"\x8aMNG\r\n\x1a\n", b"\x8bJNG\r\n\x1a\n")),
    ImageFormat("ILBM", (".lbm", ".ilbm"), ((8, b"ILBM"), (8, b"PBM "))),
    ImageFormat("BPG", (".bpg",), _starts(b"BPG\xfb")),
    ImageFormat("FLIF", (".flif",), _starts(b"FLIF")),
    ImageFormat("DjVu", (".djvu", ".djv"), _starts(b"AT&TFORM")),
    ImageFormat("FLIC", (".fli", ".flc"), advice="export a frame as PNG"),
    ImageFormat(
        "a texture in blocks",
        (".ktx", ".ktx2", ".astc", ".pvr", ".blp"),
        _starts(b"\xabKTX", b"\x13\xab\xa1\x5c", b"PVR\x03", b"BLP1", b"BLP2"),
        advice="unpack it to PNG",
    ),
    ImageFormat("PhotoCD", (".pcd",)),
    ImageFormat("PICT", (".pict", ".pct")),
    ImageFormat("PaintShop", (".psp", ".pspimage"), _starts(b"Paint Shop Pro Image File"), advice="export it as PNG"),
    ImageFormat("MSP", (".msp",)),
)

_BY_SUFFIX = {suffix: form for form in (*UNREAD_FORMATS, *READ_FORMATS) for suffix in form.suffixes}
_BY_NAME = {form.name: form for form in (*UNREAD_FORMATS, *READ_FORMATS)}
# What a raw image of a camera begins with is a TIFF to Pillow, so the unread ones are asked first; but nothing is as
# frequent as these two.
_BY_START = (*READ_FORMATS[:2], *UNREAD_FORMATS, *READ_FORMATS[2:])


def format_of_name(name: str) -> ImageFormat | None:
    """The format that the ending of a file's name promises; None where the name is not that of an image."""
    return _BY_SUFFIX.get(PurePosixPath(name).suffix.lower())


def format_of_bytes(head: bytes) -> ImageFormat | None:
    """The format that the first bytes of a file (HEAD_BYTES, or all of them) belong to; None where they are no image's.

    TGA and DIB have no signature: their files are known by name.
    """
    for form in _BY_START:
        for offset, text in form.signatures:
            if head.startswith(text, offset):
                return form
    if head[4:8] == b"ftyp":  # ISO/IEC 14496-12: the main brand, a version, further brands
        length = min(int.from_bytes(head[:4], "big"), len(head))
        brands = {head[8:12], *(head[at : at + 4] for at in range(16, length, 4))}
        return _BY_NAME["AVIF"] if brands & _AVIF_BRANDS else _BY_NAME["HEIC"] if brands & _HEIC_BRANDS else None
    if _NETPBM.match(head):
        return _BY_NAME["PPM"]
    return _BY_NAME["SVG"] if _SVG.match(head) else None


def format_of_file(name: str, head: bytes) -> ImageFormat | None:
    """The format of a file by its content, or else by its name.

    Args:
        name: its name or path.
        head: its first HEAD_BYTES.

    Returns:
        The format; None for a file that is no image.
    """
    by_name, by_bytes = format_of_name(name), format_of_bytes(head)
    if by_bytes is None:
        return by_name
    return by_name if by_name is not None and by_name.inside == by_bytes.pillow else by_bytes


def pillow_formats(stream: BinaryIO) -> tuple[str, ...]:
    """Pillow's names of the formats that a file may be opened as; its position stays at the beginning.

    One signature, one decoder: damaged bytes of one format are never tried as another.

    Raises:
        ImageError: the content is of a format that is not read, or an icon hides another size than it announces.
    """
    stream.seek(0)
    head = stream.read(HEAD_BYTES)
    form = format_of_bytes(head)
    if form is None:
        names = tuple(name for name, fits in (("DIB", dib_fits), ("TGA", tga_fits)) if fits(head, _length(stream)))
    else:
        if not form.pillow:
            raise unread(form)
        if form.pillow == "ICO":
            require_icon_as_announced(stream)
        names = (form.pillow,)
    stream.seek(0)
    return names


def unread(form: ImageFormat) -> ImageError:
    """Why an image of a format that is not read fails, and what to do."""
    return ImageError(f"The image is {form.name}, which is not read", next_step=form.advice)


def _length(stream: BinaryIO) -> int:
    return stream.seek(0, 2)
