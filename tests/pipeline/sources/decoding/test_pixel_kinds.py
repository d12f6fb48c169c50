"""Every kind of number that pixels are made of: right by the bits that the file declares, or refused by its header."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from data_schemas.errors import ImageError
from pipeline.sources import open_source
from pipeline.sources.decoding.decode_image import decode_image, read_header, read_image

GREY = {256: 4, 257: 1, 258: 16, 259: 1, 262: 1, 277: 1}
"""Tags of a TIFF of one row of four 16-bit numbers: width, height, bits, compression, photometric, channels."""


def grey(data):
    return decode_image(data, colour=False)[..., 0].tolist()


def test_twelve_bits_of_a_tiff_are_scaled_by_twelve(tiff):
    # 0x000 0x7FF 0xABC 0xFFF, first number in the highest bits (TIFF 6.0, section 8).
    packed = bytes.fromhex("0007ffabcfff")
    assert grey(tiff({**GREY, 258: 12}, [packed])) == [[0, 0x7F, 0xAB, 0xFF]]


@pytest.mark.parametrize(
    ("bits", "row", "levels"),
    [(1, b"\x50", [0, 255, 0, 255]), (2, b"\x1b", [0, 85, 170, 255]), (4, b"\x05\xaf", [0, 85, 170, 255]),
     (8, b"\x00\x07\xf0\xff", [0, 7, 240, 255])],
)  # fmt: skip
def test_fewer_bits_of_a_tiff_are_spread(tiff, bits, row, levels):
    assert grey(tiff({**GREY, 258: bits}, [row])) == [levels]
    assert grey(tiff({**GREY, 258: bits, 262: 0}, [row])) == [[255 - level for level in levels]]


def test_sixteen_bits_where_white_is_zero_are_inverted(tiff):
    numbers = struct.pack("<4H", 0, 0x1234, 0x8000, 0xFFFF)
    assert grey(tiff(GREY, [numbers])) == [[0, 0x12, 0x80, 0xFF]]
    assert grey(tiff({**GREY, 262: 0}, [numbers])) == [[0xFF, 0xED, 0x7F, 0]]


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("channels", [3, 4])
def test_sixteen_bit_channels_in_planes_of_their_own(tiff, order, channels):
    planes = np.random.default_rng(1).integers(0, 1 << 16, (channels, 2, 3), np.uint16)
    strips = [plane.astype(f"{order}u2").tobytes() for plane in planes]
    bits = (16,) * channels
    tags = {256: 3, 257: 2, 258: bits, 259: 1, 262: 2, 277: channels, 278: 2, 284: 2}
    if channels == 4:
        planes[3] = 0xFFFF
        strips[3] = planes[3].tobytes()
        tags[338] = 2
    expected = np.moveaxis(planes[:3] >> 8, 0, -1)
    np.testing.assert_array_equal(decode_image(tiff(tags, strips, order), colour=True), expected)


REFUSED = {
    "signed 8": ({258: 8, 339: 2}, bytes(4), "8-bit signed integers"),
    "signed 16": ({339: 2}, struct.pack("<4h", 0, 1, 2, 32_767), "16-bit signed integers"),
    "signed 16 below zero": ({339: 2}, struct.pack("<4h", -5, 1, 2, 3), "16-bit signed integers"),
    "unsigned 32": ({258: 32}, struct.pack("<4I", 1, 2, 3, 255), "32-bit unsigned integers"),
    "signed 32": ({258: 32, 339: 2}, struct.pack("<4i", 0, 100, 200, 60_000), "32-bit signed integers"),
    "float 32": ({258: 32, 339: 3}, struct.pack("<4f", 0, 0.5, 1, 255), "32-bit floating-point"),
    "float 64": ({258: 64, 339: 3}, struct.pack("<4d", 0, 0.5, 1, 255), "64-bit floating-point"),
    "5 channels": ({258: (8,) * 5, 262: 2, 277: 5}, bytes(20), "5 channels of 8-bit unsigned integers, RGB"),
    "14 bits": ({258: 14}, bytes(7), "1 channel of 14-bit unsigned integers"),
    "compression": ({259: 34_712}, bytes(8), r"compression 34712 \(unknown\)"),
    "grey and alpha in planes": ({258: (8, 8), 277: 2, 284: 2, 338: 2}, bytes(8), "separate planes"),
    "black is one in a plane": ({258: 1, 262: 0, 284: 2}, bytes(1), "separate planes"),
}


@pytest.mark.parametrize(("tags", "strip", "words"), REFUSED.values(), ids=REFUSED)
def test_a_sound_tiff_of_another_kind_is_refused_by_its_header_and_not_called_damaged(tiff, tags, strip, words):
    data = tiff({**GREY, **tags}, [strip] * (2 if tags.get(277) == 2 else 1))
    for read in (lambda: read_header(io.BytesIO(data)), lambda: decode_image(data, colour=False)):
        with pytest.raises(ImageError, match=words) as caught:
            read()
        assert "damaged" not in str(caught.value)
        assert "convert the image to 8 bits" in caught.value.next_step


def test_a_bitmap_of_another_kind_is_not_called_damaged(encoded, picture):
    data = bytearray(encoded(picture(), "BMP"))
    data[28:30] = struct.pack("<H", 12)  # bits of a pixel
    with pytest.raises(ImageError, match=r"This kind of BMP is not read .*12"):
        read_header(io.BytesIO(data))


def test_a_jpeg_of_twelve_bits_is_not_called_damaged(encoded, picture):
    data = bytearray(encoded(picture(), "JPEG"))
    data[data.index(b"\xff\xc0") + 4] = 12  # precision, in the frame header
    with pytest.raises(ImageError, match=r"This kind of JPEG is not read .*12-bit"):
        read_header(io.BytesIO(data))


def test_an_unknown_directory_that_is_damaged_is_called_so(tiff):
    with pytest.raises(ImageError, match="damaged"):
        read_header(io.BytesIO(tiff({**GREY, 258: 64, 339: 3}, [bytes(32)])[:-30]))


def row_of(*values):
    return [struct.pack(f">{len(values)}H", *values)]


@pytest.mark.parametrize(
    ("significant", "values", "expected"),
    [
        (12, (0, 0x123, 0xFFF, 0x800), [0, 0x12, 0xFF, 0x80]),  # written as they are
        (10, (0, 0x3FF, 0x201, 0x100), [0, 0xFF, 0x80, 0x40]),
        (12, (0, 0x1230, 0xFFF0, 0x8000), [0, 0x12, 0xFF, 0x80]),  # moved up, as PNG wants it
        (12, (0x1231, 0xFFFF, 0x8008, 0), [0x12, 0xFF, 0x80, 0]),  # and the low bits filled with the high ones
        (12, (0x10, 0xFF0, 0x20, 0), [0, 15, 0, 0]),  # moved up and dark
        (16, (0, 0x123, 0xFFF, 0x800), [0, 1, 15, 8]),
        (3, (0, 1, 7, 2), [0, 0, 0, 0]),  # nothing that 8 bits could be made of
    ],
)
def test_significant_bits_of_a_png(png, significant, values, expected):
    data = png(row_of(*values), 4, bits=16, before=[(b"sBIT", bytes([significant]))])
    assert grey(data) == [expected]


def test_sixteen_bits_of_a_png_without_that_chunk(png):
    assert grey(png(row_of(0, 0x123, 0xFFF, 0xFFFF), 4, bits=16)) == [[0, 1, 15, 255]]


@pytest.mark.parametrize(
    ("values", "flattened"),
    [
        ((0, 1, 0, 1), True),  # a mask
        ((0, 85, 170, 255), True),  # 8 bits in 16
        ((0, 1365, 2730, 4095), True),  # 12 bits in 16
        ((0, 100, 200, 0xFFFF), False),
        ((0, 0, 0, 0), False),  # it was of one grey before
        ((0x8000, 0x8000, 0x8000, 0x8000), False),
        ((0x8000, 0x8001, 0x8002, 0x8003), True),
        ((0x1000, 0x1100, 0x1200, 0x2000), False),
    ],
)
def test_what_becomes_flat_is_told(png, tiff, values, flattened):
    assert read_image(png(row_of(*values), 4, bits=16), colour=False).flattened is flattened
    assert read_image(tiff(GREY, [struct.pack("<4H", *values)]), colour=True).flattened is flattened
    assert not read_image(png([bytes(range(4))], 4), colour=False).flattened  # 8 bits lose nothing


@pytest.mark.parametrize(
    ("values", "flattened"),
    [
        ((1, 2, 3), True),
        ((0, 2047, 4095), True),  # 12 bits in 16
        ((0, 5000, 65_535), False),
        ((4660, 4660, 4660), False),  # one colour before
    ],
)
def test_colours_that_become_flat_are_told(png, encoded, values, flattened):
    samples = np.array([[(value, 7, value) for value in values]], np.uint16)
    opaque = np.full((1, 3, 1), 65_535, np.uint16)
    rgba, grey_alpha = np.dstack([samples, opaque]), np.dstack([samples[..., :1], opaque])
    for array, colour_type in ((samples, 2), (rgba, 6), (grey_alpha, 4)):
        data = png([array.astype(">u2").tobytes()], 3, bits=16, colour_type=colour_type)
        assert read_image(data, colour=True).flattened is flattened
    tifffile = pytest.importorskip("tifffile", reason="comes with scikit-image")
    for options in (
        {"byteorder": "<"},
        {"byteorder": ">"},
        {"byteorder": "<", "compression": "zlib"},
        {"byteorder": ">", "compression": "zlib"},
        {"byteorder": ">", "planarconfig": "separate"},
    ):
        stream = io.BytesIO()
        array = np.moveaxis(samples, -1, 0) if "planarconfig" in options else samples
        tifffile.imwrite(stream, array, photometric="rgb", metadata=None, **options)
        assert read_image(stream.getvalue(), colour=True).flattened is flattened


def test_a_source_notes_which_images_became_flat(png, tmp_path):
    (tmp_path / "mask.png").write_bytes(png(row_of(0, 1, 0, 1), 4, bits=16))
    (tmp_path / "whole.png").write_bytes(png(row_of(0, 1, 0, 0xFFFF), 4, bits=16))
    images = open_source(tmp_path).read([0, 1])
    assert [[note.kind for note in image.notes] for image in images] == [["flattened"], []]


def test_a_portable_greymap_is_scaled_by_its_greatest_value():
    # Pillow opens it where the formats that are read allow it, and has scaled it to 16 bits by then.
    image = Image.open(io.BytesIO(b"P5 3 1 4095\n" + struct.pack(">3H", 0, 2048, 4095)))
    from pipeline.sources.decoding.eight_bits import as_eight_bits
    from pipeline.sources.decoding.pixel_kinds import kind_of

    kind = kind_of(image)
    image.load()
    assert np.asarray(as_eight_bits(image, kind, None, b"")[0]).tolist() == [[0, 128, 255]]


@pytest.mark.parametrize("kind", ["P5", "P6"])
def test_a_portable_map_of_another_greatest_value_is_spread(kind):
    values = np.arange(300 if kind == "P6" else 100).astype(np.uint8) % 101
    file = f"{kind}\n10 10\n100\n".encode() + values.tobytes()
    found = decode_image(file, colour=kind == "P6").reshape(-1)
    np.testing.assert_array_equal(found, np.round(values.astype(float) * 255 / 100))
    beyond = f"{kind}\n10 10\n100\n".encode() + bytes([200]) * values.size
    assert (decode_image(beyond, colour=kind == "P6") == 255).all()


def equal_to_pillow_free_reader(array, data):
    """What a reader that shares no code with Pillow finds in a TIFF, in 8 bits."""
    tifffile = pytest.importorskip("tifffile", reason="comes with scikit-image")
    with tifffile.TiffFile(io.BytesIO(data)) as opened:
        page = opened.pages[0]
        found = page.asarray()
        np.testing.assert_array_equal(found, array)
        found = found >> 8 if found.dtype == np.uint16 else found
        found = np.moveaxis(found, 0, -1) if page.planarconfig == 2 and found.ndim == 3 else found
        return 255 - found if page.photometric == 0 else found


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("layout", ["minisblack", "miniswhite", "rgb", "rgb separate", "separated"])
def test_tiffs_as_another_reader_reads_them(dtype, compression, order, layout):
    tifffile = pytest.importorskip("tifffile", reason="comes with scikit-image")
    photometric, *separate = layout.split()
    channels = {"rgb": (3,), "separated": (4,)}.get(photometric, ())
    shape = (*channels, 5, 7) if separate else (5, 7, *channels)
    array = np.random.default_rng(4).integers(0, 256 ** int(dtype[1]), shape, f"u{dtype[1]}")
    stream = io.BytesIO()
    tifffile.imwrite(
        stream, array, photometric=photometric, compression=compression, byteorder=order, metadata=None,
        planarconfig="separate" if separate else None,
    )  # fmt: skip
    data = stream.getvalue()
    expected = equal_to_pillow_free_reader(array, data)
    if (dtype, layout, order) == ("u2", "miniswhite", ">"):
        with pytest.raises(ImageError, match="WhiteIsZero"):
            decode_image(data, colour=False)
        return
    if photometric == "separated":  # what is shown of inks: the light that none of them takes away
        light = 255 - expected.astype(int)
        expected = np.round(light[..., :3] * light[..., 3:] / 255)
        assert np.abs(decode_image(data, colour=True) - expected).max() <= 1
        return
    pixels = decode_image(data, colour=photometric == "rgb")
    np.testing.assert_array_equal(pixels[..., 0] if pixels.shape[2] == 1 else pixels, expected)
