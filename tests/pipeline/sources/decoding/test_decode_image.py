from __future__ import annotations

import contextlib
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from data_schemas.errors import ImageError
from pipeline.sources import open_source
from pipeline.sources.base import MAX_IMAGE_PIXELS
from pipeline.sources.decoding.decode_image import decode_image, read_header, resize_pixels


def header(data):
    return read_header(io.BytesIO(data))


def png_announcing(width, height):
    """A PNG whose header announces a size and whose pixels are not there."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return start + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


def test_alpha_is_laid_over_black(encoded):
    rgba = np.zeros((2, 2, 4), np.uint8)
    rgba[0, 0], rgba[0, 1], rgba[1, 0] = (200, 100, 50, 255), (200, 100, 50, 128), (255, 255, 255, 0)
    pixels = decode_image(encoded(rgba), colour=True)
    np.testing.assert_array_equal(pixels[0], [[200, 100, 50], [100, 50, 25]])
    assert not pixels[1].any()
    grey = decode_image(encoded(Image.fromarray(np.array([[[200, 128]]], np.uint8), "LA")), colour=False)
    assert grey.tolist() == [[[100]]]


def test_a_palette_with_transparency(encoded):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    data = encoded(image, transparency=1)
    assert header(data).colour
    np.testing.assert_array_equal(decode_image(data, colour=True)[0], [[10, 20, 30], [0, 0, 0], [70, 80, 90]])


def test_a_transparent_colour_without_palette(encoded):
    data = encoded(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8), transparency=(4, 5, 6))
    np.testing.assert_array_equal(decode_image(data, colour=True)[0], [[1, 2, 3], [0, 0, 0]])


def test_sixteen_bits_become_eight(encoded):
    values = np.array([[0, 255, 256, 0x1234, 0xFFFF, 200 * 257]], np.uint16)
    for kind in ("PNG", "TIFF"):
        data = encoded(Image.fromarray(values), kind)
        assert not header(data).colour
        assert decode_image(data, colour=False)[0, :, 0].tolist() == [0, 0, 1, 0x12, 255, 200]
        assert decode_image(data, colour=True).shape == (1, 6, 3)


def test_cmyk_becomes_rgb(encoded, picture):
    cmyk = Image.fromarray(picture()).convert("CMYK")
    for kind in ("JPEG", "TIFF"):
        data = encoded(cmyk, kind)
        assert header(data).colour
        pixels = decode_image(data, colour=True)
        assert pixels.shape == (12, 12, 3)
        assert np.abs(pixels.astype(int) - picture()).mean() < 12


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "YCbCr", "LAB"])
def test_every_mode_gives_uint8(encoded, picture, mode):
    data = encoded(Image.fromarray(picture()).convert(mode), "TIFF")
    for colour, channels in ((True, 3), (False, 1)):
        assert decode_image(data, colour=colour).shape == (12, 12, channels)


@pytest.mark.parametrize(("array", "words"), [
    (np.array([[0.5]], np.float32), "floating-point"),
    (np.array([[70_000]], np.int32), "32-bit"),
    (np.array([[-1]], np.int32), "32-bit"),
])  # fmt: skip
def test_pixels_without_a_known_range_are_refused(encoded, array, words):
    with pytest.raises(ImageError, match=words) as caught:
        decode_image(encoded(Image.fromarray(array), "TIFF"), colour=False)
    assert "convert the image to 8 bits" in caught.value.next_step


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_of_an_animation(encoded, kind, tmp_path, caplog):
    frames = [Image.new("RGB", (6, 5), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert header(data).animated
    assert (decode_image(data, colour=True) == (255, 0, 0)).all()
    (tmp_path / f"moving.{kind.lower()}").write_bytes(data)
    assert open_source(tmp_path).read([0])[0].failure == ""
    assert "several frames" in caplog.text
    assert "moving" in caplog.text


def test_one_pixel(encoded):
    data = encoded(np.array([[[9, 8, 7]]], np.uint8))
    assert decode_image(data, colour=True).tolist() == [[[9, 8, 7]]]
    assert (decode_image(data, colour=True, size=16) == (9, 8, 7)).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize("keep", [0.0, 0.05, 0.5, 0.9])
def test_a_truncated_image_is_refused(encoded, kind, keep):
    data = encoded(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8), kind)
    with pytest.raises(ImageError, match=r"empty|no image|damaged|cannot be decoded"):
        decode_image(data[: int(len(data) * keep)], colour=True)


def test_a_flipped_byte_in_the_pixels_of_a_png_is_noticed(encoded, picture):
    data = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)))
    data[len(data) // 2] ^= 0x5A
    with pytest.raises(ImageError, match="cannot be decoded"):
        decode_image(bytes(data), colour=True)


NO_IMAGES = {
    "empty": b"",
    "one byte": b"x",
    "text": b"text " * 100,
    "start of a PNG": b"\x89PNG\r\n\x1a\n",
    "start of a JPEG": b"\xff\xd8\xff\xe0",
    "zeros after BM": b"BM" + bytes(60),
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "PDF": b"%PDF-1.4",
    "Photoshop": b"8BPS\0\1" + bytes(60),
}


@pytest.mark.parametrize("data", NO_IMAGES.values(), ids=NO_IMAGES)
def test_what_is_no_image(data):
    for call in (lambda: header(data), lambda: decode_image(data, colour=True)):
        with pytest.raises(ImageError):
            call()


@pytest.mark.parametrize(
    ("width", "height"), [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1), (50_000_001, 1)]
)
def test_too_many_pixels_are_never_decoded(width, height):
    for call in (lambda data: header(data), lambda data: decode_image(data, colour=True, size=8)):
        with pytest.raises(ImageError, match=r"not decoded|damaged") as caught:
            call(png_announcing(width, height))
    assert f"{MAX_IMAGE_PIXELS:,}" in str(caught.value) or "damaged" in str(caught.value)


@pytest.mark.slow
def test_a_real_image_of_10000_by_10000_fails_by_name(encoded, picture, tmp_path):
    (tmp_path / "big.png").write_bytes(encoded(Image.new("L", (10_000, 10_000)), compress_level=1))
    (tmp_path / "small.png").write_bytes(encoded(picture()))
    for size in (None, 12):
        source = open_source(tmp_path, size=size)
        images = source.read([0, 1])
        assert images[0].identifier == "big.png"
        assert "not decoded" in images[0].failure
        assert images[1].failure == ""


def test_resizing_keeps_flat_images_flat_and_copies():
    flat = np.full((10, 30, 1), 77, np.uint8)
    assert (resize_pixels(flat, 7) == 77).all()
    same = np.zeros((4, 4, 3), np.uint8)
    assert not np.shares_memory(resize_pixels(same, 4), same)


@settings(max_examples=80, deadline=None)
@given(
    data=st.binary(max_size=200),
    start=st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"BM", b"RIFF"]),
)
def test_arbitrary_bytes_never_raise_anything_else(data, start):
    for call in (lambda: header(start + data), lambda: decode_image(start + data, colour=True)):
        with contextlib.suppress(ImageError):
            call()
