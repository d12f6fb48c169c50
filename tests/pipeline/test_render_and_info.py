"""Images of single rows, and what a store says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from PIL import Image

from data_schemas.errors import JobError, StoreError
from data_schemas.stores.open import open_store
from encoders.decode import decode, to_uint8
from pipeline.convert.convert import convert
from pipeline.image_limits import LARGEST_SIDE
from pipeline.info import store_info
from pipeline.render import find_row, render_image, save_png
from tests.pipeline.encode.fakes import ArrayImages, pictures, run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "store.zarr"
    source = ArrayImages(pictures(6))
    source.broken["image-0004"] = "cut short"
    run(path, source)
    return path


@pytest.mark.slow
def test_the_picture_is_the_decoded_row(path: Path) -> None:
    with open_store(path) as store:
        splats, layout = store.read(["splats"])["splats"], store.header.splat_layout
    picture, row = render_image(path, "2")
    assert (row, picture.size, picture.mode) == (2, (8, 8), "RGB")
    expected = to_uint8(decode(splats[2:3], layout=layout, codec="additive/1", height=8, width=8))[0]
    np.testing.assert_array_equal(np.asarray(picture), expected)


def test_any_size_by_number_or_name(path: Path) -> None:
    for image, row in (("0", 0), ("-1", 5), ("image-0003", 3)):
        picture, found = render_image(path, image, size=77)
        assert (found, picture.size) == (row, (77, 77))


def test_the_longer_side_is_the_size_and_grey_stays_grey(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 8, 1), dtype=np.uint8)
    run(tmp_path / "wide.h5", ArrayImages(images))
    picture, _ = render_image(tmp_path / "wide.h5", "1", size=100)
    assert (picture.size, picture.mode) == ((100, 50), "L")


def test_ellipses(path: Path) -> None:
    picture, _ = render_image(path, "1", size=64, ellipses=True)
    plain, _ = render_image(path, "1", size=64)
    assert picture.size == (64, 64)
    assert np.asarray(picture.convert("RGB")).tolist() != np.asarray(plain).tolist()


def test_a_name_that_looks_like_a_number(tmp_path: Path) -> None:
    source = ArrayImages(pictures(3))
    source.pixels["77"], source.labels["77"] = pictures(1, seed=5)[0], 0
    run(tmp_path / "a.zarr", source)
    with open_store(tmp_path / "a.zarr") as store:
        assert find_row(store, "77") == 3


def test_errors_say_what_there_is(path: Path) -> None:
    with pytest.raises(StoreError, match="0 to 5"):
        render_image(path, "6")
    with pytest.raises(StoreError, match="no image 'nobody'"):
        render_image(path, "nobody")
    with pytest.raises(StoreError, match="cut short"):
        render_image(path, "4")
    for size in (0, LARGEST_SIDE + 1):
        with pytest.raises(JobError, match="--size"):
            render_image(path, "0", size=size)


def test_a_picture_is_written_whole(path: Path, tmp_path: Path) -> None:
    picture, _ = render_image(path, "0", size=16)
    target = tmp_path / "new" / "a.png"
    save_png(picture, target)
    np.testing.assert_array_equal(np.asarray(Image.open(target)), np.asarray(picture))
    assert [file.name for file in target.parent.iterdir()] == ["a.png"]
    with pytest.raises(StoreError):
        save_png(picture, target / "below-a-file.png")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_info_says_how_other_programs_open_the_store(path: Path, tmp_path: Path, suffix: str) -> None:
    place = path
    if suffix == ".h5":
        place = tmp_path / 'a "quoted" name.h5'
        convert(path, place)
    found = store_info(place)
    assert found.model_dump(mode="json")["opened_with"] == found.opened_with
    with eval(found.opened_with, {"xarray": xr}) as opened, open_store(place) as store:
        np.testing.assert_array_equal(opened["label"].values, store.read(["label"])["label"])


def test_info(path: Path) -> None:
    found = store_info(path)
    assert (found.rows, found.done, found.failed, found.empty) == (6, 5, 1, 0)
    assert found.failures == ((4, "image-0004", "cut short"),)
    assert found.numbers_per_image == 6 * 8
    assert found.bytes_stored == sum(found.bytes_by_array.values()) > 0
    assert found.psnr is not None
    content = json.loads(found.model_dump_json())
    assert content["header"]["anchors"] is None
