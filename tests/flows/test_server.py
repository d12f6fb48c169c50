"""The commands of docs/prefect.md, typed literally against a real server: deploy, run, work, schedule."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from data_schemas.records import RowState
from data_schemas.stores import open_store

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

Command = Callable[..., str]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def call(url: str, body: dict[str, Any] | None = None) -> Any:
    """GET, or POST of ``body``, from the server's API."""
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    if body is not None:
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass  # the server does not answer yet
        time.sleep(0.5)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """For the server and every command: a home, a database and an address of their own."""
    home = tmp_path_factory.mktemp("prefect-home")
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PREFECT_HOME": str(home),
        "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
        "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


@pytest.fixture(scope="module")
def api(environment: dict[str, str], repository: Path) -> Iterator[str]:
    """Address of a running server; its log is shown where it does not start."""
    url = environment["PREFECT_API_URL"]
    port = url.rpartition(":")[2].partition("/")[0]
    log = Path(environment["PREFECT_HOME"]) / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            ["prefect", "server", "start", "--host", "127.0.0.1", "--port", port],
            env=environment, cwd=repository, stdin=subprocess.DEVNULL, stdout=stream, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        try:
            wait_for(lambda: server.poll() is not None or call(f"{url}/health") is True, 180, "the start of the server")
            assert server.poll() is None
        except AssertionError as error:
            raise AssertionError(log.read_text(errors="replace")[-4000:]) from error
        yield url
    finally:
        server.terminate()
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="module")
def type_command(environment: dict[str, str], repository: Path, api: str) -> Command:
    """Types a command in the checkout and returns what it printed."""

    def typed(line: str, *, seconds: float = 240, code: int = 0) -> str:
        finished = subprocess.run(
            line.split(), env=environment, cwd=repository, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert finished.returncode == code, f"{line}\n{finished.stdout}"
        return finished.stdout

    return typed


@pytest.fixture(scope="module")
def deployed(type_command: Command) -> Command:
    type_command("prefect work-pool create splatspace --type process")
    printed = type_command("prefect deploy --all")
    for dataset in ("mnist", "sprites", "cifar10", "cats", "demo"):
        assert f"encode/encode-{dataset}" in printed
    return type_command


def test_a_worker_runs_a_deployment_from_end_to_end(deployed: Command, api: str, tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    options = f"-p out={out} -p limit=64 -p gaussians=8 -p steps=2 -p workers=1"
    assert "Created flow run" in deployed(f"prefect deployment run encode/encode-demo {options}")
    printed = deployed("prefect worker start --pool splatspace --run-once")
    assert "64 fitted" in printed
    runs = call(f"{api}/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}})
    assert [run["parameters"]["out"] for run in runs] == [str(out)], printed
    with open_store(out) as store:
        assert len(store) == 64
        assert (store.read(["state"])["state"] == RowState.DONE).all()
    keys = {artifact["key"] for artifact in call(f"{api}/artifacts/filter", {})}
    assert {"psnr-demo", "psnr-demo-figures"} <= keys
    assert (tmp_path / "demo-report" / "report.html").is_file()


def test_a_wrong_parameter_is_refused_when_the_run_is_asked_for(deployed: Command) -> None:
    printed = deployed("prefect deployment run encode/encode-demo -p colours=loud", code=1)
    assert "colours" in printed
    assert "bounded" in printed


def test_the_scheduler_plans_runs(deployed: Command, api: str) -> None:
    deployed("prefect deployment schedule create encode/encode-cats --interval 86400")
    scheduled = {"flow_runs": {"state": {"name": {"any_": ["Scheduled"]}}}}
    wait_for(
        lambda: any(run["auto_scheduled"] for run in call(f"{api}/flow_runs/filter", scheduled)),
        120,
        "a scheduled run",
    )
