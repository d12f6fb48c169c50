"""The system clock is set forward and back while a run goes on: order and content do not depend on it."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_schemas.stores.open import open_store
from data_schemas.stores.redo_log import RedoLog
from pipeline.report import build_report
from tests.faults.clocks import jumping
from tests.faults.stores_alike import assert_alike
from tests.pipeline.encode.fakes import ArrayImages, SamplingEncoder, pictures, run


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))])
def test_runs_under_a_jumping_clock(suffix: str, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, expected = tmp_path / f"a.{suffix}", tmp_path / f"b.{suffix}"
    first, grown = ArrayImages(pictures(21)), ArrayImages(pictures(30))
    for store in (expected, path):
        if store == path:
            jumping(random.Random(seed), monkeypatch.setattr)
        run(store, first)
        grown.pixels["image-0003"] = pictures(1, seed=9)[0]
        summary = run(store, grown)
        assert (summary.kept, summary.fitted, summary.changed) == (20, 10, 1)
    assert_alike(path, expected, images=30)
    with open_store(path) as store:
        assert len(store.header.runs) == 2
        assert all(record.wall_seconds >= 0 for record in store.header.runs)
        build_report(store, tmp_path / "report")


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (2, 3, 4))])
def test_the_last_of_several_unfinished_changes_wins(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, source = tmp_path / "a.zarr", ArrayImages(pictures(4))
    run(path, source)
    jumping(random.Random(seed), monkeypatch.setattr)
    # A power cut right after a change has become valid, five times in a row, by writers without the lock.
    with monkeypatch.context() as cut:
        cut.setattr(RedoLog, "apply", lambda _log, _ready: None)
        for number in range(5):
            with open_store(path, "a", lock=False) as store:
                rows = store.read_block(0)
                rows.psnr[:] = number
                store.write_block(0, rows)
    for mode in ("r", "a"):
        with open_store(path, mode) as store:
            np.testing.assert_array_equal(store.read(["psnr"])["psnr"], [4, 4, 4, 4])


@pytest.mark.slow
def test_an_old_run_is_not_taken_for_a_later_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Which images are done is read from their content; a store "from the future" is continued like any other.
    path, source = tmp_path / "a.zarr", ArrayImages(pictures(9))
    days: list[int] = [900, -900]

    class OneDay(random.Random):
        def randint(self, a: int, b: int) -> int:
            return days[0]

    jumping(OneDay(), monkeypatch.setattr)
    run(path, source, limit=4)
    days.pop(0)
    encoder = SamplingEncoder()
    kept: Any = run(path, source, encoder)
    assert (kept.kept, kept.fitted, encoder.fitted) == (4, 5, 5)
    with open_store(path) as store:
        early, late = (record.started for record in store.header.runs)
        assert late < early
