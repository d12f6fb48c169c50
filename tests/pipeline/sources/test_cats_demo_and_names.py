from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from data_schemas.errors import ArchiveError, SourceError
from pipeline.encode.presets import PRESETS
from pipeline.sources import SOURCES, open_source
from pipeline.sources.demo import CALLINGS, DemoSource


def cats(encoded, picture, count=12, repeats=5):
    files = {f"{n}.jpg": encoded(picture(n, 64, 64), "JPEG", quality=95) for n in range(1, count + 1)}
    return files | {f"{count + n}.jpg": files[f"{n}.jpg"] for n in range(1, repeats + 1)}


@pytest.mark.parametrize("layout", ["folder", "cats", "zip", "zip itself"])
def test_cats_without_their_repeats(tmp_path, encoded, picture, write_zip, keeps_contract, caplog, layout):
    files = cats(encoded, picture)
    place = tmp_path
    if layout.startswith("zip"):
        path = write_zip(tmp_path / "cats_faces_64x64.zip", [(f"cats/{name}", data) for name, data in files.items()])
        place = path if layout == "zip itself" else tmp_path
    else:
        folder = tmp_path / ("cats" if layout == "cats" else "")
        folder.mkdir(exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    source = open_source("cats", data_dir=place)
    keeps_contract(source)
    assert list(source.identifiers()) == [f"{n}.jpg" for n in range(1, 13)]
    assert source.record.removed_duplicates == 5
    assert "5 files are left out: repeats, byte for byte, 5 (13.jpg; 14.jpg; 15.jpg; and 2 more)" in caplog.text
    assert source.image_shape == (64, 64, 3)
    assert source.record.label_names == ()
    assert "CAT dataset" in source.record.attribution


def test_cats_keep_a_broken_file_by_name(tmp_path, encoded, picture):
    for name, data in cats(encoded, picture, 3, 0).items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "2.jpg").write_bytes(b"")
    (tmp_path / "readme.md").write_bytes(b"text")
    source = open_source("cats", data_dir=tmp_path, size=32)
    assert source.image_shape == (32, 32, 3)
    assert [bool(image.failure) for image in source.read(range(3))] == [False, True, False]
    assert source.record.left_out == 1


def test_a_download_of_cats_with_other_counts_is_refused(tmp_path, encoded, picture, write_zip, monkeypatch, refused):
    members = [(f"CatGAN-x/cats/cat_pics/{name}", data) for name, data in cats(encoded, picture).items()]
    path = write_zip(tmp_path / "a.zip", [*members, ("CatGAN-x/generated/1.jpg", b"other")])
    monkeypatch.setattr("pipeline.sources.cats.fetch", lambda remote, **_: path)
    error = refused(lambda: open_source("cats"))
    assert "17 photographs, 12 of them distinct" in error.got
    assert "15747 and 9303" in error.allowed
    monkeypatch.setattr("pipeline.sources.cats.FILES_PUBLISHED", 17)
    monkeypatch.setattr("pipeline.sources.cats.FILES_DISTINCT", 12)
    source = open_source("cats")
    assert source.identifiers()[0] == "1.jpg"
    assert (len(source), source.record.removed_duplicates, source.record.left_out) == (12, 5, 1)


