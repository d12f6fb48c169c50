"""Stores without Gaussians: images only, in both formats, through every command that reads stores."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_schemas.errors import JobError, ReportError, StoreError, StoreMismatchError
from data_schemas.records import RowState
from data_schemas.stores.open import open_store
from encoders.base import FitSettings
from encoders.engines import create_encoder
from pipeline.convert.convert import convert
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.info import store_info
from pipeline.report import build_report
from pipeline.train.train import train
from pipeline.verify import verify
from tests.pipeline.encode.fakes import ArrayImages, pictures
from tests.pipeline.training_runs import job_of

pytestmark = pytest.mark.usefixtures("brief_previews")


def _encode(path: Path, source: ArrayImages) -> None:
    encode(resolve_job("arrays", path, gaussians=0, workers=1, block_rows=4), source=source)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".zarr", ".h5"])
def test_images_are_kept_continued_verified_and_converted(tmp_path: Path, suffix: str) -> None:
    images = pictures(10)
    path = tmp_path / f"a{suffix}"
    source = ArrayImages(np.concatenate([images, images[:2]]))
    source.broken["image-0003"] = "torn"
    _encode(path, source)
    source.broken.clear()
    _encode(path, source)
    with open_store(path, "r") as store:
        assert "splats" not in store.arrays
        assert store.header.engine == "none"
        rows = store.read(["image", "state", "psnr", "label"])
        np.testing.assert_array_equal(rows["image"], [*images, *images[:2]])
        assert (rows["state"] == RowState.DONE).all()
        assert np.isnan(rows["psnr"]).all()
        assert rows["label"].tolist() == [number % 3 for number in range(12)]
        assert store.read_block(0).splats.shape[:2] == (4, 0)
        with pytest.raises(StoreError, match=r"no array 'splats'.*images only"):
            store.read(["splats"])
        with pytest.raises(ReportError, match="holds images only"):
            build_report(store, tmp_path / "report")
    found = verify(path)
    assert (found.done, found.compared, found.sound) == (12, 12, True)
    assert store_info(path).psnr is None
    other = tmp_path / ("b.h5" if suffix == ".zarr" else "b.zarr")
    convert(path, other)
    with open_store(other, "r") as store:
        np.testing.assert_array_equal(store.read(["image"])["image"], rows["image"])


@pytest.mark.slow
def test_a_changed_pixel_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    _encode(path, ArrayImages(pictures(4)))
    with open_store(path, "a") as store:
        block = store.read_block(0)
        assert block.image is not None
        block.image[2, 0, 0, 0] ^= 1
        store.write_block(0, block)
    [fault] = verify(path).faults
    assert (fault.row, fault.reason) == (2, "the source pixels differ from their content hash")


@pytest.mark.slow
def test_pixels_are_learned_from_it_and_splats_are_not(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    _encode(path, ArrayImages(pictures(8)))
    model = {"kind": "pixels", "model": "cats-splats", "steps": 1, "every": 1}
    assert train(job_of(path, tmp_path / "pixels", **model)).images == 8
    with pytest.raises((StoreError, JobError), match=r"images only|0 Gaussians"):
        train(job_of(path, tmp_path / "splats", model="set", steps=1))


def test_other_settings_and_contradictions_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    _encode(path, ArrayImages(pictures(4)))
    with pytest.raises(StoreMismatchError, match="gaussians"):
        encode(resolve_job("arrays", path, gaussians=3, workers=1, block_rows=4), source=ArrayImages(pictures(4)))
    with pytest.raises(JobError, match="--gaussians 0 with --no-images"):
        resolve_job("arrays", path, gaussians=0, images=False)
    with pytest.raises(JobError, match="Engine 'cpu' with 0 Gaussians"):
        create_encoder("cpu", FitSettings(0))
    with pytest.raises(JobError, match="Engine none with 3 Gaussians"):
        create_encoder("none", FitSettings(3))
