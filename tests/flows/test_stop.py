"""Cancelling: by signals in this process, and from the API of a real server to a run of a runner and of a worker."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.error
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_schemas.errors import StoppedError
from data_schemas.records import RowState
from data_schemas.stores.open import open_store
from flows.stop import run_stoppably, settling
from models.checkpoint import load_checkpoint
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.train.job import resolve_train_job
from pipeline.train.tracking.log import read_lines
from pipeline.train.train import train
from tests.flows.terminal import PROC, Terminal
from tests.pipeline.training_runs import make_store
from tests.waiting import wait_until


class Terminated(BaseException):
    """Stands for Prefect's ``TerminationSignal``."""


@pytest.fixture
def terminated() -> Iterator[None]:
    """SIGTERM raises an exception in the main thread, as it does while Prefect runs a flow."""

    def raise_it(number: int, _frame: object) -> None:
        raise Terminated(number)

    before = signal.signal(signal.SIGTERM, raise_it)
    yield
    signal.signal(signal.SIGTERM, before)


class Work:
    """A thread that is busy until the flag is set, and a moment longer."""

    def __init__(self, moment: float = 0.2) -> None:
        self.stop = threading.Event()
        self.kept = threading.Event()
        self.moment = moment
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        self.stop.wait(600)
        time.sleep(self.moment)
        self.kept.set()

    def settle(self) -> None:
        # Not a join of the thread: Python 3.11 takes a thread for ended once a join of it was interrupted.
        self.kept.wait(600)


def send_soon(number: int, *, times: int = 1, apart: float = 0.05) -> None:
    """Signals to this process, from outside of what it is doing."""

    def send() -> None:
        for _ in range(times):
            time.sleep(apart)
            os.kill(os.getpid(), number)

    threading.Thread(target=send, daemon=True).start()


@pytest.mark.usefixtures("terminated")
class TestSettling:
    def test_a_termination_lets_the_work_end_and_goes_on(self) -> None:
        work = Work()
        handler = signal.getsignal(signal.SIGTERM)
        send_soon(signal.SIGTERM)
        with pytest.raises(Terminated), settling(work.stop, work.settle):
            work.settle()
        assert work.kept.is_set()
        assert signal.getsignal(signal.SIGTERM) is handler

    @pytest.mark.slow
    def test_a_second_termination_does_not_cut_the_end_short(self) -> None:
        work = Work(moment=1.0)
        send_soon(signal.SIGTERM, times=5)
        with pytest.raises(Terminated), settling(work.stop, work.settle):
            work.settle()
        assert work.kept.is_set()

    @pytest.mark.slow
    def test_a_second_ctrl_c_leaves_at_once(self) -> None:
        work = Work(moment=600.0)
        began = time.monotonic()
        send_soon(signal.SIGINT, times=2, apart=0.5)
        with pytest.raises(KeyboardInterrupt), settling(work.stop, work.settle):
            work.settle()
        assert time.monotonic() - began < 300
        assert work.stop.is_set()
        assert not work.kept.is_set()

    def test_an_error_stops_the_work_too(self) -> None:
        work = Work()

        def failing() -> None:
            with settling(work.stop, work.settle):
                raise ValueError("an error of the flow")

        with pytest.raises(ValueError, match="of the flow"):
            failing()
        assert work.kept.is_set()

    def test_without_an_interruption_nothing_is_stopped(self) -> None:
        work = Work()
        with settling(work.stop, work.settle):
            pass
        assert not work.stop.is_set()
        work.stop.set()

    @pytest.mark.slow
    def test_work_that_is_told_to_stop_ends_in_its_own_way(self) -> None:
        kept = threading.Event()
        threads: list[threading.Thread] = []

        def work(should_stop: Callable[[], bool]) -> None:
            threads.append(threading.current_thread())
            send_soon(signal.SIGTERM, times=2)
            end = time.monotonic() + 30
            while not should_stop() and time.monotonic() < end:
                time.sleep(0.01)
            time.sleep(0.3)
            kept.set()
            raise RuntimeError("stopped")

        with pytest.raises(Terminated):
            run_stoppably(work)
        assert kept.is_set()
        assert threads[0] is not threading.main_thread()

    def test_work_gives_back_what_it_returns_and_raises(self) -> None:
        context: ContextVar[str] = ContextVar("context", default="outside")
        context.set("inside")
        assert run_stoppably(lambda should_stop: (should_stop(), context.get())) == (False, "inside")

        def failing(_: Callable[[], bool]) -> None:
            raise ValueError("of the work")

        with pytest.raises(ValueError, match="of the work"):
            run_stoppably(failing)

    def test_it_works_in_another_thread(self) -> None:
        work = Work()
        caught: list[BaseException] = []

        def run() -> None:
            try:
                with settling(work.stop, work.settle):
                    raise Terminated(0)
            except BaseException as error:
                caught.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(300)
        assert work.kept.is_set()
        assert isinstance(caught[0], Terminated)


