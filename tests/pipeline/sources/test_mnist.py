from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numpy_strategies

from data_schemas.errors import SourceError
from pipeline.sources import open_source
from pipeline.sources.mnist import CHECKSUMS, IMAGES_MAGIC, LABELS_MAGIC, SUBFOLDERS, read_idx


def write_set(folder, write_idx, *, train=7, test=3, suffix=".gz"):
    for prefix, count in (("train", train), ("t10k", test)):
        images = np.arange(count * 28 * 28).reshape(count, 28, 28) % 251
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", np.arange(count) % 10)


@pytest.mark.parametrize("subfolder", SUBFOLDERS)
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_the_usual_layouts_are_found(tmp_path, write_idx, keeps_contract, subfolder, suffix):
    write_set(tmp_path / subfolder, write_idx, suffix=suffix)
    source = open_source("mnist", data_dir=tmp_path, split="all")
    keeps_contract(source)
    assert source.image_shape == (28, 28, 1)
    assert list(source.identifiers()[6:8]) == ["train/00006", "test/00000"]
    assert [image.label for image in source.read(range(10))] == [0, 1, 2, 3, 4, 5, 6, 0, 1, 2]
    assert source.record.label_names == tuple("0123456789")
    expected = np.arange(28 * 28).reshape(28, 28, 1) % 251
    np.testing.assert_array_equal(source.read([7])[0].pixels, expected)


def test_names_with_a_dot_are_found(tmp_path, write_idx):
    write_set(tmp_path, write_idx)
    for path in list(tmp_path.iterdir()):
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    assert len(open_source("mnist", data_dir=tmp_path, split="train")) == 7


def test_splits_and_digests_differ(tmp_path, write_idx):
    write_set(tmp_path, write_idx)
    lengths = {split: len(open_source("mnist", data_dir=tmp_path, split=split)) for split in ("train", "test", "all")}
    assert lengths == {"train": 7, "test": 3, "all": 10}
    digests = {open_source("mnist", data_dir=tmp_path, split=split).record.digest for split in lengths}
    assert len(digests) == 3


def test_a_split_that_is_absent_says_which_is_there(tmp_path, write_idx, refused):
    write_set(tmp_path, write_idx)
    for path in tmp_path.glob("t10k*"):
        path.unlink()
    error = refused(lambda: open_source("mnist", data_dir=tmp_path, split="test"))
    assert "t10k-images-idx3-ubyte" in error.got
    assert "--split train" in error.next_step
    assert "t10k" in refused(lambda: open_source("mnist", data_dir=tmp_path, split="all")).got
    (tmp_path / "empty").mkdir()
    error = refused(lambda: open_source("mnist", data_dir=tmp_path / "empty", split="test"))
    assert "check --data-dir" in error.next_step


@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("keep", [0, 3, 10, 16, 500])
def test_a_file_cut_short_is_named(tmp_path, write_idx, refused, suffix, keep):
    write_set(tmp_path, write_idx, suffix=suffix)
    path = tmp_path / f"train-images-idx3-ubyte{suffix}"
    data = gzip.decompress(path.read_bytes())[:keep] if suffix else path.read_bytes()[:keep]
    path.write_bytes(gzip.compress(data) if suffix else data)
    error = refused(lambda: open_source("mnist", data_dir=tmp_path, split="train"))
    assert str(path) in error.got
    if keep >= 16:
        assert f"expected {7 * 784} bytes" in error.got
        assert f"got {keep - 16}" in error.got


def test_a_gzip_cut_short_is_named(tmp_path, write_idx, refused):
    write_set(tmp_path, write_idx)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    error = refused(lambda: open_source("mnist", data_dir=tmp_path, split="train"))
    assert "cut short" in error.got
    assert path.name in error.got


def test_a_flipped_byte_of_a_gzip_is_noticed(tmp_path, write_idx, refused):
    images = np.random.default_rng(0).integers(0, 256, (50, 28, 28))
    write_idx(tmp_path / "train-images-idx3-ubyte.gz", images)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(SourceError, match="damaged"):
        read_idx(path, IMAGES_MAGIC)


def test_wrong_magic_names_expected_and_got(tmp_path, write_idx, refused):
    write_set(tmp_path, write_idx)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes((tmp_path / "train-labels-idx1-ubyte.gz").read_bytes())
    error = refused(lambda: open_source("mnist", data_dir=tmp_path, split="train"))
    assert "0x00000801" in error.got
    assert "0x00000803" in error.allowed
    path.write_bytes(b"<html>not found</html>")
    assert "0x3c68746d" in refused(lambda: open_source("mnist", data_dir=tmp_path, split="train")).got


