"""Transparency of image files: which samples are transparent, and what they are laid over."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image

from data_schemas.errors import JobError, SourceError
from pipeline.image_limits import BLACK
from pipeline.sources import open_source
from pipeline.sources.decoding.background import background_name, colour_of, is_grey
from pipeline.sources.decoding.decode_image import decode_image, read_header, read_image

WHITE, RED = "#ffffff", "#ff0000"


def transparent(*values):
    """Chunk tRNS of a PNG without palette."""
    return [(b"tRNS", struct.pack(f">{len(values)}H", *values))]


def grey(data, background=BLACK):
    return decode_image(data, colour=False, background=background)[..., 0].tolist()


@pytest.mark.parametrize(
    ("bits", "row", "key", "levels"),
    [
        (1, b"\x60", 0, [None, 255, 255, None]),
        (1, b"\x60", 1, [0, None, None, 0]),
        (2, b"\x1b", 2, [0, 85, None, 255]),
        (2, b"\x1b", 0xFFFF, [0, 85, 170, None]),  # only the low bits of the key count
        (4, b"\x05\xaf", 5, [0, None, 170, 255]),
        (4, b"\x05\xaf", 15, [0, 85, 170, None]),
        (8, b"\x00\x05\xaf\xff", 5, [0, None, 175, 255]),
        (16, struct.pack(">4H", 0x1234, 0x1235, 0xFFFF, 0), 0x1234, [None, 0x12, 255, 0]),
    ],
)
def test_the_transparent_value_of_a_grey_png(png, bits, row, key, levels):
    data = png([row], 4, bits=bits, before=transparent(key))
    assert grey(data) == [[0 if level is None else level for level in levels]]
    assert grey(data, WHITE) == [[255 if level is None else level for level in levels]]
    assert decode_image(data, colour=True, background=RED)[0].tolist() == [
        [255, 0, 0] if level is None else [level] * 3 for level in levels
    ]


def test_the_transparent_value_of_a_png_of_sixteen_bit_colours(png):
    # The second and third differ from the first in one low byte: after reduction all three would be equal.
    row = struct.pack(">9H", 0x1234, 0x5678, 0x9ABC, 0x1234, 0x5678, 0x9ABD, 0x1235, 0x5678, 0x9ABC)
    data = png([row], 3, bits=16, colour_type=2, before=transparent(0x1234, 0x5678, 0x9ABC))
    seen = [0x12, 0x56, 0x9A]
    assert decode_image(data, colour=True).tolist() == [[[0, 0, 0], seen, seen]]
    assert decode_image(data, colour=True, background=WHITE).tolist() == [[[255] * 3, seen, seen]]


def test_small_values_of_a_sixteen_bit_key_do_not_match_high_bytes(png):
    data = png([struct.pack(">3H", 0x0100, 0x0200, 0x0300)], 1, bits=16, colour_type=2, before=transparent(1, 2, 3))
    assert decode_image(data, colour=True, background=WHITE).tolist() == [[[1, 2, 3]]]


def test_every_kind_of_transparency_is_laid_over_the_background(encoded):
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], np.uint8)
    # A fifth of the image over four fifths of white.
    expected = [[200, 100, 50], [255, 255, 255], [244, 224, 214]]
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = decode_image(encoded(rgba, kind, **options), colour=True, background=WHITE)[0]
        assert np.abs(found.astype(int) - expected).max() <= 1
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    for kind in ("PNG", "GIF"):
        found = decode_image(encoded(palette, kind, transparency=1), colour=True, background=WHITE)
        assert found[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    grey_alpha = Image.fromarray(np.array([[[200, 255], [200, 0]]], np.uint8), "LA")
    assert grey(encoded(grey_alpha), WHITE) == [[200, 255]]


def test_premultiplied_grey_of_a_tiff(tiff):
    tags = {256: 2, 257: 1, 258: (8, 8), 259: 1, 262: 1, 277: 2, 338: 1}
    assert grey(tiff(tags, [bytes((100, 128, 7, 255))])) == [[100, 7]]


def test_a_coloured_background_gives_grey_images_colour(encoded, tmp_path, pixels_of):
    data = encoded(Image.fromarray(np.array([[[200, 255], [200, 0]]], np.uint8), "LA"))
    (tmp_path / "icon.png").write_bytes(data)
    for background, colour in ((BLACK, False), (WHITE, False), (RED, True)):
        assert read_header(io.BytesIO(data), background).colour is colour
        source = open_source(tmp_path, background=background)
        assert source.image_shape == (1, 2, 3 if colour else 1)
        assert source.record.background == background
        found = pixels_of(source, [0])[0]
        assert found[0, 1].tolist() == list(colour_of(background)[: found.shape[2]])


@pytest.mark.parametrize(
    ("rgba", "over_black", "over_white"),
    [
        ([[0, 0, 0, 255], [0, 0, 0, 0]], True, False),  # a black drawing
        ([[9, 9, 9, 0], [200, 0, 0, 0]], True, True),  # nothing at all
        ([[255, 255, 255, 255], [0, 0, 0, 0]], False, True),
        ([[0, 0, 0, 255], [0, 0, 0, 255]], False, False),  # black and whole
        ([[0, 0, 0, 255], [10, 0, 0, 255]], False, False),
    ],
)
def test_an_image_that_vanishes_is_told(encoded, rgba, over_black, over_white):
    data = encoded(np.array([rgba], np.uint8))
    assert read_image(data, colour=True).vanished is over_black
    assert read_image(data, colour=True, background=WHITE).vanished is over_white


def test_a_wide_grey_image_with_a_transparent_value_vanishes_too(png):
    data = png([struct.pack(">2H", 0, 0x8000)], 2, bits=16, before=transparent(0x8000))
    assert read_image(data, colour=False).vanished
    assert not read_image(data, colour=False, background=WHITE).vanished


def test_a_source_notes_which_images_vanish_in_a_folder_and_in_a_zip(encoded, tmp_path, write_zip):
    hidden = encoded(np.zeros((4, 4, 4), np.uint8))
    seen = encoded(np.full((4, 4, 4), 255, np.uint8))
    (tmp_path / "a").mkdir()
    for name, data in (("hidden.png", hidden), ("seen.png", seen)):
        (tmp_path / "a" / name).write_bytes(data)
    archive = write_zip(tmp_path / "a.zip", [("hidden.png", hidden), ("seen.png", seen)])
    for place in (tmp_path / "a", archive):
        images = open_source(place, background=BLACK).read([0, 1])
        assert [[note.kind for note in image.notes] for image in images] == [["vanished"], []]


@pytest.mark.parametrize(
    ("typed", "name"),
    [("black", BLACK), ("White", WHITE), ("#FFF", WHITE), ("#Fe8001", "#fe8001"), ("rgb(1, 2, 3)", "#010203")],
)
def test_a_colour_has_one_name(typed, name):
    assert background_name(typed) == name
    assert background_name(name) == name


@pytest.mark.parametrize("typed", ["", "blanc", "#12", "#ffffff80", "rgba(0, 0, 0, 0)"])
def test_what_is_no_colour(typed):
    with pytest.raises(JobError, match="--background white"):
        background_name(typed)


def test_which_colours_are_grey():
    assert is_grey("#808080")
    assert not is_grey("#808081")


@pytest.mark.parametrize("name", ["demo", "cats"])
def test_sets_without_transparency_take_no_background(name):
    with pytest.raises(SourceError, match="no transparency"):
        open_source(name, background=WHITE, download=False)


def test_an_array_takes_no_background(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4), np.uint8))
    with pytest.raises(SourceError, match="no transparency"):
        open_source(tmp_path / "images.npy", background=WHITE)
