import numpy as np
import pytest

from data_schemas.errors import JobError, StoreError, StoreLockedError
from data_schemas.stores.open import open_store
from pipeline.convert.convert import convert
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from tests.pipeline.encode.fakes import ArrayImages, pictures


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "second", "dtype"),
    [("a.zarr", "b.h5", "float32"), ("a.h5", "b.zarr", "float16"), ("a.zarr", "b.zarr", "float16")],
)
def test_rows_and_header_are_identical(make_store, read_rows, tmp_path, first, second, dtype):
    source = make_store(first, channels=3, dtype=dtype)
    seen = []
    summary = convert(source, tmp_path / second, progress=lambda done, rows: seen.append((done, rows)))
    old_header, old = read_rows(source)
    new_header, new = read_rows(tmp_path / second)
    assert new_header == old_header
    assert old.keys() == new.keys()
    for name, array in old.items():
        assert array.dtype == new[name].dtype
        np.testing.assert_array_equal(new[name], array, err_msg=name)
    assert (summary.rows, summary.done, summary.empty) == (10, 8, 1)
    assert summary.failed == [("folder/image 5.png", "the file is cut short")]
    assert seen == [(4, 10), (8, 10), (10, 10)]
    assert not list(tmp_path.glob("*.partial"))


def test_an_existing_destination_is_kept(make_store, tmp_path):
    source, target = make_store(), make_store("target.h5")
    before = target.read_bytes()
    with pytest.raises(StoreError, match="exists already"):
        convert(source, target)
    assert target.read_bytes() == before


@pytest.mark.slow
def test_overwrite_replaces_a_store(make_store, read_rows, tmp_path):
    source, target = make_store(), make_store("target.h5", channels=3)
    convert(source, target, overwrite=True)
    assert read_rows(target)[0].channels == 1
    assert not list(tmp_path.glob("*.partial"))


def test_overwrite_spares_what_is_not_ours(make_store, tmp_path):
    source = make_store()
    folder = tmp_path / "photos.zarr"
    folder.mkdir()
    (folder / "cat.png").write_bytes(b"cat")
    with pytest.raises(StoreError, match="not overwritten"):
        convert(source, folder, overwrite=True)
    assert (folder / "cat.png").read_bytes() == b"cat"


def test_a_store_that_is_being_written_is_not_replaced(make_store):
    source, target = make_store(), make_store("target.zarr")
    with open_store(target, "a"), pytest.raises(StoreLockedError):
        convert(source, target, overwrite=True)
    assert open_store(target).header.channels == 1


@pytest.mark.parametrize("name", ["source.zarr", "source.zarr/inside.zarr"])
def test_source_and_destination_may_not_lie_inside_each_other(make_store, tmp_path, name):
    source = make_store()
    with pytest.raises(JobError, match="inside each other"):
        convert(source, tmp_path / name, overwrite=True)
    assert len(open_store(source)) == 10


def test_a_failed_write_leaves_nothing(make_store, tmp_path, monkeypatch):
    source = make_store()
    written = []

    def write_block(self, block, rows):
        written.append(block)
        if block == 1:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_schemas.stores.contract.SplatStore.write_block", write_block)
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(StoreError, match="No space left"):
        convert(source, tmp_path / "target.h5")
    assert written == [0, 1]
    assert {path.name for path in tmp_path.iterdir()} - before <= {"target.h5.lock"}


@pytest.mark.slow
def test_a_failed_replacement_keeps_the_old_store(make_store, read_rows, monkeypatch):
    source, target = make_store(), make_store("target.h5", channels=3)

    def set_header(self, header):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_schemas.stores.contract.SplatStore.set_header", set_header)
    with pytest.raises(StoreError, match="No space left"):
        convert(source, target, overwrite=True)
    assert read_rows(target)[0].channels == 3


@pytest.mark.parametrize("name", ["target.png", "target.tar.gz"])
def test_an_unknown_suffix_lists_what_is_supported(make_store, tmp_path, name):
    with pytest.raises(StoreError, match="hdf5-rotated"):
        convert(make_store(), tmp_path / name)


def test_layout_and_suffix_must_agree(make_store, tmp_path):
    with pytest.raises(StoreError, match=r"\.h5"):
        convert(make_store(), tmp_path / "target.zarr", target_layout="hdf5-rotated")
    with pytest.raises(StoreError, match="Unknown layout 'npz'"):
        convert(make_store("other.zarr"), tmp_path / "target.h5", target_layout="npz")


def test_images_are_for_published_layouts(make_store, tmp_path):
    class Images:
        pass

    with pytest.raises(JobError, match="leave the images out"):
        convert(make_store(), tmp_path / "target.h5", images=Images())  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["torch-folder", "hdf5-rotated", "hdf5-stamp", "hdf5-columnar"])
def test_images_without_gaussians_have_no_published_layout(tmp_path, target):
    source = ArrayImages(pictures(5))
    encode(resolve_job("arrays", tmp_path / "a.zarr", gaussians=0, workers=1, block_rows=4), source=source)
    place = tmp_path / ("c" if target == "torch-folder" else "c.h5")
    with pytest.raises(StoreError, match=r"holds images only.*--gaussians"):
        convert(tmp_path / "a.zarr", place, target_layout=target)
    assert not place.exists()
