"""A Prefect server that can be killed and started again, and flows in processes of their own that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_schemas.records import RowState
from data_schemas.stores.open import open_store
from tests.waiting import free_port, wait_until

REPOSITORY = Path(__file__).resolve().parent.parent.parent

FLOW_IMAGES = 768
"""Three blocks of 256 rows, a shard each."""

FLOW_SETTINGS: dict[str, Any] = {"gaussians": 24, "steps": 300, "workers": 1}
"""Slow enough, about a second for a block, that a fault meets the run in the middle."""

RUN_FLOW = """
import json, sys
from flows.encode import encode
if __name__ == "__main__":
    summary = encode(**json.loads(sys.argv[1]))
    print("SUMMARY " + summary.model_dump_json())
"""


def done_rows(path: Path) -> int:
    """Rows of a store that hold splats; 0 where there is no store."""
    if not path.exists():
        return 0
    with open_store(path) as store:
        return int((store.read(["state"])["state"] == RowState.DONE).sum())


def _answer(request: urllib.request.Request) -> Any:
    """Asks again while the server is busy, as Prefect's own client does: SQLite lets one write at a time."""
    for _ in range(20):
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code != 503:
                raise
            time.sleep(1)
    raise AssertionError(f"the server stays busy: {request.full_url}")


class Server:
    """Prefect's server with a home, a database and a port of its own.

    Args:
        home: an empty folder.
        database: that it begins with a copy of.
    """

    def __init__(self, home: Path, database: Path) -> None:
        self.home = home
        shutil.copy(database, home / "prefect.db")
        self.port = free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.log = home / "server.log"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
            "PREFECT_HOME": str(home),
            "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "OMP_NUM_THREADS": "1",
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "COLUMNS": "250",
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it and returns when it answers."""
        with self.log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)],
                env=self.environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        self.process = process
        try:
            wait_until(lambda: process.poll() is not None or self.get("health") is True, 180, "the start of the server")
            assert process.poll() is None
        except AssertionError as error:
            raise AssertionError(self.log.read_text(errors="replace")[-4000:]) from error

    def kill(self) -> None:
        """SIGKILL, to everything that it started too."""
        if self.process is not None:
            end_group(self.process)
            self.process = None

    def get(self, path: str) -> Any:
        return _answer(urllib.request.Request(f"{self.api}/{path}"))

    def post(self, path: str, body: dict[str, Any] | None = None) -> Any:
        headers = {"Content-Type": "application/json", **self._token()}
        request = urllib.request.Request(f"{self.api}/{path}", json.dumps(body or {}).encode(), headers)
        return _answer(request)

    def _token(self) -> dict[str, str]:
        """What a server with CSRF protection wants to see before it changes anything."""
        client = uuid.uuid4().hex
        try:
            token = self.get(f"csrf-token?client={client}")["token"]
        except urllib.error.HTTPError as error:
            if error.code != 422:
                raise
            return {}  # this one has no such protection
        return {"Prefect-Csrf-Client": client, "Prefect-Csrf-Token": token}

    def states(self, out: Path) -> list[str]:
        """Names of the states of the runs that write ``out``, oldest first."""
        runs = self.post("flow_runs/filter", {"sort": "START_TIME_ASC"})
        return [str(run["state"]["name"]) for run in runs if run["parameters"].get("out") == str(out)]

    def begin(self, *, prelude: str = "", **parameters: Any) -> FlowProcess:
        """Starts the flow ``encode`` in a process of its own, after the Python lines of ``prelude``."""
        return FlowProcess(self, parameters, prelude)


class FlowProcess:
    """One run of the flow ``encode``.

    Args:
        server: that it reports to.
        parameters: of the flow.
        prelude: lines of Python that come first.
    """

    def __init__(self, server: Server, parameters: dict[str, Any], prelude: str = "") -> None:
        self.log = server.home / f"flow-{time.monotonic_ns()}.log"
        with self.log.open("wb") as stream:
            self.process = subprocess.Popen(
                [sys.executable, "-c", prelude + RUN_FLOW, json.dumps(parameters)],
                env=server.environment, cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def kill(self) -> None:
        """SIGKILL; it must have been alive."""
        assert self.process.poll() is None, self.printed()
        self.process.kill()
        assert self.process.wait(120) == -signal.SIGKILL
        end_group(self.process)

    @contextlib.contextmanager
    def halted(self) -> Iterator[None]:
        """The process stands still meanwhile, locks and connections held."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def wait(self, seconds: float = 1000) -> int:
        """The exit code."""
        try:
            return self.process.wait(seconds)
        finally:
            end_group(self.process)

    def summary(self, seconds: float = 1000) -> dict[str, Any]:
        """What the run says at its end, which has to be a good one."""
        assert self.wait(seconds) == 0, self.printed()
        (line,) = [line for line in self.printed().splitlines() if line.startswith("SUMMARY ")]
        return json.loads(line.removeprefix("SUMMARY "))

    def printed(self) -> str:
        return self.log.read_text(errors="replace")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and what it started; both may have ended before."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(120)


def begin_flow(server: Server, source: Path, out: Path, **options: Any) -> FlowProcess:
    """Starts the slow job of these tests."""
    settings = {"dataset": str(source), "out": str(out), "images_per_task": 256, **FLOW_SETTINGS}
    return server.begin(**{**settings, **options})


def wait_for_rows(run: FlowProcess, out: Path) -> None:
    """Returns when that job is in the middle."""
    wait_until(lambda: done_rows(out) or run.process.poll() is not None, 120, "the first block")
    assert run.process.poll() is None, run.printed()
    assert done_rows(out) < FLOW_IMAGES
