from __future__ import annotations

import zipfile

import numpy as np
import pytest

from pipeline.sources import open_source
from pipeline.sources.arrays import load_mapped
from pipeline.sources.mnist import read_idx

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("shape", [(5, 6, 7, 3), (5, 6, 7, 1), (5, 6, 7)])
def test_npy_and_npz_give_the_images(tmp_path, keeps_contract, shape):
    images = IMAGES[..., : shape[3] if len(shape) == 4 else 1].reshape(shape)
    np.save(tmp_path / "a.npy", images)
    np.savez(tmp_path / "named.npz", images=images, other=np.zeros(3), labels=np.arange(5))
    np.savez_compressed(tmp_path / "only.npz", anything=images)
    for name in ("a.npy", "named.npz", "only.npz"):
        source = open_source(tmp_path / name)
        keeps_contract(source)
        assert source.image_shape == (6, 7, 1 if len(shape) == 3 else shape[3])
        assert list(source.identifiers()) == ["0", "1", "2", "3", "4"]
        for index, image in enumerate(source.read(range(5))):
            np.testing.assert_array_equal(image.pixels, images[index].reshape(source.image_shape))
            assert image.label == (index if name == "named.npz" else -1)


def test_a_string_path_and_a_size(tmp_path):
    np.save(tmp_path / "a.npy", np.full((2, 6, 9), 50, np.uint8))
    source = open_source(str(tmp_path / "a.npy"), size=4)
    assert source.image_shape == (4, 4, 1)
    assert (source.read([1])[0].pixels == 50).all()


def test_an_npy_is_mapped_not_loaded(tmp_path):
    """Seven gigabytes that are not there: a sparse file, of which only the last image is touched."""
    path = tmp_path / "large.npy"
    array = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=(10_000, 500, 500, 3))
    array[-1] = 7
    array.flush()
    del array
    images = load_mapped(path)
    assert images.shape == (10_000, 500, 500, 3)
    assert (np.asarray(images[-1]) == 7).all()


@pytest.mark.parametrize(
    ("array", "words", "advice"),
    [
        (np.random.default_rng(0).random((3, 4, 4)), "float64", "(images * 255).round()"),
        (np.full((3, 4, 4), 200.0, np.float32), "from 200 to 200", "uint8, 0 (black) to 255"),
        (np.array([[[np.nan, 0.5], [np.inf, 1]]]), "2 that are NaN or infinite", "fix"),
        (np.zeros((3, 4, 4), np.int64), "int64", "uint8"),
        (np.zeros((3, 4, 4), bool), "bool", "uint8"),
        (np.zeros((3, 4, 4), np.uint16), "uint16", "uint8"),
        (np.array(["a"]), "<U1", "uint8"),
        (np.zeros((3, 4, 4), complex), "complex", "uint8"),
        (np.zeros((12, 12, 3), np.uint8), "[12, 12, 3]", "images[None]"),
        (np.zeros((12, 12), np.uint8), "[12, 12]", "images[None]"),
        (np.zeros((5, 3, 12, 12), np.uint8), "[5, 3, 12, 12]", "transpose(0, 2, 3, 1)"),
        (np.zeros((5, 12, 12, 4), np.uint8), "[5, 12, 12, 4]", "transparency"),
        (np.zeros((0, 12, 12), np.uint8), "[0, 12, 12, 1]", ""),
        (np.zeros((5, 0, 12, 3), np.uint8), "[5, 0, 12, 3]", ""),
        (np.zeros((), np.uint8), "[]", ""),
        (np.zeros(5, np.uint8), "[5]", ""),
    ],
)  # fmt: skip
def test_what_is_no_set_of_uint8_images(tmp_path, refused, array, words, advice):
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", images=array)
    for name in ("a.npy", "a.npz"):
        error = refused(lambda name=name: open_source(tmp_path / name))
        assert words in error.got
        assert name in error.got
        assert "uint8 [image, height, width" in error.allowed
        assert advice in error.next_step


class Dangerous:
    def __reduce__(self):
        return exec, ("raise SystemExit('unpickled')",)


def test_objects_are_never_unpickled(tmp_path, refused):
    objects = np.array([Dangerous(), None], dtype=object)
    np.save(tmp_path / "a.npy", objects, allow_pickle=True)
    np.savez(tmp_path / "a.npz", images=objects)
    for name in ("a.npy", "a.npz"):
        error = refused(lambda name=name: open_source(tmp_path / name))
        assert "objects" in error.got
        assert "np.stack" in error.next_step


@pytest.mark.parametrize("keep", [0, 5, 50, 200, -1])
@pytest.mark.parametrize("name", ["a.npy", "a.npz"])
def test_a_file_cut_short_is_named(tmp_path, refused, name, keep):
    np.save(tmp_path / "a.npy", IMAGES)
    np.savez(tmp_path / "a.npz", images=IMAGES)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:keep])
    error = refused(lambda: open_source(path))
    assert str(path) in error.got
    assert "cut short" in error.got


def test_damaged_numbers_of_an_npz_are_noticed(tmp_path, refused):
    path = tmp_path / "a.npz"
    np.savez(path, images=IMAGES)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert "damaged" in refused(lambda: open_source(path)).got


def test_a_header_that_announces_too_much_allocates_nothing(tmp_path, refused):
    np.save(tmp_path / "a.npy", np.zeros((3, 4, 4), np.uint8))
    data = (tmp_path / "a.npy").read_bytes().replace(b"(3, 4, 4), }  ", b"(99999999999, 4, 4), }")[: 128 + 48]
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", data)
    (tmp_path / "a.npy").write_bytes(data)
    for name in ("a.npy", "a.npz"):
        assert name in refused(lambda name=name: open_source(tmp_path / name)).got


def test_an_npz_in_which_the_array_cannot_be_told(tmp_path, refused):
    path = tmp_path / "a.npz"
    np.savez(path, one=IMAGES, two=IMAGES)
    error = refused(lambda: open_source(path))
    assert "one, two" in error.got
    assert "'images'" in error.allowed
    np.savez(path)
    assert "(none)" in refused(lambda: open_source(path)).got


@pytest.mark.parametrize("labels", [np.zeros(4, int), np.zeros(5), np.zeros((5, 1), int), np.array(list("abcde")),
                                    np.array([0, 1, 2, 3, -2]), np.array([0, 1, 2, 3, 2**40])])  # fmt: skip
def test_labels_that_are_none(tmp_path, refused, labels):
    np.savez(tmp_path / "a.npz", images=IMAGES, labels=labels)
    assert "labels" in refused(lambda: open_source(tmp_path / "a.npz")).got


def test_an_npz_named_npy_is_told(tmp_path, refused):
    np.savez(tmp_path / "a.npz", images=IMAGES)
    (tmp_path / "a.npz").rename(tmp_path / "a.npy")
    assert "rename" in refused(lambda: open_source(tmp_path / "a.npy")).next_step


def test_read_idx_is_not_fooled_by_an_npy(tmp_path, refused):
    np.save(tmp_path / "a.npy", IMAGES)
    assert "magic" in refused(lambda: read_idx(tmp_path / "a.npy", 0x803)).got
