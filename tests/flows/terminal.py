"""A user's terminal: commands typed in the checkout, with a Prefect of their own that touches nobody else's."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.waiting import free_port, wait_until

PROC = Path("/proc")


def _words(line: str) -> list[str]:
    first, *rest = line.split()
    return [sys.executable if first == "python" else first, *rest]


class Terminal:
    """Types commands and reads what they print.

    Args:
        home: of Prefect.
        folder: where commands are typed.
        database: of Prefect's server, copied into the home; without one the first server makes it, which takes longer.
        environment: further variables.
    """

    def __init__(self, home: Path, folder: Path, *, database: Path | None = None, **environment: str) -> None:
        self.home, self.folder = home, folder
        if database is not None:
            home.mkdir(parents=True, exist_ok=True)
            shutil.copy(database, home / "prefect.db")
        self.port = free_port()
        self.api_url = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PREFECT_HOME": str(home),
            "PREFECT_PROFILES_PATH": str(home / "profiles.toml"),
            "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "2",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "NO_COLOR": "1",
            "COLUMNS": "200",
            "PYTHONUNBUFFERED": "1",
            **environment,
        }

    def type(self, line: str, *, code: int = 0, seconds: float = 900, others: Mapping[str, str] | None = None) -> str:
        """Types a command, waits for its end, checks its exit code, and returns all that it printed.

        ``others`` are variables of the environment for this command alone.
        """
        finished = subprocess.run(
            _words(line), env=self.environment | dict(others or {}), cwd=self.folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
        )  # fmt: skip
        assert finished.returncode == code, f"{line}\nexit code {finished.returncode}, not {code}\n{finished.stdout}"
        return finished.stdout

    @contextmanager
    def running(self, line: str, *, until: str, seconds: float = 180) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """Types a command that goes on; yields it and the file with what it prints once that contains ``until``.

        It has a process group of its own, as in a terminal, and is ended at the end.
        """
        printed = self.home / f"printed-{time.monotonic_ns()}.log"
        self.home.mkdir(parents=True, exist_ok=True)
        with printed.open("wb") as stream:
            process = subprocess.Popen(
                _words(line), env=self.environment, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=stream,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        try:
            try:
                wait_until(lambda: process.poll() is not None or until in printed.read_text(), seconds, until)
            except AssertionError as error:
                raise AssertionError(f"{error}:\n{printed.read_text()}") from None
            assert until in printed.read_text(), printed.read_text()
            yield process, printed
        finally:
            for number in (signal.SIGTERM, signal.SIGKILL):
                if process.poll() is None:
                    process.send_signal(number)
                    try:
                        process.wait(100)
                    except subprocess.TimeoutExpired:
                        continue

    def processes(self) -> dict[int, str]:
        """Every process that was started from here and lives, with its command line."""
        mark = f"PREFECT_HOME={self.home}\0".encode()
        found: dict[int, str] = {}
        for folder in PROC.iterdir():
            if not folder.name.isdigit():
                continue
            try:
                if mark in (folder / "environ").read_bytes() + b"\0":
                    found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue  # it has ended, or belongs to somebody else
        return found

    def call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """GET, or POST of ``body``, from the server's API."""
        headers = {"Content-Type": "application/json"}
        if body is not None:
            headers |= self.csrf_token()
        request = urllib.request.Request(
            self.api_url + path, headers=headers, data=None if body is None else json.dumps(body).encode()
        )
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)

    def csrf_token(self) -> dict[str, str]:
        """Headers without which a protected server takes no POST; none where it is not protected."""
        try:
            with urllib.request.urlopen(f"{self.api_url}/csrf-token?client=terminal", timeout=120) as answer:
                return {"Prefect-Csrf-Token": json.load(answer)["token"], "Prefect-Csrf-Client": "terminal"}
        except OSError:
            return {}

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Flow runs; ``filters`` are those of Prefect's ``flow_runs``."""
        return self.call("/flow_runs/filter", {"flow_runs": filters} if filters else {})