# Some seconds of work in four shards: enough of it is left when the first is done.
JOB: dict[str, Any] = {"gaussians": 30, "steps": 600, "workers": 2}

SERVE = """
from prefect import serve
from flows.encode import encode
serve(encode.to_deployment(name="cancelled"), limit=1)
"""

SERVE_TRAINING = """
from prefect import serve
from flows.train import train
serve(train.to_deployment(name="cancelled"), limit=1)
"""

DEPLOY = """
import sys
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.flows import Flow
with get_client(sync_client=True) as client:
    client.create_work_pool(WorkPoolCreate(name="splatspace", type="process"))
flow = Flow.from_source(source=sys.argv[1], entrypoint="flows/encode.py:encode")
flow.deploy(name="cancelled", work_pool_name="splatspace", print_next_steps=False)
"""


def contents(path: Path) -> dict[str, Any]:
    """Everything that a store holds of its images."""
    with open_store(path) as store:
        return store.read(store.arrays)


def patiently(terminal: Terminal, path: str, body: dict[str, Any] | None = None) -> Any:
    """Asks again while the server's small database is busy, as Prefect's own client does."""
    for _ in range(30):
        try:
            return terminal.call(path, body)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
        time.sleep(0.5)
    raise AssertionError(f"the server stays busy: {path}")


