"""``python -m flows`` as a user knows it: typed, used from another terminal, looked at in a browser, and stopped."""

from __future__ import annotations

import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_schemas.stores.open import open_store
from flows.catalogue import BY_NAME
from flows.server.server import RECORD
from tests.browser import CHROMIUM
from tests.flows.terminal import PROC, Terminal
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(2400)]

READY = "Ctrl-C"
TINY = "-p limit=48 -p gaussians=8 -p steps=2 -p workers=1"
BAD_NAME = "<img src=x onerror=alert(1)>.png"
SEVERAL = """
import json, sys
from flows.__main__ import app
for words in json.loads(sys.argv[1]):
    try:
        app(words)
    except SystemExit as ended:
        print(f"exit code {ended.code}")
    print("----")
"""
"""Commands of ``python -m flows`` in one process: importing Prefect takes longer than all of them."""

SCHEDULED = ("encode-mnist", "encode-cats", "encode-folder")

needs_proc = pytest.mark.skipif(not PROC.is_dir(), reason="processes are counted in /proc")


@pytest.fixture(scope="module")
def terminal(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Terminal:
    return Terminal(tmp_path_factory.mktemp("prefect") / "home", repository)


@pytest.fixture(scope="module")
def running(terminal: Terminal) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The process of ``python -m flows``, and the file with what it prints."""
    with terminal.running(f"python -m flows --port {terminal.port}", until=READY) as process_and_file:
        yield process_and_file


def several(terminal: Terminal, *commands: list[str]) -> list[str]:
    """What each of these commands of ``python -m flows`` prints, with its exit code."""
    command = [sys.executable, "-c", SEVERAL, json.dumps(commands)]
    finished = subprocess.run(
        command, env=terminal.environment, cwd=terminal.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=900, check=False,
    )  # fmt: skip
    printed = finished.stdout.split("----\n")
    assert (finished.returncode, len(printed)) == (0, len(commands) + 1), finished.stdout
    return printed[:-1]


@pytest.fixture
def served(running: tuple[subprocess.Popen[bytes], Path]) -> Path:
    """``python -m flows`` is running; the file holds what it prints."""
    return running[1]


def test_it_says_in_a_few_lines_what_there_is_and_what_to_type(served: Path, terminal: Terminal) -> None:
    text = served.read_text()
    assert all(name in text for name in BY_NAME)
    assert f"http://127.0.0.1:{terminal.port}" in text
    assert "prefect deployment run encode-demo --watch" in text
    assert len(text.splitlines()) < 15
    first, second = text.splitlines()[:2]
    assert first.startswith(f"Starting Prefect's server at http://127.0.0.1:{terminal.port}/api"), "without a terminal"
    assert second == f"Looking after the {len(BY_NAME)} deployments ..."


def test_the_short_command_works_as_typed_and_finds_the_server(
    served: Path, terminal: Terminal, tmp_path: Path
) -> None:
    out = tmp_path / "demo.zarr"
    assert "PREFECT_API_URL" not in terminal.environment
    printed = terminal.type(f"prefect deployment run encode-demo --watch -p out={out} {TINY}")
    assert "encode/encode-demo" in printed
    assert "Completed" in printed
    with open_store(out) as store:
        assert len(store) == 48
    assert (tmp_path / "demo-report" / "report.html").is_file()
    said = "48 images: 48 fitted"
    assert said in printed, "the run's log is shown where it is watched"
    assert said in served.read_text(), "and where it is served"
    for level_of_the_project in (f"Report of 48 images written to {tmp_path}", "48 images, 0 done, 48 new"):
        assert level_of_the_project in printed.replace("\n", "")
    (run,) = terminal.runs(name={"like_": str(out)})
    assert run["state_type"] == "COMPLETED"
    printed = terminal.type(f"prefect deployment run report-demo --watch -p store={out}")
    assert "report/report-demo" in printed
    assert "Completed" in printed


def test_a_schedule_is_resumed_with_one_command_and_runs_are_planned(served: Path, terminal: Terminal) -> None:
    printed = terminal.type("prefect deployment resume encode-cats")
    assert "encode/encode-cats: schedule nightly resumed" in printed
    planned = {"state": {"name": {"any_": ["Scheduled"]}}}
    wait_until(lambda: any(run["auto_scheduled"] for run in terminal.runs(**planned)), 120, "a scheduled run")
    assert "paused" in terminal.type("prefect deployment schedule pause encode-cats")
    wait_until(lambda: not terminal.runs(**planned), 60, "the planned runs' end")


def test_a_schedule_is_given_parameters_when_it_is_resumed_and_what_cannot_be_is_told(
    served: Path, terminal: Terminal, tmp_path: Path
) -> None:
    history, as_json, no_set, unscheduled, unknown, misspelt, second, resumed = several(
        terminal,
        ["--history", "demo"],
        ["--history", "demo", "--json"],
        ["--history", "mnits"],
        ["--resume", "encode-demo"],
        ["--pause", "encode-mnits"],
        ["--resume", "encode-folder", "-p", "limt=3"],
        [],
        ["--resume", "encode-folder", "-p", f"dataset={tmp_path}", "-p", "limit=3"],
    )
    (report,) = json.loads(as_json.rpartition("exit code")[0])["reports"][:1]
    assert f"{report['psnr']:.2f}" in history.splitlines()[1]
    for printed, code, said in (
        (history, 0, "PSNR, dB"),
        (as_json, 0, '"set": "demo"'),
        (no_set, 1, "no report of 'mnits'. Allowed: demo"),
        (unscheduled, 1, "no schedule"),
        (unknown, 1, "encode-mnits"),
        (misspelt, 2, "-p limit=VALUE"),
        (second, 1, "Another `python -m flows` serves"),
        (resumed, 0, "encode-folder"),
    ):
        assert said in printed
        assert printed.rstrip().endswith(f"exit code {code}"), printed
    planned = {"state": {"name": {"any_": ["Scheduled"]}}, "tags": {"all_": ["folder"]}}
    wait_until(lambda: bool(terminal.runs(**planned)), 120, "a scheduled run")
    parameters = terminal.runs(**planned)[0]["parameters"]
    assert (parameters["dataset"], parameters["limit"]) == (str(tmp_path), 3)
    assert parameters["out"] == "out/folder.zarr"


def test_one_run_to_its_end_uses_the_server_and_ends_with_its_outcome(
    served: Path, terminal: Terminal, tmp_path: Path
) -> None:
    folder, out = tmp_path / "scans", tmp_path / "scans.zarr"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(5):
        Image.fromarray(noise.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
    (folder / BAD_NAME).write_bytes(b"no image")
    line = f"python -m flows --once encode-folder -p dataset={folder} -p out={out} -p steps=2 -p workers=1"
    printed = terminal.type(line)
    assert printed.strip().splitlines()[-1] == f"Completed: {tmp_path / 'scans-report' / 'report.html'}"
    (run,) = terminal.runs(name={"like_": str(out)})
    assert run["state_type"] == "COMPLETED"
    assert set(run["tags"]) == {"encode", "folder"}


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine (apt-get install chromium)")
@pytest.mark.parametrize(("key", "shown"), [("psnr-demo", "48 of 48"), ("psnr-scans", "5 of 6")])
def test_a_browser_shows_the_report(served: Path, terminal: Terminal, tmp_path: Path, key: str, shown: str) -> None:
    (artifact,) = terminal.call("/artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
    page = terminal.api_url.removesuffix("/api") + f"/artifacts/artifact/{artifact['latest_id']}"
    command = (
        f"{CHROMIUM} --headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
        "--disable-background-networking --disable-component-update --disable-sync "
        f"--user-data-dir={tmp_path} --virtual-time-budget=15000 --dump-dom {page}"
    )
    dom = subprocess.run(command.split(), capture_output=True, text=True, timeout=120, check=True).stdout
    assert "PSNR of the mean error" in dom
    assert shown in dom
    assert "<table" in dom
    assert "data:image/png;base64," in dom
    assert "report.html" in dom
    assert "&amp;#" not in dom, "an entity that is shown as it is written"
    assert "Can't connect" not in dom
    if key == "psnr-scans":
        assert BAD_NAME.replace("<", "&lt;").replace(">", "&gt;") in dom
        assert "<img src=" + '"x"' not in dom
        assert "<img src=x" not in dom


def test_dead_runs_are_looked_for_and_somebody_is_told_of_failed_ones(
    served: Path, terminal: Terminal, repository: Path, tmp_path: Path
) -> None:
    names = [automation["name"] for automation in terminal.call("/automations/filter", {})]
    assert names == ["SplatSpace marks runs without heartbeat as crashed"]
    received: list[dict[str, Any]] = []

    class Inbox(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Inbox) as inbox:
        threading.Thread(target=inbox.serve_forever, daemon=True).start()
        script = tmp_path / "block.py"
        # What docs/operations.md shows, with an address of this machine.
        script.write_text(
            "from prefect.blocks.notifications import CustomWebhookNotificationBlock as Block\n"
            f"block = Block(name='failures', url='http://127.0.0.1:{inbox.server_port}/',\n"
            "    json_data={'subject': '{{subject}}', 'body': '{{body}}'})\n"
            "print(block.save('failures', overwrite=True))\n"
        )
        block = terminal.type(f"python {script}").split()[-1]
        example = (repository / "flows/automations/examples/notify-on-failure.yaml").read_text()
        mine = tmp_path / "notify.yaml"
        mine.write_text(example.replace("00000000-0000-0000-0000-000000000000", block))
        assert "Created automation" in terminal.type(f"prefect automation create --from-file {mine}")
        time.sleep(2)  # the server's watch reads its automations again once it is told of a change
        few = f"-p out={tmp_path / 'few.zarr'} {TINY}"
        printed = terminal.type(f"python -m flows --once encode-demo {few} -p min_psnr=99", code=1)
        assert "min_psnr" in printed.strip().splitlines()[-1]
        wait_until(lambda: bool(received), 90, "the message")
        inbox.shutdown()
    assert "Failed" in received[0]["subject"]
    assert "min_psnr" in received[0]["body"]


@needs_proc
def test_ctrl_c_stops_all_that_it_started_and_keeps_what_was_resumed(
    running: tuple[subprocess.Popen[bytes], Path], terminal: Terminal, tmp_path: Path
) -> None:
    process, printed = running
    schedules = [terminal.call(f"/deployments/name/encode/{name}")["schedules"] for name in SCHEDULED]
    ids = [[schedule["id"] for schedule in found] for found in schedules]
    answers = several(terminal, ["--pause", "encode-folder"], ["--resume", "encode-cats"])
    assert all(answer.rstrip().endswith("exit code 0") for answer in answers), answers
    out = tmp_path / "long.zarr"
    long = "-p gaussians=150 -p steps=10000"
    terminal.type(f"prefect deployment run encode-demo -p out={out} {long}")
    wait_until(lambda: f"{out}: " in printed.read_text(), 120, "the beginning of the run")
    assert len(terminal.processes()) >= 3, "this one, the server, the run"
    os.killpg(process.pid, signal.SIGINT)  # a terminal sends it to every process of the group
    assert process.wait(600) == 0
    wait_until(lambda: not terminal.processes(), 30, "the end of every process")
    text = printed.read_text()
    assert text.rstrip().endswith("Stopped.")
    assert "Traceback" not in text
    assert not (terminal.home / RECORD).exists()

    with terminal.running(f"python -m flows --port {terminal.port}", until=READY) as (process, _):
        schedules = [terminal.call(f"/deployments/name/encode/{name}")["schedules"] for name in SCHEDULED]
        assert [[schedule["id"] for schedule in found] for found in schedules] == ids, "a schedule keeps its id"
        (run,) = terminal.runs(name={"like_": str(out)})
        assert run["state_type"] == "CANCELLED"
        cats = terminal.call("/deployments/name/encode/encode-cats")
        assert [(schedule["slug"], schedule["active"]) for schedule in cats["schedules"]] == [("nightly", True)]
        assert cats["paused"] is False
        process.kill()  # nothing can be tidied up, and still nothing is left behind
        wait_until(lambda: not terminal.processes(), 30, "the end of the server")


@needs_proc
def test_one_run_to_its_end_needs_no_server_and_leaves_none(
    repository: Path, prefect_database: Path, tmp_path: Path
) -> None:
    terminal = Terminal(tmp_path / "home", repository, database=prefect_database)
    printed = terminal.type(f"python -m flows --once encode-demo -p out={tmp_path / 'alone.zarr'} {TINY}")
    assert printed.strip().splitlines()[-1].startswith("Completed: ")
    assert (tmp_path / "alone-report" / "report.html").is_file()
    assert terminal.processes() == {}
