"""Verification finds what is wrong, names the row, and finds nothing in a sound store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_schemas.errors import StoreError
from data_schemas.stores.open import open_store
from pipeline.verify import psnr_bounds, verify
from tests.pipeline.encode.fakes import ArrayImages, pictures, run


@pytest.fixture(params=["zarr", "h5"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"store.{request.param}"
    source = ArrayImages(pictures(10))
    source.broken["image-0007"] = "broken"
    run(path, source)
    return path


def change(path: Path, row: int, **values: Any) -> None:
    """Rewrites single values of a row through the store, so that its checksums are right."""
    with open_store(path, "a") as store:
        block = row // store.header.block_rows
        rows = store.read_block(block)
        for name, value in values.items():
            getattr(rows, name)[row % store.header.block_rows] = value
        store.write_block(block, rows)


@pytest.mark.slow
def test_a_sound_store(path: Path) -> None:
    seen: list[tuple[int, int]] = []
    found = verify(path, progress=lambda done, total: seen.append((done, total)))
    assert found.sound
    assert (found.rows, found.done, found.compared) == (10, 9, 9)
    assert seen == [(4, 10), (8, 10), (10, 10)]


@pytest.mark.slow
def test_a_wrong_psnr_is_found(path: Path) -> None:
    with open_store(path) as store:
        recorded = float(store.read(["psnr"])["psnr"][5])
    change(path, 5, psnr=recorded + 0.01)
    found = verify(path)
    assert [fault.row for fault in found.faults] == [5]
    assert found.faults[0].source_id == "image-0005"
    assert f"{recorded + 0.01:.3f} dB is recorded" in found.faults[0].reason


@pytest.mark.slow
def test_changed_pixels_splats_and_missing_psnr_are_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another program may write what this one refuses to.
    monkeypatch.setattr("data_schemas.stores.contract.check_block", lambda rows, *_: rows)
    with open_store(path) as store:
        content = store.read(["image", "splats"])
    image, splats = content["image"][2].copy(), content["splats"].copy()
    image[0, 0, 0] ^= 1
    splats[3, 0, 3] += 0.05
    splats[4, 1, 0] = 0
    splats[6, 1, 2] = 1
    splats[8, 1, 2] = np.nan
    change(path, 2, image=image)
    for row in (3, 4, 6, 8):
        change(path, row, splats=splats[row])
    change(path, 9, psnr=np.nan)
    reasons = {fault.row: fault.reason for fault in verify(path).faults}
    assert sorted(reasons) == [2, 3, 4, 6, 8, 9]
    for row, words in ((2, "hash"), (3, "recorded"), (4, "sigma"), (6, "rho"), (8, "finite"), (9, "without")):
        assert words in reasons[row]


@pytest.mark.slow
def test_damaged_bytes_are_found_by_row(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    run(path, ArrayImages(pictures(10)))
    shard = next(file for file in (path / "psnr" / "c").rglob("*") if file.is_file() and file.name == "1")
    data = bytearray(shard.read_bytes())
    data[2] ^= 0x10
    shard.write_bytes(data)
    found = verify(path)
    assert [fault.row for fault in found.faults] == [4, 5, 6, 7]
    assert found.faults[0].source_id == "image-0004"
    assert found.compared == 6


@pytest.mark.slow
def test_without_images_numbers_are_still_checked(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    run(path, ArrayImages(pictures(5)), images=False)
    found = verify(path)
    assert (found.done, found.compared, found.images, found.sound) == (5, 0, False, True)
    with open_store(path) as store:
        splats = store.read(["splats"])["splats"][2]
    splats[0, 0] = -1
    change(path, 2, splats=splats)
    assert [fault.row for fault in verify(path).faults] == [2]


def test_a_missing_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        verify(tmp_path / "none.zarr")


def test_bounds_hold_only_what_rounding_can_do() -> None:
    source = np.array([[[10], [20]], [[30], [40]]], np.uint8)
    certain = ((source + 0.1) / 255).astype(np.float32)
    low, high = psnr_bounds(certain, source)
    assert low == high == np.inf
    # One value lies on the boundary between 10 and 11: it may be right or wrong by 1.
    doubtful = certain.copy()
    doubtful[0, 0, 0] = 10.5 / 255
    low, high = psnr_bounds(doubtful, source)
    assert high == np.inf
    assert low == pytest.approx(10 * np.log10(255**2 * 4), abs=1e-3)
