from __future__ import annotations

import codecs
import io
import os
import pickle
import tarfile
from typing import Literal

import numpy as np
import pytest

from data_schemas.errors import ArchiveError, SourceError
from pipeline.sources import open_source
from pipeline.sources.cifar10 import LABEL_NAMES, RECORD_BYTES, load_restricted

PYTHON, BINARY = "cifar-10-batches-py", "cifar-10-batches-bin"


def batch(seed, count=4):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (count, 3072), dtype=np.uint8), random.integers(0, 10, count)


def pickled(seed, count=4, protocol=2):
    data, labels = batch(seed, count)
    content = {"batch_label": "a batch", "labels": labels.tolist(), "data": data, "filenames": ["a"] * count}
    return pickle.dumps(content, protocol=protocol)


def binary(seed, count=4):
    data, labels = batch(seed, count)
    return np.concatenate([labels[:, None].astype(np.uint8), data], axis=1).tobytes()


ALL_PYTHON = {f"data_batch_{n}": pickled(n) for n in range(1, 6)} | {"test_batch": pickled(6)}
ALL_BINARY = {f"data_batch_{n}.bin": binary(n) for n in range(1, 6)} | {"test_batch.bin": binary(6)}


def write_folder(folder, files):
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)


def write_tar(path, members, *, mode: Literal["w:gz", "w:xz"] = "w:gz"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


LAYOUTS = {
    "python folder": lambda root: write_folder(root / PYTHON, ALL_PYTHON),
    "binary folder": lambda root: write_folder(root / BINARY, ALL_BINARY),
    "the folder itself": lambda root: [(root / name).write_bytes(data) for name, data in ALL_PYTHON.items()],
    "python tar.gz": lambda root: write_tar(
        root / "cifar-10-python.tar.gz", {f"{PYTHON}/{name}": data for name, data in ALL_PYTHON.items()}
    ),
    "binary tar.xz": lambda root: write_tar(
        root / "cifar10" / "cifar-10-binary.tar.xz",
        {f"{BINARY}/{name}": data for name, data in ALL_BINARY.items()},
        mode="w:xz",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images(tmp_path, keeps_contract, layout):
    LAYOUTS[layout](tmp_path)
    source = open_source("cifar10", data_dir=tmp_path, split="all")
    keeps_contract(source)
    assert source.image_shape == (32, 32, 3)
    assert source.record.label_names == LABEL_NAMES
    assert list(source.identifiers())[3:5] == ["train/00003", "train/10000"]
    assert source.identifiers()[-1] == "test/00003"
    for number, start in ((1, 0), (6, 20)):
        data, labels = batch(number)
        for image, row, label in zip(source.read(range(start, start + 4)), data, labels, strict=True):
            assert image.label == label
            np.testing.assert_array_equal(image.pixels, row.reshape(3, 32, 32).transpose(1, 2, 0))


def test_an_archive_can_be_given_itself(tmp_path):
    LAYOUTS["python tar.gz"](tmp_path)
    assert len(open_source("cifar10", data_dir=tmp_path / "cifar-10-python.tar.gz", split="train")) == 20


def test_a_partial_set_is_used_and_said(tmp_path, caplog):
    write_folder(tmp_path / PYTHON, {"data_batch_2": pickled(2)})
    source = open_source("cifar10", data_dir=tmp_path, split="train")
    assert len(source) == 4
    assert list(source.identifiers()) == [f"train/1000{n}" for n in range(4)]
    for text in (source.record.name, caplog.text):
        assert "without data_batch_1, data_batch_3, data_batch_4, data_batch_5" in text
        assert "data_batch_2 with 4 of 10000 images" in text


def test_python_and_binary_parts_complete_each_other(tmp_path):
    write_folder(tmp_path / PYTHON, {"data_batch_1": pickled(1)})
    write_tar(tmp_path / "cifar-10-binary.tar.gz", {f"{BINARY}/test_batch.bin": binary(6)})
    source = open_source("cifar10", data_dir=tmp_path, split="all")
    assert [name.split("/")[0] for name in source.identifiers()] == ["train"] * 4 + ["test"] * 4


def test_an_absent_split_is_refused(tmp_path, refused):
    write_folder(tmp_path / PYTHON, {"data_batch_1": pickled(1)})
    assert "test_batch" in refused(lambda: open_source("cifar10", data_dir=tmp_path, split="test")).got


@pytest.mark.parametrize("keep", [0, 1, RECORD_BYTES - 1, 2 * RECORD_BYTES + 5])
def test_a_binary_batch_cut_short_is_named(tmp_path, refused, keep):
    write_folder(tmp_path / BINARY, {"test_batch.bin": binary(6)[:keep]})
    error = refused(lambda: open_source("cifar10", data_dir=tmp_path, split="test"))
    assert "test_batch.bin" in error.got
    assert str(keep) in error.got
    assert str(RECORD_BYTES) in error.allowed


@pytest.mark.parametrize("keep", [0, 1, 30, 2000, -1])
def test_a_python_batch_cut_short_is_named(tmp_path, refused, keep):
    write_folder(tmp_path / PYTHON, {"test_batch": ALL_PYTHON["test_batch"][:keep]})
    error = refused(lambda: open_source("cifar10", data_dir=tmp_path, split="test"))
    assert "test_batch" in error.got
    assert "cut short" in error.got


@pytest.mark.parametrize("damage", ["truncate", "not a tar"])
def test_a_damaged_archive_is_named(tmp_path, damage):
    LAYOUTS["python tar.gz"](tmp_path)
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(path.read_bytes()[:-3000] if damage == "truncate" else b"no tar at all" * 99)
    with pytest.raises(ArchiveError, match="damaged or cut short"):
        open_source("cifar10", data_dir=tmp_path, split="all")


def test_labels_outside_the_classes_are_refused(tmp_path, refused):
    data = bytearray(binary(6))
    data[0] = 200
    write_folder(tmp_path / BINARY, {"test_batch.bin": bytes(data)})
    assert "outside 0 to 9" in refused(lambda: open_source("cifar10", data_dir=tmp_path, split="test")).got


@pytest.mark.parametrize(
    "content",
    [
        {"data": np.zeros((2, 5), np.uint8), "labels": [0, 1]},
        {"data": np.zeros((2, 3072)), "labels": [0, 1]},
        {"data": np.zeros((2, 3072), np.uint8), "labels": [0]},
        {"data": [1, 2], "labels": [0]},
        {"labels": [0]},
        [1, 2],
    ],
)
def test_a_pickle_of_something_else_is_refused(tmp_path, refused, content):
    write_folder(tmp_path / PYTHON, {"test_batch": pickle.dumps(content, protocol=2)})
    assert "test_batch" in refused(lambda: open_source("cifar10", data_dir=tmp_path, split="test")).got


class Runs:
    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    "payload",
    [
        pickle.dumps({"data": Runs(os.system, "true")}, protocol=2),
        pickle.dumps({"data": Runs(eval, "1")}, protocol=4),
        pickle.dumps({"data": Runs(np.ndarray, (10**12,))}, protocol=2),
        pickle.dumps({"data": np.array([object()])}, protocol=2),
        pickle.dumps({"data": np.zeros(2, dtype=[("a", "u1")])}, protocol=2),
        pickle.dumps({"data": Runs(codecs.encode, "a", "rot13")}, protocol=2),
        b"cnumpy\nload\n(S'/nothing'\ntR.",
    ],
)
def test_a_pickle_that_would_run_something_is_refused(payload):
    with pytest.raises(SourceError):
        load_restricted(payload, "the pickle")


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
def test_plain_pickles_of_every_protocol_are_read(protocol):
    loaded = load_restricted(pickle.dumps({"labels": [1, 2], "name": "x"}, protocol=protocol), "the pickle")
    assert loaded == {"labels": [1, 2], "name": "x"}


def test_a_python_2_pickle_is_read():
    text = b"\x80\x02}q\x01(U\x06labelsq\x02]q\x03(K\x01K\x02eU\x04nameq\x04U\x03\xe9abq\x05u."
    assert load_restricted(text, "the pickle") == {"labels": [1, 2], "name": "éab"}


@pytest.mark.parametrize("name", ["../test_batch", "/etc/test_batch", f"{PYTHON}/../../test_batch", "C:/test_batch"])
def test_an_archive_with_an_escaping_path_is_refused(tmp_path, name):
    write_tar(tmp_path / "cifar-10-python.tar.gz", {f"{PYTHON}/test_batch": ALL_PYTHON["test_batch"], name: b"x"})
    with pytest.raises(ArchiveError, match="member"):
        open_source("cifar10", data_dir=tmp_path, split="test")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_an_archive_with_a_link_is_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "cifar-10-python.tar", "w") as archive:
        info = tarfile.TarInfo(f"{PYTHON}/test_batch")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(ArchiveError, match="link"):
        open_source("cifar10", data_dir=tmp_path, split="test")


def test_an_oversized_member_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.sources.cifar10._MOST_PART_BYTES", 1000)
    LAYOUTS["python tar.gz"](tmp_path)
    with pytest.raises(ArchiveError, match="bytes"):
        open_source("cifar10", data_dir=tmp_path, split="test")
    write_folder(tmp_path / BINARY, {"test_batch.bin": binary(6)})
    with pytest.raises(SourceError, match="bytes"):
        open_source("cifar10", data_dir=tmp_path, split="test")


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_real_archives(shared_data, keeps_contract):
    train = open_source("cifar10", data_dir=shared_data, split="train")
    keeps_contract(train)
    assert len(train) == 10_000
    assert LABEL_NAMES[train.read([0])[0].label] == "frog"
    test = open_source("cifar10", data_dir=shared_data / "cifar10", split="test")
    assert len(test) == 5000
    assert "5000 of 10000" in test.record.name
    assert [LABEL_NAMES[image.label] for image in test.read([0, 1])] == ["cat", "ship"]
