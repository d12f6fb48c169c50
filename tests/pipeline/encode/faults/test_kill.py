"""SIGKILL at random moments of a real run, then resumed: the rows are those of a run that was left alone."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import random
import shutil
import signal
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from data_schemas.records import RowState
from data_schemas.stores.contract import ARRAYS
from data_schemas.stores.open import open_store

FEW, MANY = 4, 10
"""Kills for each of the two formats."""

IMAGES = 64

WARM = "tests.pipeline.encode.warm_start"


def splatspace(out: str, ready: Connection) -> None:
    """The console script in a process of its own; says when everything is loaded."""
    importlib.import_module(WARM)
    options = f"encode demo --limit {IMAGES} --steps 200 --gaussians 40 --block-rows 8 --workers 1 --no-report --json"
    sys.argv = ["splatspace", *options.split(), "--out", out]
    from pipeline.cli import main

    with open(os.devnull, "w") as nowhere:
        sys.stdout = nowhere
        ready.send(True)
        main()


def begin(out: Path) -> BaseProcess:
    """Starts a run and returns when it is about to look at the store."""
    # Imports take longer than the run: a server process imports once, and every run is a fork of it.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([WARM, "pipeline.cli"])
    told, ready = context.Pipe(duplex=False)
    process = context.Process(target=splatspace, args=(str(out), ready))
    process.start()
    ready.close()
    assert told.recv()
    return process


def rows_of(path: Path) -> dict[str, NDArray[Any]]:
    with open_store(path) as store:
        return store.read(ARRAYS)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
def test_killed_runs_end_with_the_rows_of_a_whole_one(kills: int, suffix: str, tmp_path: Path) -> None:
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"killed.{suffix}"
    process, began = begin(whole), time.monotonic()
    process.join()
    duration = time.monotonic() - began
    assert process.exitcode == 0
    expected = rows_of(whole)
    choose, killed, partial, done = random.Random(7), 0, 0, 0
    for _ in range(8 * kills):
        if killed >= kills and partial >= kills // 3:
            break
        process = begin(path)
        process.join(choose.uniform(0, 0.8) * duration)
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if not path.exists():
            continue
        rows = rows_of(path)
        finished = rows["state"] == RowState.DONE
        assert finished.sum() >= done, "rows that were done are lost"
        done = int(finished.sum())
        partial += 0 < done < IMAGES
        for name in ARRAYS:
            np.testing.assert_array_equal(rows[name][finished], expected[name][: len(finished)][finished])
        if done == IMAGES:  # nothing left to interrupt: begin again
            remove(path)
            done = 0
    assert killed >= kills
    assert partial >= kills // 3, "too few runs were interrupted between their first and their last block"
    process = begin(path)
    process.join()
    assert process.exitcode == 0
    final = rows_of(path)
    for name, values in expected.items():
        np.testing.assert_array_equal(final[name], values, err_msg=name, strict=True)
