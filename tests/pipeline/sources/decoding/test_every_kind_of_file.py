"""A folder (and the same as a zip) that holds a file of every kind: each is right, or named, or counted."""

from __future__ import annotations

import logging
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from pipeline.sources import open_source
from pipeline.sources.decoding.formats import READ_FORMATS, UNREAD_FORMATS, format_of_bytes, format_of_name
from tests.pipeline.sources.decoding.one_of_every_kind import (
    colours,
    failed_files,
    icon,
    other_files,
    read_files,
    saved,
)


@pytest.fixture(scope="module", params=["folder", "zip"])
def opened(request, tmp_path_factory):
    """The source, and every file by name."""
    files = {name: file[0] for name, file in (read_files() | failed_files()).items()} | other_files()
    root = tmp_path_factory.mktemp("every") / "set"
    if request.param == "zip":
        root.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        return open_source(root.with_suffix(".zip")), files
    for name, data in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return open_source(root), files


@pytest.fixture(scope="module")
def images(opened):
    """What was read, by name."""
    source, _ = opened
    return {image.identifier: image for image in source.read(range(len(source)))}


def test_read_and_failed_and_left_out_add_up(opened, images):
    source, files = opened
    failed = sum(bool(image.failure) for image in images.values())
    assert len(images) - failed == len(read_files())
    assert failed == len(failed_files())
    assert source.record.left_out == len(other_files())
    assert len(images) + source.record.left_out == len(files)
    assert not images.keys() & other_files().keys()


@pytest.mark.parametrize("name", read_files())
def test_what_can_be_read_is_right(images, name):
    _, pixels, most = read_files()[name]
    image = images[name]
    assert image.failure == ""
    assert image.pixels.shape == pixels.shape
    assert np.abs(image.pixels.astype(int) - pixels).max() <= most


@pytest.mark.parametrize("name", failed_files())
def test_what_cannot_be_read_is_named_with_its_reason(images, name):
    assert images[name].pixels is None
    assert failed_files()[name][1] in images[name].failure


def test_one_warning_counts_what_is_left_out(tmp_path, caplog):
    caplog.set_level(logging.INFO, "splatspace.sources")
    (tmp_path / "a.png").write_bytes(read_files()["a.png"][0])
    for number in range(1, 6):
        (tmp_path / f"{number}.txt").write_bytes(b"text")
    (tmp_path / ".hidden.png").write_bytes(b"")
    assert open_source(tmp_path).record.left_out == 6
    said = [record for record in caplog.records if "left out" in record.message]
    assert [record.levelname for record in said] == ["WARNING"]
    assert "6 files are left out: no images 5 (1.txt; 2.txt; 3.txt; and 2 more)" in said[0].message
    assert "hidden 1 (.hidden.png)" in said[0].message


@pytest.mark.parametrize("turn", range(1, 9))
def test_an_avif_is_turned_as_its_orientation_says(tmp_path, turn):
    # EXIF 2.32, tag 0x0112: where the stored first line and column belong.
    upright = np.ascontiguousarray(np.concatenate([colours()[:, :8], np.zeros((12, 8, 3), np.uint8)], axis=1)[:, :10])
    stored = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[turn]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = turn
    data = saved("AVIF", np.ascontiguousarray(stored), quality=100, subsampling="4:4:4", exif=exif.tobytes())
    (tmp_path / "a.avif").write_bytes(data)
    source = open_source(tmp_path)
    assert source.image_shape == upright.shape
    pixels = source.read([0])[0].pixels
    assert pixels is not None
    assert np.abs(pixels.astype(int) - upright).mean() < 4


def test_an_icon_cannot_hide_a_larger_image(tmp_path):
    large = saved("PNG", np.zeros((3000, 3000), np.uint8))
    (tmp_path / "a.ico").write_bytes(icon(large))
    (tmp_path / "b.png").write_bytes(saved("PNG"))
    assert "has 3000 x 3000 pixels" in open_source(tmp_path).read([0])[0].failure


@pytest.mark.parametrize(
    ("name", "at", "form"),
    [
        ("i.j2k", 8, ">II"), ("f.dib", 4, "<ii"), ("s.dds", 12, "<II"), ("r.sgi", 6, ">HH"), ("t.pcx", 8, "<HH"),
        ("v.ras", 4, ">II"), ("u.qoi", 4, ">II"), ("z.avif", b"ispe\0\0\0\0", ">II"),
    ],
)  # fmt: skip
def test_more_pixels_than_are_allowed_are_never_decoded(tmp_path, name, at, form):
    data = bytearray(read_files()[name][0])
    at = data.index(at) + len(at) if isinstance(at, bytes) else at
    struct.pack_into(form, data, at, 16_000, 16_000)  # more is refused by the decoder of AVIF itself
    (tmp_path / name).write_bytes(data)
    (tmp_path / "small.png").write_bytes(saved("PNG"))
    source = open_source(tmp_path)
    failure = {image.identifier: image.failure for image in source.read([0, 1])}[name]
    assert "not decoded" in failure


def test_no_ending_and_no_signature_belongs_to_two_formats():
    forms = (*READ_FORMATS, *UNREAD_FORMATS)
    endings = [suffix for form in forms for suffix in form.suffixes]
    assert len(endings) == len(set(endings))
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in endings)
    for form in forms:
        for offset, text in form.signatures:
            assert format_of_bytes(bytes(offset) + text + bytes(64)) is form
        for suffix in form.suffixes:
            assert format_of_name("a/B.c" + suffix.upper()) is form
