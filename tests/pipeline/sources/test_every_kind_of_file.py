"""A folder (and the same as a zip) that holds a file of every kind: each is right, or named, or counted."""

from __future__ import annotations

import logging
import zipfile

import numpy as np
import pytest
from tests.pipeline.sources.one_of_every_kind import failed_files, other_files, read_files

from pipeline.sources import open_source


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
    assert "6 files are left out: 5 are no images (1.txt; 2.txt; 3.txt; and 2 more)" in said[0].message
    assert "1 are hidden (.hidden.png)" in said[0].message
