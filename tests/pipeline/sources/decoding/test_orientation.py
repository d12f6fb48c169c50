"""Photographs that lie on a side or are mirrored: every value of the tag, in every format that carries it."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pipeline.sources import open_source
from pipeline.sources.decoding.decode_image import decode_image, decode_layer, read_header

ORIENTATIONS = range(1, 9)

KINDS = {
    "WEBP": {"lossless": True},
    "PNG": {},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF deflate": {"compression": "tiff_adobe_deflate"},
    "TIFF packbits": {"compression": "packbits"},
}
"""Formats and compressions that keep every pixel, and how Pillow is asked for them."""


def stored_as(upright, orientation):
    """How a camera stores an image: the inverse of what a viewer has to do."""
    return np.ascontiguousarray({
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.swapaxes(0, 1),
        6: np.rot90(upright), 7: np.rot90(upright, 2).swapaxes(0, 1), 8: np.rot90(upright, -1),
    }[orientation])  # fmt: skip


@pytest.fixture
def photograph(encoded):
    """Bytes of an upright image as a camera stores it: (image, orientation, kind)."""

    def make(upright, orientation, kind, **options):
        exif = Image.Exif()
        exif[0x0112] = orientation
        return encoded(stored_as(upright, orientation), kind.split()[0], exif=exif, **KINDS.get(kind, {}), **options)

    return make


def size_of(data):
    header = read_header(io.BytesIO(data))
    return header.height, header.width


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_pixel_is_where_a_viewer_shows_it(photograph, picture, orientation, kind):
    upright = picture(1, 8, 12)
    data = photograph(upright, orientation, kind)
    assert size_of(data) == (8, 12)
    np.testing.assert_array_equal(decode_image(data, colour=True), upright)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_jpeg(photograph, picture, orientation):
    upright = picture(1, 16, 24)
    data = photograph(upright, orientation, "JPEG", quality=95, subsampling=0)
    assert size_of(data) == (16, 24)
    assert np.abs(decode_image(data, colour=True).astype(int) - upright).max() < 12


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("mode", ["1 fax", "L", "P", "I;16", "RGBA"])
def test_other_pixels_of_a_tiff(encoded, orientation, mode):
    upright = np.random.default_rng(2).integers(0, 2, (8, 12), np.uint8) * 255
    stored = Image.fromarray(stored_as(upright, orientation))
    if mode == "I;16":
        stored = Image.fromarray(np.asarray(stored).astype(np.uint16) * 257)
    else:
        stored = stored.convert(mode.split()[0])
    data = encoded(stored, "TIFF", tiffinfo={0x0112: orientation}, compression="group4" if "fax" in mode else None)
    assert size_of(data) == (8, 12)
    np.testing.assert_array_equal(decode_image(data, colour=False)[..., 0], upright)


def test_a_tiff_whose_xmp_alone_tells_is_turned_once(encoded, picture):
    upright = picture(1, 8, 12)
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    data = encoded(stored_as(upright, 6), "TIFF", tiffinfo={700: xmp})
    assert size_of(data) == (8, 12)
    np.testing.assert_array_equal(decode_image(data, colour=True), upright)


def exif_block(kind, count, value):
    """EXIF with one tag, the orientation, of any type of TIFF."""
    return b"MM\0*\0\0\0\x08\0\x01" + struct.pack(">HHI4s", 0x0112, kind, count, value) + bytes(4)


@pytest.mark.parametrize(
    "exif",
    [
        exif_block(2, 4, b"top\0"),
        exif_block(1, 1, b"\x06\0\0\0"),
        exif_block(3, 1, b"\0\0\0\0"),
        exif_block(3, 1, b"\0\x09\0\0"),
        exif_block(11, 1, struct.pack(">f", 6)),
        exif_block(3, 1, b"\0\x06\0\0")[:15],
        b"MM\0*\xff\xff\xff\xf0",
        b"no TIFF at all",
        b"",
    ],
    ids=["word", "byte", "0", "9", "float", "cut", "nowhere", "text", "empty"],
)
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "PNG"])
def test_what_is_no_number_from_1_to_8_means_upright(encoded, picture, kind, exif):
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(picture(1, 8, 12), kind, exif=b"Exif\0\0" + exif, **options)
    assert size_of(data) == (8, 12)
    assert decode_image(data, colour=True).shape == (8, 12, 3)


@pytest.mark.parametrize("value", [0, 9, 60_000])
def test_a_tiff_with_another_number_is_upright(encoded, picture, value):
    data = encoded(picture(1, 8, 12), "TIFF", tiffinfo={0x0112: value})
    assert size_of(data) == (8, 12)
    np.testing.assert_array_equal(decode_image(data, colour=True), picture(1, 8, 12))


def test_a_tiff_whose_other_exif_is_damaged_is_read(encoded, picture):
    # 34665 is where the EXIF of a TIFF lies; here nothing lies there.
    data = encoded(stored_as(picture(1, 8, 12), 6), "TIFF", tiffinfo={0x0112: 6, 34665: 2**31})
    assert size_of(data) == (8, 12)
    np.testing.assert_array_equal(decode_image(data, colour=True), picture(1, 8, 12))


def test_a_folder_and_a_zip_of_all_values_have_one_size(photograph, picture, write_zip, tmp_path, pixels_of):
    upright = picture(1, 8, 12)
    files = {
        f"{number}.{kind.lower()}": photograph(upright, number, kind)
        for number in ORIENTATIONS
        for kind in ("PNG", "WEBP", "TIFF")
    }
    (tmp_path / "folder").mkdir()
    for name, data in files.items():
        (tmp_path / "folder" / name).write_bytes(data)
    for place in (tmp_path / "folder", write_zip(tmp_path / "images.zip", files.items())):
        source = open_source(place)
        assert source.image_shape == (8, 12, 3)
        np.testing.assert_array_equal(pixels_of(source, range(24)), np.broadcast_to(upright, (24, 8, 12, 3)))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_sheet_keeps_its_transparency_and_is_turned(photograph, orientation):
    upright = np.random.default_rng(3).integers(0, 256, (8, 12, 4), np.uint8)
    np.testing.assert_array_equal(decode_layer(photograph(upright, orientation, "PNG")), upright)
