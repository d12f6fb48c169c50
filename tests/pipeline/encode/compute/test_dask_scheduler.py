"""A scheduler that is there: its workers encode, and when it goes away the run says so and the next one continues."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from distributed import Client

from data_schemas.errors import ComputeError
from pipeline.encode.compute import dask_cluster, encode_shards, open_compute
from pipeline.encode.compute.local import shards
from pipeline.encode.run import encode
from tests.conftest import REPOSITORY
from tests.pipeline.encode.compute.runs import (
    IMAGES,
    assert_same_store,
    dask_process,
    done,
    images,
    listening,
    plan_for,
    slow,
    source,
    whole_run,
)
from tests.pipeline.encode.fakes import SamplingEncoder, job_for
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

LOOPBACK = ("--host", "127.0.0.1", "--no-dashboard")


def address_in(file: Path) -> str:
    wait_until(lambda: file.exists() and file.read_text().strip().endswith("}"), 60)
    return json.loads(file.read_text())["address"]


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a scheduler with two workers, one of them with two threads."""
    folder = tmp_path_factory.mktemp("scheduler")
    file = folder / "scheduler.json"
    with dask_process("scheduler", *LOOPBACK, "--port", "0", "--scheduler-file", str(file)):
        address = address_in(file)
        worker = ("worker", address, *LOOPBACK, "--local-directory", str(folder), "--nthreads")
        with dask_process(*worker, "1"), dask_process(*worker, "2"):
            with Client(address, set_as_default=False) as client:
                client.wait_for_workers(2, timeout=300)
            yield address


def test_workers_of_a_scheduler_give_the_bytes_of_one_process(
    scheduler: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the workers are elsewhere: a relative path must reach them as an absolute one
    for name in ("a.zarr", "again.zarr"):  # another plan closes the session of the one before
        plan = plan_for(Path(name), scheduler)
        with open_compute(plan, source_factory=images(), encoder_factory=slow()) as compute:
            assert compute.slots == 4
            summary = compute.finish(encode_shards(compute, shards(plan.blocks, 4, 8)))
        assert summary.fitted == summary.rows_done == IMAGES
        assert_same_store(tmp_path / name, whole_run(tmp_path / f"whole-{name}"))


def test_a_worker_of_another_version_is_named(scheduler: str, tmp_path: Path) -> None:
    other = tmp_path / "splatspace-0.0.7.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: splatspace\nVersion: 0.0.7\n")
    # Safe: else the folder in which the worker starts, the checkout with its own metadata, comes before them.
    path = {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)]), "PYTHONSAFEPATH": "1"}
    plan = plan_for(tmp_path / "a.zarr", scheduler)
    named = ("--name", "another", "--local-directory", str(tmp_path))
    with dask_process("worker", scheduler, *LOOPBACK, *named, environment=path):
        with Client(scheduler, set_as_default=False) as client:
            # By its name: a worker of the test before may still be counted.
            wait_until(lambda: "another" in {one["name"] for one in client.scheduler_info(-1)["workers"].values()})
        with (
            pytest.raises(ComputeError, match=r"The Dask worker tcp://127.0.0.1:\d+ has splatspace 0\.0\.7"),
            open_compute(plan, source_factory=images(), encoder_factory=slow()),
        ):
            pass
    with Client(scheduler, set_as_default=False) as client:
        wait_until(lambda: dask_cluster.count_workers(client) == 2)