def test_bytes_after_the_end_are_refused(tmp_path, write_idx, refused):
    write_set(tmp_path, write_idx, suffix="")
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes() + b"\0")
    assert "goes on after" in refused(lambda: open_source("mnist", data_dir=tmp_path, split="train")).got


def test_an_absurd_header_allocates_nothing(tmp_path, refused):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(struct.pack(">4I", IMAGES_MAGIC, 2**32 - 1, 2**32 - 1, 2**32 - 1))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", LABELS_MAGIC, 0))
    assert "announces" in refused(lambda: open_source("mnist", data_dir=tmp_path, split="train")).got


def test_as_many_labels_as_images(tmp_path, write_idx, refused):
    write_set(tmp_path, write_idx)
    write_idx(tmp_path / "train-labels-idx1-ubyte.gz", np.zeros(6))
    error = refused(lambda: open_source("mnist", data_dir=tmp_path, split="train"))
    assert "7 images" in error.got
    assert "6 labels" in error.got


def test_an_empty_set_is_refused(tmp_path, write_idx, refused):
    write_set(tmp_path, write_idx, train=0)
    assert "0 images" in refused(lambda: open_source("mnist", data_dir=tmp_path, split="train")).got


def test_without_network_the_cache_is_named(tmp_path, monkeypatch, refused, write_idx):
    monkeypatch.setenv("SPLATSPACE_CACHE", str(tmp_path))
    error = refused(lambda: open_source("mnist", split="train", download=False))
    assert str(tmp_path) in error.got
    assert "--data-dir" in error.next_step
    write_set(tmp_path / "mnist", write_idx)
    assert len(open_source("mnist", split="train", download=False)) == 7


def test_the_download_demands_the_official_checksum(tmp_path, monkeypatch):
    asked = []

    def fetch(remote, **_):
        asked.append(remote)
        raise SourceError("stopped here")

    monkeypatch.setattr("pipeline.sources.mnist.fetch", fetch)
    with pytest.raises(SourceError, match="stopped here"):
        open_source("mnist", split="test")
    assert asked[0].checksum == CHECKSUMS["t10k-images-idx3-ubyte.gz"]
    assert len(asked[0].urls) == 3
    assert all(url.endswith("/t10k-images-idx3-ubyte.gz") for url in asked[0].urls)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    array=numpy_strategies.arrays(np.uint8, numpy_strategies.array_shapes(min_dims=3, max_dims=3, max_side=6)),
    zipped=st.booleans(),
)
def test_idx_round_trip(tmp_path, write_idx, array, zipped):
    path = tmp_path / ("a.gz" if zipped else "a")
    write_idx(path, array)
    np.testing.assert_array_equal(read_idx(path, IMAGES_MAGIC), array)


@pytest.mark.slow
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(max_size=24)
    | st.builds(
        lambda shape, body: struct.pack(">4I", IMAGES_MAGIC, *shape) + body,
        st.tuples(*[st.integers(0, 3)] * 3),
        st.binary(max_size=28),
    )
)
def test_arbitrary_bytes_are_read_or_refused_by_name(tmp_path: Path, data: bytes):
    path = tmp_path / "file"
    path.write_bytes(data)
    right = len(data) >= 16 and data[:4] == b"\0\0\x08\x03"
    right = right and 16 + math.prod(struct.unpack(">3I", data[4:16])) == len(data)
    if right:
        assert read_idx(path, IMAGES_MAGIC).tobytes() == data[16:]
    else:
        with pytest.raises(SourceError) as caught:
            read_idx(path, IMAGES_MAGIC)
        assert str(path) in str(caught.value)


@pytest.mark.slow
@pytest.mark.shared_data
def test_the_real_sets(shared_data, keeps_contract):
    train = open_source("mnist", data_dir=shared_data, split="train")
    keeps_contract(train)
    assert len(train) == 60_000
    assert [image.label for image in train.read(range(5))] == [5, 0, 4, 1, 9]
    test = open_source("mnist", data_dir=shared_data / "mnist_t10k_first9000", split="test")
    assert len(test) == 9000
    assert [image.label for image in test.read(range(5))] == [7, 2, 1, 0, 4]
