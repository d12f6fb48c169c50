"""Somebody deletes or replaces a store that is being written, or was: told, and the next run makes it again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from data_schemas.errors import StoreError, StoreLockedError
from data_schemas.stores.open import open_store
from data_schemas.stores.redo_log import RedoLog
from encoders.base import FitResult
from tests.faults.stores_alike import assert_alike
from tests.pipeline.encode.fakes import ArrayImages, SamplingEncoder, pictures, run

IMAGES = 24
"""Six blocks of four."""


class DisturbedEncoder(SamplingEncoder):
    """Does something in the middle of a run."""

    def __init__(self, disturb: Callable[[], object]) -> None:
        super().__init__()
        self.disturb = disturb

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        if len(self.batches) == 3:
            self.disturb()
        return super().fit(images, should_stop=should_stop)


def remove(path: Path) -> None:
    """Deletes a store or anything else, at once: who writes into it meanwhile does not keep it from vanishing."""
    gone = path.rename(path.parent.parent / f"gone-{path.name}")
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()


def source() -> ArrayImages:
    return ArrayImages(pictures(IMAGES))


@pytest.fixture(params=["zarr", "h5"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder / f"a.{request.param}"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("undisturbed")
    paths = {suffix: folder / f"expected{suffix}" for suffix in (".zarr", ".h5")}
    for path in paths.values():
        run(path, source())
    return paths


@pytest.fixture
def expected(out: Path, undisturbed: dict[str, Path]) -> Path:
    return undisturbed[out.suffix]


@pytest.mark.slow
def test_deleted_between_two_runs_everything_is_fitted_again(out: Path, expected: Path) -> None:
    run(out, source())
    remove(out)
    encoder = SamplingEncoder()
    summary = run(out, source(), encoder)
    assert (summary.kept, summary.fitted, encoder.fitted) == (0, IMAGES, IMAGES)
    assert_alike(out, expected, images=IMAGES)


@pytest.mark.slow
def test_deleted_under_a_run(out: Path, expected: Path) -> None:
    encoder = DisturbedEncoder(lambda: remove(out))
    if out.suffix == ".zarr":
        with pytest.raises(StoreError, match=r"deleted while it was being written.*run the same command again"):
            run(out, source(), encoder)
        assert not out.exists(), "the wreck of a store was left"
        run(out, source())
    else:
        # The file lives on while it is open, and the end of the run writes a whole new one.
        assert run(out, source(), encoder).rows_done == IMAGES
    assert_alike(out, expected, images=IMAGES)


@pytest.mark.slow
def test_a_run_whose_folder_was_emptied_leaves_the_next_one_alone(out: Path, expected: Path) -> None:
    seen: list[Any] = []

    def empty_and_start_again() -> None:
        for entry in list(out.parent.iterdir()):
            remove(entry)
        seen.append(run(out, source()))

    with pytest.raises(StoreError, match="while"):
        run(out, source(), DisturbedEncoder(empty_and_start_again))
    assert seen[0].fitted == IMAGES
    assert_alike(out, expected, images=IMAGES)


@pytest.mark.slow
def test_a_lock_that_was_deleted_is_noticed_before_anything_is_written(out: Path, expected: Path) -> None:
    lock = out.with_name(out.name + ".lock")
    with pytest.raises(StoreLockedError, match="was deleted while the store was being written"):
        run(out, source(), DisturbedEncoder(lock.unlink))
    with open_store(out) as store:
        done = int((store.read(["state"])["state"] == 1).sum())
    assert 0 < done < IMAGES
    assert run(out, source()).kept == done
    assert_alike(out, expected, images=IMAGES)


@pytest.mark.slow
def test_a_replacement_that_is_killed_early_leaves_the_old_store_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The old run died between two files of a change; the replacement dies before it takes the place.
    path, expected = tmp_path / "a.zarr", tmp_path / "b.zarr"
    for store in (path, expected):
        run(store, ArrayImages(pictures(4)))
    with monkeypatch.context() as dead:
        dead.setattr(RedoLog, "apply", lambda _log, _ready: None)
        with open_store(path, "a", lock=False) as store:
            rows = store.read_block(0)
            rows.psnr[:] = 7
            store.write_block(0, rows)
    shard = next((path.parent / "a.zarr.journal").rglob("steps/c/0"))
    shard.replace(path / "steps" / "c" / "0")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dead:
        dead.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            run(path, ArrayImages(pictures(4)), overwrite=True)
    with open_store(path) as store:
        np.testing.assert_array_equal(store.read(["psnr"])["psnr"], [7, 7, 7, 7])


@pytest.mark.slow
def test_the_change_of_a_killed_worker_is_in_place_when_the_run_ends(tmp_path: Path) -> None:
    path = tmp_path / "a.zarr"
    run(path, ArrayImages(pictures(4)))
    with open_store(path, "a") as holder:
        with pytest.MonkeyPatch.context() as dead:
            dead.setattr(RedoLog, "apply", lambda _log, _ready: None)
            with open_store(path, "a", lock=False) as worker:
                rows = worker.read_block(0)
                rows.psnr[:] = 7
                worker.write_block(0, rows)
        holder.commit()
        # As any other program reads it.
        np.testing.assert_array_equal(np.asarray(zarr.open_array(path / "psnr", mode="r")[:]), [7, 7, 7, 7])
    assert not (tmp_path / "a.zarr.journal").exists()