def test_a_worker_whose_profiler_may_freeze_it_is_named(
    scheduler: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(dask_cluster, "PROFILER_SAFE", (99, 0, 0))
    dask_cluster.connect(scheduler).close()
    assert not caplog.records
    profiled = {"DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "True"}
    with dask_process("worker", scheduler, *LOOPBACK, "--local-directory", str(tmp_path), environment=profiled):
        with Client(scheduler, set_as_default=False) as client:
            client.wait_for_workers(3, timeout=300)
        dask_cluster.connect(scheduler).close()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED=False" in caplog.text
    monkeypatch.setattr(dask_cluster, "PROFILER_SAFE", (3, 0, 0))
    with Client(scheduler, set_as_default=False) as client:
        wait_until(lambda: dask_cluster.count_workers(client) == 2)


def test_nobody_there_and_no_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_cluster, "_CONNECT_SECONDS", 1)
    monkeypatch.setattr(dask_cluster, "WORKERS_WAITED_FOR", 1)
    plan = plan_for(tmp_path / "a.zarr", "tcp://127.0.0.1:9")
    with (
        pytest.raises(ComputeError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        open_compute(plan, source_factory=images(), encoder_factory=slow()),
    ):
        pass
    file = tmp_path / "scheduler.json"
    with dask_process("scheduler", *LOOPBACK, "--port", "0", "--scheduler-file", str(file)):
        plan = plan_for(tmp_path / "b.zarr", address_in(file))
        with (
            pytest.raises(ComputeError, match="has no workers after 1 seconds"),
            open_compute(plan, source_factory=images(), encoder_factory=slow()),
        ):
            pass


def test_a_lost_scheduler_is_an_error_and_one_that_comes_back_is_used(tmp_path: Path) -> None:
    file, out, marks = tmp_path / "scheduler.json", tmp_path / "a.zarr", tmp_path / "marks"
    marks.mkdir()
    head = ("scheduler", *LOOPBACK, "--scheduler-file", str(file), "--port")
    below = ("worker", *LOOPBACK, "--local-directory", str(tmp_path), "--nthreads", "1")
    with contextlib.ExitStack() as stack:
        first = stack.enter_context(dask_process(*head, "0"))
        address = address_in(file)
        worker = psutil.Process(stack.enter_context(dask_process(*below, address)).pid)
        plan = plan_for(out, address)
        with open_compute(plan, source_factory=images(), encoder_factory=slow(0.1, marks)) as compute:

            def lose() -> None:
                wait_until(lambda: len(list(marks.iterdir())) >= 4)
                first.kill()

            thread = threading.Thread(target=lose)
            thread.start()
            with pytest.raises(ComputeError, match=f"The Dask scheduler at {address} is gone"):
                encode_shards(compute, [plan.blocks])
            thread.join()
            begun = len(list(marks.iterdir()))
            wait_until(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE, 60)
            assert len(list(marks.iterdir())) <= begun + 1, "the worker went on without its scheduler"
            kept = done(out)
            assert 0 < kept < IMAGES
            stack.enter_context(dask_process(*head, address.rpartition(":")[2]))
            stack.enter_context(dask_process(*below, address))
            summary = compute.finish([compute.encode(plan.blocks)])
            assert (summary.kept, summary.fitted) == (kept, IMAGES - kept)
    assert_same_store(out, whole_run(tmp_path / "b.zarr"))


CLIENT = """
from pathlib import Path
from pipeline.encode.compute import open_compute
from tests.pipeline.encode.compute.runs import images, plan_for, slow
if __name__ == "__main__":
    plan = plan_for(Path("{out}"), "{address}")
    with open_compute(plan, source_factory=images(), encoder_factory=slow(0.1, Path("{marks}"))) as compute:
        compute.encode(plan.blocks)
"""


def test_workers_stop_when_the_run_that_they_work_for_is_killed(scheduler: str, tmp_path: Path) -> None:
    out, marks = tmp_path / "a.zarr", tmp_path / "marks"
    marks.mkdir()
    script = tmp_path / "client.py"
    script.write_text(CLIENT.format(out=out, address=scheduler, marks=marks))
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen([sys.executable, script], env=environment, cwd=REPOSITORY)
    try:
        wait_until(lambda: len(list(marks.iterdir())) >= 4, 60)
    finally:
        process.kill()
        process.wait()

    def nothing_begins() -> bool:
        begun = len(list(marks.iterdir()))
        time.sleep(2)
        return len(list(marks.iterdir())) == begun

    wait_until(nothing_begins, 60)
    begun, kept = len(list(marks.iterdir())), done(out)
    time.sleep(1)
    assert len(list(marks.iterdir())) == begun < len(plan_for(out, "local").blocks), "a worker went on for nobody"
    assert kept == done(out) >= 4
    summary = encode(job_for(out, compute=scheduler), source=source(), encoder=SamplingEncoder())
    assert (summary.kept, summary.fitted) == (kept, IMAGES - kept)
    assert_same_store(out, whole_run(tmp_path / "b.zarr"))


COMMAND = ("encode", "demo", "--limit", "400", "--gaussians", "60", "--steps", "3000", "--block-rows", "32")
RUN = "from pipeline.cli import main\nif __name__ == '__main__':\n    main()\n"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_command_line_is_stopped_with_all_its_processes(how: signal.Signals, tmp_path: Path) -> None:
    script, out = tmp_path / "splatspace.py", tmp_path / "a.zarr"
    script.write_text(RUN)
    process = subprocess.Popen(
        [sys.executable, script, *COMMAND, "--out", out, "--compute", "dask", "--workers", "2", "--no-report"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        shard = out / "splats" / "c" / "0"
        wait_until(shard.exists, 90)
        everybody = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        assert len(everybody) >= 3
        assert listening(everybody[0]) == {"127.0.0.1"}
        if how != signal.SIGKILL:
            # Ctrl-C reaches every process of the terminal, and Prefect's cancellation every process of the run.
            os.killpg(process.pid, how)
        else:
            process.send_signal(how)
        _, said = process.communicate(timeout=300)
        _, alive = psutil.wait_procs(everybody, timeout=100)
        assert not alive, "processes outlive the run"
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    kept = done(out)
    assert 0 < kept < 400
    if how != signal.SIGKILL:
        assert process.returncode == 130, said.decode()
        assert "Traceback" not in said.decode(), said.decode()
        assert "run the same command again" in said.decode()