def done(path: Path) -> int:
    if not path.exists():
        return 0
    with open_store(path) as store:
        return int((store.read(["state"])["state"] == RowState.DONE).sum())


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.long
@pytest.mark.timeout(2400)
@pytest.mark.skipif(not PROC.is_dir(), reason="processes are counted in /proc")
class TestCancelling:
    @pytest.fixture(scope="class")
    def terminal(
        self, tmp_path_factory: pytest.TempPathFactory, repository: Path, prefect_database: Path
    ) -> Iterator[Terminal]:
        """Beside a server."""
        home = tmp_path_factory.mktemp("cancelling") / "home"
        terminal = Terminal(home, repository, database=prefect_database, OMP_NUM_THREADS="1")
        terminal.environment["PREFECT_API_URL"] = terminal.api_url
        server = f"prefect server start --host 127.0.0.1 --port {terminal.port}"
        with terminal.running(server, until="Check out the dashboard"):
            wait_until(lambda: terminal.call("/health") is True, 120, "the start of the server")
            yield terminal

    @pytest.fixture(scope="class")
    def undisturbed(self, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
        """Contents of the store of a run that nobody cancels."""
        path = tmp_path_factory.mktemp("undisturbed") / "demo.zarr"
        encode(resolve_job("demo", path, **JOB))
        return contents(path)

    @pytest.mark.parametrize(("served", "compute"), [(True, "local"), (False, "dask")])
    def test_a_cancelled_run_ends_by_itself_keeps_its_rows_and_continues(
        self, terminal: Terminal, undisturbed: dict[str, Any], tmp_path: Path, served: bool, compute: str
    ) -> None:
        script = tmp_path / "script.py"
        script.write_text(SERVE if served else DEPLOY)
        terminal.environment["PYTHONPATH"] = str(terminal.folder)
        if served:
            command, ready = f"python {script}", "being served"
        else:
            terminal.type(f"python {script} {terminal.folder}")
            command, ready = "prefect worker start --pool splatspace", "started!"
        with terminal.running(command, until=ready):
            out = tmp_path / "demo.zarr"
            deployment = patiently(terminal, "/deployments/name/encode/cancelled")
            before = set(terminal.processes())
            run = patiently(
                terminal,
                f"/deployments/{deployment['id']}/create_flow_run",
                {"parameters": {"dataset": "demo", "out": str(out), "compute": compute, "images_per_task": 256, **JOB}},
            )
            wait_until(lambda: done(out) > 0, 180, "the first shard")
            of_the_run = set(terminal.processes()) - before
            assert of_the_run
            patiently(terminal, f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}, "force": False})
            wait_until(lambda: not of_the_run & set(terminal.processes()), 60, "the end of the run's processes")
            wait_until(
                lambda: terminal.call(f"/flow_runs/{run['id']}")["state"]["type"] == "CANCELLED", 30, "Cancelled"
            )
            states = [state["type"] for state in patiently(terminal, f"/flow_run_states/?flow_run_id={run['id']}")]
            left = set(terminal.processes()) - before
        assert "CRASHED" not in states
        assert not left, "the run has left processes behind"
        kept = done(out)
        assert 0 < kept < 1000
        # The record of a run is its last act: what Prefect kills after 30 seconds of grace leaves none.
        with open_store(out) as store:
            assert sum(record.images + record.reused for record in store.header.runs) == kept
        summary = encode(resolve_job("demo", out, **JOB))
        assert summary.kept == kept
        continued = contents(out)
        assert continued.keys() == undisturbed.keys()
        for name, expected in undisturbed.items():
            np.testing.assert_array_equal(continued[name], expected, err_msg=name)

    def test_a_cancelled_training_keeps_the_state_of_its_last_step(self, terminal: Terminal, tmp_path: Path) -> None:
        store, out = make_store(tmp_path / "a.zarr"), tmp_path / "run"
        options: dict[str, Any] = {"preset": "tiny", "steps": 100_000, "batch": 8, "every": 50_000, "device": "cpu"}
        script = tmp_path / "script.py"
        script.write_text(SERVE_TRAINING)
        terminal.environment["PYTHONPATH"] = str(terminal.folder)
        with terminal.running(f"python {script}", until="being served"):
            deployment = patiently(terminal, "/deployments/name/train/cancelled")
            before = set(terminal.processes())
            run = patiently(
                terminal,
                f"/deployments/{deployment['id']}/create_flow_run",
                {"parameters": {"store": str(store), "out": str(out), **options}},
            )
            wait_until(lambda: len(read_lines(out / "log.jsonl")) > 0, 180, "the first entry of the log")
            patiently(terminal, f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLING"}, "force": False})
            wait_until(lambda: set(terminal.processes()) <= before, 60, "the end of the run's processes")
            wait_until(
                lambda: terminal.call(f"/flow_runs/{run['id']}")["state"]["type"] == "CANCELLED", 30, "Cancelled"
            )
        cancelled = load_checkpoint(out / "state.safetensors")
        step = int(cancelled.config["step"])
        assert 50 <= step < 50_000
        steps = iter(range(1, step + 1))
        with pytest.raises(StoppedError):
            train(
                resolve_train_job("splats", store, tmp_path / "undisturbed", **options),
                should_stop=lambda: next(steps) == step,
            )
        undisturbed = load_checkpoint(tmp_path / "undisturbed" / "state.safetensors")
        for mine, theirs in ((cancelled.model, undisturbed.model), (cancelled.tensors, undisturbed.tensors)):
            assert mine.keys() == theirs.keys()
            assert all(torch.equal(mine[name], theirs[name]) for name in mine)
