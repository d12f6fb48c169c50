"""SIGKILL at random moments of a real run, then resumed: the rows are those of a run that was left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_schemas.records import RowState
from data_schemas.store import ARRAYS
from data_schemas.stores import open_store

KILLS = 10
"""For each of the two formats."""

IMAGES = 60


def command(out: Path) -> list[str]:
    options = "encode demo --limit 60 --steps 25 --gaussians 20 --block-rows 4 --workers 1 --no-report --json --out"
    return [sys.executable, "-m", "pipeline", *options.split(), str(out)]


def rows_of(path: Path) -> dict[str, NDArray[Any]]:
    with open_store(path) as store:
        return store.read([name for name in ARRAYS if name in store.arrays])


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_killed_runs_end_with_the_rows_of_a_whole_one(suffix: str, tmp_path: Path, repository: Path) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"killed.{suffix}"
    began = time.monotonic()
    subprocess.run(command(whole), cwd=repository, check=True, capture_output=True)
    duration = time.monotonic() - began
    expected = rows_of(whole)
    choose, killed, done = random.Random(7), 0, 0
    for attempt in range(KILLS):
        process = subprocess.Popen(command(path), cwd=repository, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # The first moments are imports: aim at the time in which the store is made and written.
        start_up = 0.6 * duration if attempt else 0.0
        deadline = time.monotonic() + 30
        while not path.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(choose.uniform(0, 0.12) if attempt == 0 else start_up + choose.uniform(0, 0.25 * duration))
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
        if path.exists() and _opens(path):
            rows = rows_of(path)
            finished = rows["state"] == RowState.DONE
            assert finished.sum() >= done, "rows that were done are lost"
            done = int(finished.sum())
            for name in ARRAYS:
                np.testing.assert_array_equal(rows[name][finished], expected[name][: len(finished)][finished])
    assert killed >= 3, "the kills came too late to test anything"
    subprocess.run(command(path), cwd=repository, check=True, capture_output=True)
    final = rows_of(path)
    assert len(final["state"]) == IMAGES
    for name, values in expected.items():
        np.testing.assert_array_equal(final[name], values, err_msg=name, strict=True)


def _opens(path: Path) -> bool:
    with open_store(path) as store:
        return len(store) > 0
