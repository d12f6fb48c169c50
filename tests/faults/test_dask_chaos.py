"""Dask workers, and runs with their workers alive, killed at random: the bytes are those of one undisturbed process."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Future

from data_schemas.stores.open import open_store
from pipeline.encode.compute import encode_shards, open_compute
from pipeline.encode.compute.local import shards
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from tests.faults.servers import REPOSITORY, done_rows, end_group
from tests.faults.stores_alike import assert_alike, stored_bytes
from tests.pipeline.encode.compute.runs import images, plan_for, slow, whole_run, workers_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

IMAGES = 1000
SETTINGS: dict[str, Any] = {"gaussians": 24, "steps": 600, "block_rows": 25}
FEW, MANY = (2, 1), (5, 3)
"""Kills of workers, and of whole runs."""

RUN = """
import sys
from pathlib import Path
from pipeline.encode.run import encode
from pipeline.encode.job import resolve_job
from tests.faults.test_dask_chaos import SETTINGS
if __name__ == "__main__":
    encode(resolve_job(sys.argv[1], Path(sys.argv[2]), compute="dask", workers=2, **SETTINGS))
"""


def begin(source: Path, out: Path, log: Path) -> subprocess.Popen[bytes]:
    """A run on two Dask workers in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    with log.open("ab") as stream:
        return subprocess.Popen(
            [sys.executable, "-c", RUN, str(source), str(out)], env=environment, cwd=REPOSITORY,
            stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip


def wait_for_progress(run: subprocess.Popen[bytes], out: Path, rows: int, log: Path) -> None:
    wait_until(lambda: run.poll() is not None or done_rows(out) > rows, 240, "another block")
    assert run.poll() is None, f"the run ended too soon: {log.read_text()[-3000:]}"


def killed_one_shard_too_often(run: subprocess.Popen[bytes], log: Path) -> bool:
    """Whether the run has ended since four workers in a row died with one shard; then it is run again, as it says.

    Or since none was left: on a busy machine Dask may give up those that were to replace the killed ones.
    """
    if not run.poll():
        return False
    said = log.read_text()
    assert "every worker that tried them was killed" in said or "has had no workers for" in said, said[-3000:]
    log.write_text("")
    return True


@pytest.mark.long
@pytest.mark.parametrize(("worker_kills", "run_kills"), [FEW, pytest.param(*MANY, marks=pytest.mark.soak)])
def test_random_kills_of_workers_and_of_whole_runs_change_no_byte(
    worker_kills: int, run_kills: int, tmp_path: Path
) -> None:
    source, out, expected, log = (tmp_path / name for name in ("images.npz", "a.zarr", "b.zarr", "log"))
    coarse = np.random.default_rng(0).integers(0, 256, (IMAGES, 4, 4, 3), np.uint8)
    np.savez(source, images=coarse.repeat(4, 1).repeat(4, 2))
    dice = random.Random(5)
    runs: list[subprocess.Popen[bytes]] = []
    rows = 0
    try:
        for _ in range(run_kills):
            runs.append(begin(source, out, log))
            wait_for_progress(runs[-1], out, rows, log)
            time.sleep(dice.uniform(0, 0.5))
            runs[-1].kill()  # its workers live on for a while, and may be writing
            assert runs[-1].wait(120) == -signal.SIGKILL
            found = done_rows(out)
            assert rows <= found < IMAGES
            rows = found
        runs.append(begin(source, out, log))
        killed = 0
        while killed < worker_kills:
            if killed_one_shard_too_often(runs[-1], log):
                runs.append(begin(source, out, log))
            wait_until(lambda rows=rows: runs[-1].poll() is not None or done_rows(out) > rows, 240, "another block")
            rows = done_rows(out)
            if rows == IMAGES:
                break
            with contextlib.suppress(psutil.Error, IndexError):  # the last victims may be vanishing just now
                dice.choice(workers_of(psutil.Process(runs[-1].pid))).kill()
                killed += 1
            time.sleep(dice.uniform(0, 0.5))
        assert killed >= 2, "the run ended too soon"
        runs[-1].wait(900)
        if killed_one_shard_too_often(runs[-1], log):
            runs.append(begin(source, out, log))
        assert runs[-1].wait(900) == 0, log.read_text()[-3000:]
    finally:
        for run in runs:
            end_group(run)
    encode(resolve_job(str(source), expected, workers=1, **SETTINGS))
    assert stored_bytes(out) == stored_bytes(expected), "another program would see another store"
    with open_store(out, "a"):
        pass  # what a killed worker has only begun stays in the journal until somebody writes again
    assert_alike(out, expected, images=IMAGES)


def test_a_result_that_dies_with_its_worker_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What the client sees when a worker is killed between the end of a shard and the sending of its summary.
    lost: list[str] = []
    result = Future.result

    def once_lost(future: Future, timeout: Any = None) -> Any:
        if not lost:
            lost.append(str(future.key))
            raise TimeoutError
        return result(future, timeout)

    monkeypatch.setattr(Future, "result", once_lost)
    plan = plan_for(tmp_path / "a.zarr", "dask", workers=1)
    with open_compute(plan, source_factory=images(), encoder_factory=slow()) as compute:
        summaries = encode_shards(compute, shards(plan.blocks, 4, 8))
        summary = compute.finish(summaries)
    assert lost
    assert summary.rows_done == summary.fitted == plan.images
    assert_alike(tmp_path / "a.zarr", whole_run(tmp_path / "b.zarr"), images=plan.images)
