"""What decoders say is kept for each file and thread, and nothing reaches the terminal raw."""

from __future__ import annotations

import io
import logging
import threading
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from data_schemas.errors import ImageError
from pipeline.sources import open_source
from pipeline.sources.decoding.decode_image import MOST_TEXT_BYTES, decode_image, read_header, read_image
from pipeline.sources.decoding.messages import MOST_MESSAGES, collect_messages


@pytest.fixture
def damaged_tiff(encoded):
    """A deflated TIFF whose checksum is wrong: libtiff prints that, and Pillow only says "decoder error -2"."""
    data = bytearray(encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8), "TIFF",
                             compression="tiff_adobe_deflate"))  # fmt: skip
    data[300:400] = bytes(100)
    return bytes(data)


@pytest.fixture
def odd_png(encoded, picture):
    """A PNG that announces an animation of no frames: Pillow warns and reads the image."""
    info = PngImagePlugin.PngInfo()
    info.add(b"acTL", bytes(8))
    return encoded(Image.fromarray(picture()), pnginfo=info)


def test_libtiff_is_heard_and_prints_nothing(damaged_tiff, capfd):
    with pytest.raises(ImageError, match="ZIPDecode"):
        decode_image(damaged_tiff, colour=True)
    assert capfd.readouterr() == ("", "")


def test_a_warning_is_kept_for_every_file_and_shown_for_none(odd_png, recwarn):
    for _ in range(2):
        assert "Invalid APNG" in read_header(io.BytesIO(odd_png)).messages[0]
        assert "Invalid APNG" in read_image(odd_png, colour=True).messages[0]
    assert not recwarn.list


def test_warnings_of_others_are_shown_as_before():
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with collect_messages() as messages:
            other = threading.Thread(target=warnings.warn, args=("of another thread",))
            other.start()
            other.join()
            warnings.warn("of this thread", stacklevel=1)
        warnings.warn("afterwards", stacklevel=1)
    assert messages == ["of this thread"]
    assert [str(warning.message) for warning in shown] == ["of another thread", "afterwards"]


def test_logs_of_pillow_are_kept_in_the_thread_that_reads(capfd):
    with collect_messages() as messages:
        logging.getLogger("PIL.TiffImagePlugin").error("More samples per pixel than can be decoded: %s", 99)
    assert messages == ["More samples per pixel than can be decoded: 99"]
    assert capfd.readouterr().err == ""


def test_a_file_says_each_thing_once_and_few_things():
    with collect_messages() as messages:
        for number in (1, 1, 2, 3, 4, 5):
            logging.getLogger("PIL").warning("line %d\n  broken. ", number)
    assert messages == ["line 1 broken", "line 2 broken", "line 3 broken"]
    assert len(messages) == MOST_MESSAGES


def test_a_folder_names_the_files_once(odd_png, picture, encoded, tmp_path, caplog):
    for number in range(8):
        (tmp_path / f"odd{number}.png").write_bytes(odd_png)
    (tmp_path / "plain.png").write_bytes(encoded(picture()))
    source = open_source(tmp_path)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "8 images have a header with faults" in told[0]
    assert "odd0.png: Invalid APNG" in told[0]
    assert "and 3 more" in told[0]
    # What the header said already is no note of the image.
    assert all(image.notes == () for image in source.read(range(9)))


def test_what_only_the_pixels_tell_is_a_note(png, tmp_path):
    # The second announcement of an animation stands after the pixels.
    late = png([bytes(4)], 4, before=[(b"acTL", b"\0\0\0\1\0\0\0\0")], after=[(b"acTL", bytes(8))])
    (tmp_path / "late.png").write_bytes(late)
    notes = open_source(tmp_path).read([0])[0].notes
    assert [(note.kind, "APNG" in note.text) for note in notes] == [("decoder", True)]


def text_chunks(kind, size):
    """A compressed text or colour profile of so many bytes."""
    packed = zlib.compress(bytes(size))
    return [{"zTXt": (b"zTXt", b"history\0\0" + packed), "iTXt": (b"iTXt", b"history\0\1\0\0\0" + packed),
             "iCCP": (b"iCCP", b"profile\0\0" + packed)}[kind]]  # fmt: skip


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP"])
@pytest.mark.parametrize("place", ["before", "after"])
def test_a_png_with_a_long_text_or_profile_is_read(png, kind, place):
    data = png([bytes((7, 8))], 2, **{place: text_chunks(kind, 3 << 20)})
    assert read_header(io.BytesIO(data)).width == 2
    assert decode_image(data, colour=False).tolist() == [[[7], [8]]]


@pytest.mark.parametrize("kind", ["zTXt", "iCCP"])
def test_one_that_unpacks_to_too_much_is_refused_and_not_called_damaged(png, kind, monkeypatch):
    assert MOST_TEXT_BYTES == PngImagePlugin.MAX_TEXT_CHUNK == 64 << 20
    monkeypatch.setattr(PngImagePlugin, "MAX_TEXT_CHUNK", 1 << 16)
    data = png([bytes((7, 8))], 2, before=text_chunks(kind, 1 << 17))
    with pytest.raises(ImageError, match="64 MiB") as caught:
        read_header(io.BytesIO(data))
    assert "damaged" not in str(caught.value)
