"""Runner, run and server die at the same instant; after the restart the dead run is marked and the next one goes on."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from tests.faults.servers import REPOSITORY, Server, done_rows, end_group
from tests.faults.stores_alike import assert_alike
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(2400)]

IMAGES = 768
SETTINGS: dict[str, Any] = {"gaussians": 24, "steps": 600, "workers": 1}

SECONDS_UNTIL_MARKED = 90 + 60
"""What the automation waits for, and the loops of the server beside it."""


@contextmanager
def serving(server: Server) -> Iterator[psutil.Process]:
    """``python -m flows``, with a server of its own; killed at the end with everything it started."""
    environment = {**server.environment, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}
    with server.log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows"], env=environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL,
            stdout=stream, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_until(
            lambda: process.poll() is not None or "Ctrl-C" in server.log.read_text(errors="replace"), 240, "serving"
        )
        assert process.poll() is None, server.log.read_text(errors="replace")[-4000:]
        yield psutil.Process(process.pid)
    finally:
        if process.poll() is None:
            cut_power(psutil.Process(process.pid))
        end_group(process)


def cut_power(process: psutil.Process) -> None:
    """SIGKILL to a process and all below it, none of which gets to do anything in between."""
    everything = [process, *process.children(recursive=True)]
    for one in everything:
        one.suspend()
    for one in everything:
        one.kill()
    psutil.wait_procs(everything, timeout=120)


def test_a_run_that_lost_its_power_is_marked_and_continued(tmp_path: Path, prefect_database: Path) -> None:
    home, source, out, expected = (tmp_path / name for name in ("home", "images.npz", "a.zarr", "b.zarr"))
    home.mkdir()
    coarse = np.random.default_rng(0).integers(0, 256, (IMAGES, 4, 4, 3), np.uint8)
    np.savez(source, images=coarse.repeat(4, 1).repeat(4, 2))
    server = Server(home, prefect_database)
    parameters = {"dataset": str(source), "out": str(out), "images_per_task": 256, **SETTINGS}

    def run_deployment() -> str:
        deployment = server.get("deployments/name/encode/encode-folder")
        return server.post(f"deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"]

    def state(run: str) -> str:
        return server.get(f"flow_runs/{run}")["state"]["name"]

    with serving(server) as process:
        first = run_deployment()
        wait_until(lambda: done_rows(out), 120, "the first block")
        assert state(first) == "Running"
        cut_power(process)
    kept = done_rows(out)
    assert 0 < kept < IMAGES
    cut = time.monotonic()
    server.log.write_text("")
    with serving(server):
        # For the server the dead run is alive, until its heartbeats have been missing for a while.
        assert state(first) == "Running"
        second = run_deployment()
        wait_until(lambda: state(first) == "Crashed", SECONDS_UNTIL_MARKED, "the end of the dead run")
        marked = time.monotonic() - cut
        wait_until(lambda: state(second) in ("Completed", "Failed", "Crashed"), 240, "the end of the second run")
        continued = time.monotonic() - cut
        assert state(second) == "Completed", server.log.read_text(errors="replace")[-4000:]
    print(f"marked as crashed after {marked:.0f} s, continued and done after {continued:.0f} s")  # noqa: T201
    assert os.path.exists(out)
    encode(resolve_job(str(source), expected, **SETTINGS))
    assert_alike(out, expected, images=IMAGES)