def test_cats_without_network_say_where_to_get_them(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("SPLATSPACE_CACHE", str(tmp_path))
    assert "Kaggle" in refused(lambda: open_source("cats", download=False)).next_step


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_real_cats(shared_data, keeps_contract):
    source = open_source("cats", data_dir=shared_data)
    keeps_contract(source)
    assert len(source) == 8303
    assert source.record.removed_duplicates == 0
    assert source.identifiers()[0] == "1.jpg"
    assert not any(image.failure for image in source.read(range(0, 8303, 100)))


@pytest.mark.slow
def test_the_demo_keeps_the_contract(keeps_contract):
    source = open_source("demo")
    keeps_contract(source)
    assert len(source) == 1000
    assert source.image_shape == (32, 32, 3)
    assert source.record.label_names == CALLINGS


@pytest.mark.slow
def test_the_demo_is_varied_and_drawn_on_black():
    images = open_source("demo").read(range(1000))
    pixels = np.stack([image.pixels for image in images if image.pixels is not None])
    assert len({image.tobytes() for image in pixels}) == 1000
    assert np.bincount([image.label for image in images[:600]], minlength=6).min() > 60
    assert not pixels[:, 0].any()
    assert not pixels[:, :, [0, -1]].any()
    # As in the Sprites set: three quarters black, about 150 colours in an image.
    assert 0.65 < (pixels.sum(axis=-1) == 0).mean() < 0.8
    colours = pixels @ np.array([1, 256, 65536])
    assert 100 < np.mean([len(np.unique(image)) for image in colours]) < 200
    assert min((image.sum(axis=-1) > 0).mean() for image in pixels) > 0.15


@pytest.mark.slow
def test_the_demo_is_the_same_in_every_process_and_order(pixels_of):
    code = (
        "import hashlib; from pipeline.sources import open_source; s = open_source('demo');"
        "pixels = b''.join(i.pixels.tobytes() for i in s.read([999, 3, 500]));"
        "print(s.record.digest, hashlib.sha256(pixels).hexdigest())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    source = open_source("demo")
    here = hashlib.sha256(b"".join(pixels_of(source, [index]).tobytes() for index in (999, 3, 500)))
    assert other == [source.record.digest, here.hexdigest()]


def test_the_demo_refuses_what_it_has_not():
    with pytest.raises(IndexError, match="1000"):
        DemoSource().read([1000])
    with pytest.raises(IndexError):
        DemoSource().read([-1])


def test_every_preset_has_a_source_and_the_other_way_round():
    assert set(SOURCES) == set(PRESETS)


def test_an_unknown_name_lists_the_known_ones(refused):
    error = refused(lambda: open_source("minst"))
    assert "'minst'" in error.got
    assert all(name in error.allowed for name in SOURCES)
    assert "path" in error.allowed


def test_wrong_options_are_explained(tmp_path, refused, encoded, picture):
    (tmp_path / "1.png").write_bytes(encoded(picture()))
    assert "train, test, all" in refused(lambda: open_source("demo", split="valid")).allowed
    for dataset in ("demo", "cats", tmp_path):
        assert "no split of its own" in refused(lambda dataset=dataset: open_source(dataset, split="test")).got
    assert len(open_source(tmp_path, split="train")) == 1
    assert "does not exist" in refused(lambda: open_source("mnist", data_dir=tmp_path / "nothing")).got
    assert "leave --data-dir out" in refused(lambda: open_source("demo", data_dir=tmp_path)).next_step
    assert "leave --data-dir out" in refused(lambda: open_source(tmp_path, data_dir=tmp_path)).next_step
    assert "--size 0" in refused(lambda: open_source(tmp_path, size=0)).got
    (tmp_path / "a.rar").write_bytes(b"x")
    assert ".rar" in refused(lambda: open_source(tmp_path / "a.rar")).got


def test_a_path_named_like_a_set_is_reached_as_a_path(tmp_path, encoded, picture, monkeypatch):
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "1.png").write_bytes(encoded(picture()))
    monkeypatch.chdir(tmp_path)
    assert len(open_source("./demo")) == 1
    assert len(open_source("demo")) == 1000


def test_another_size_of_a_named_set(tmp_path, write_idx, keeps_contract):
    write_idx(tmp_path / "train-images-idx3-ubyte", np.full((3, 28, 28), 90))
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(3))
    source = open_source("mnist", data_dir=tmp_path, split="train", size=32)
    keeps_contract(source)
    assert source.image_shape == (32, 32, 1)
    assert (source.read([2])[0].pixels == 90).all()
    assert source.read([2])[0].label == 2


def test_archive_errors_are_source_errors():
    assert issubclass(ArchiveError, SourceError)
