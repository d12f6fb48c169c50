"""The real engine on images without structure: exactly K finite Gaussians, and a right record, for each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from data_schemas.records import RowState
from data_schemas.stores.open import open_store
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.verify import verify
from tests.pipeline.encode.fakes import ArrayImages


def hard_images(channels: int) -> NDArray[np.uint8]:
    """Black, white, flat, one pixel, noise, a checkerboard and a hard edge."""
    images = np.zeros((7, 12, 12, channels), np.uint8)
    images[1] = 255
    images[2] = 97
    images[3, 5, 7] = 255
    images[4] = np.random.default_rng(1).integers(0, 256, images.shape[1:])
    images[5, ::2, ::2] = images[5, 1::2, 1::2] = 255
    images[6, :, 6:] = 255
    return images


@pytest.mark.slow
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("start", ["transport", "grid", "adaptive"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_hard_images(channels: int, start: str, dtype: str, tmp_path: Path) -> None:
    path = tmp_path / "hard.zarr"
    job = resolve_job("hard", path, gaussians=10, steps=40, start=start, dtype=dtype, workers=2)
    summary = encode(job, source=ArrayImages(hard_images(channels)))
    assert summary.failed == ()
    with open_store(path) as store:
        rows = store.read(["splats", "state", "psnr", "ssim", "dead"])
        layout = store.header.splat_layout
    assert rows["splats"].shape == (7, 10, 5 + channels)
    assert (rows["state"] == RowState.DONE).all()
    assert np.isfinite(rows["splats"]).all()
    assert (rows["splats"][..., :2] > 0).all()
    assert (np.abs(rows["splats"][..., layout.index("rho")]) < 1).all()
    assert not np.isnan(rows["psnr"]).any()
    assert (rows["psnr"][:3] > 30).all(), "black, white and flat images are easy"
    assert ((rows["dead"] >= 0) & (rows["dead"] <= 10)).all()
    assert verify(path).sound


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
@pytest.mark.parametrize("codec", ["additive", "normalised"])
def test_tiny_images(shape: tuple[int, int], codec: str, tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, *shape, 3), dtype=np.uint8)
    images[1] = images[0]
    path = tmp_path / "tiny.h5"
    summary = encode(resolve_job("tiny", path, gaussians=3, steps=30, codec=codec), source=ArrayImages(images))
    assert (summary.fitted, summary.reused, summary.failed) == (4, 1, ())
    with open_store(path) as store:
        assert np.isfinite(store.read(["splats"])["splats"]).all()
    assert verify(path).sound


@pytest.mark.slow
def test_workers_and_blocks_change_no_bit(tmp_path: Path) -> None:
    images = hard_images(3)
    found = []
    for workers, block_rows in ((1, 64), (3, 2)):
        path = tmp_path / f"{workers}.zarr"
        job = resolve_job("hard", path, gaussians=10, steps=40, workers=workers, block_rows=block_rows)
        encode(job, source=ArrayImages(images))
        with open_store(path) as store:
            found.append(store.read(["splats", "psnr", "ssim", "steps", "dead"]))
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name], err_msg=name)


def test_zero_steps_stores_the_start(tmp_path: Path) -> None:
    path = tmp_path / "start.zarr"
    encode(resolve_job("hard", path, gaussians=10, steps=0), source=ArrayImages(hard_images(1)))
    with open_store(path) as store:
        assert (store.read(["steps"])["steps"] == 0).all()
