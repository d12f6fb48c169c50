"""Runs what the containers run, without an engine: the services of ``docker/compose.yaml`` as processes.

A service's command, environment and health check are taken from the file itself. Only what a container changes is put
in its place: names of machines become the loopback address, ports become free ones, folders of the image become folders
of the test. Processes are started by a user without rights, in an environment of their own that is not the checkout.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

DOCKER = Path(__file__).parents[2] / "docker"
NOBODY = 65534
"""User and group without rights, on every Linux."""


def interpolated(text: str, variables: Mapping[str, str]) -> str:
    """A Compose file with ``${NAME:-default}`` and ``${NAME:?message}`` filled in."""

    def value(found: re.Match[str]) -> str:
        name, sign, rest = found.groups()
        given = variables.get(name, "")
        if not given and sign == ":?":
            raise KeyError(f"{name}: {rest}")
        return given or rest or ""

    return re.sub(r"\$\{(\w+)(?:(:-|:\?)([^}]*))?\}", value, text)


def compose(variables: Mapping[str, str], name: str = "compose.yaml") -> dict[str, Any]:
    """The Compose file as a dictionary."""
    return yaml.safe_load(interpolated((DOCKER / name).read_text(), variables))


def stages(text: str) -> dict[str, list[tuple[str, str]]]:
    """Instructions of a Dockerfile, by the name of their stage, as pairs of a word and its text."""
    joined = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, list[tuple[str, str]]] = {}
    stage = ""
    for line in joined.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split()[-1]
        if word.isupper() and stage:
            found.setdefault(stage, []).append((word, " ".join(rest.split())))
    return found


def image_environment() -> dict[str, str]:
    """What ``ENV`` sets in the image."""
    lines = [rest for word, rest in stages((DOCKER / "Dockerfile").read_text())["runtime"] if word == "ENV"]
    return dict(pair.split("=", 1) for line in lines for pair in line.split())


def as_nobody() -> list[str]:
    """What comes before a command so that a user without rights runs it; nothing where the tests are such a user.

    The user may read what the tests may read, since the interpreter may lie in a closed folder. It cannot write there.
    access(2) does not count that right, and Prefect asks it for the folder of its migrations: packages that lie in a
    closed folder (mode 700) are therefore a reason to skip.
    """
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("the tests run as root and there is no setpriv to leave it")
    read = "+dac_read_search"
    user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    prefix = ["setpriv", *user, f"--inh-caps={read}", f"--ambient-caps={read}", "--"]
    seen = "import os, sys, prefect; sys.exit(not os.access(prefect.__file__, os.R_OK))"
    if subprocess.run([*prefix, sys.executable, "-c", seen], check=False, capture_output=True).returncode:
        pytest.skip("a user without rights cannot run this interpreter: open its folder to others (chmod o+x)")
    return prefix


@dataclass
class House:
    """Folders, an installed wheel and the user that stand for an image.

    Args:
        folder: everything lies below it.
        prefix: comes before every command.
        places: what a container's text is replaced with, longest first.
    """

    folder: Path
    prefix: list[str]
    places: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """What is ``/data`` in a container."""
        return self.folder / "data"

    @property
    def commands(self) -> Path:
        """Where the image's commands are."""
        return self.folder / "environment" / "bin"

    def open_folder(self, name: str) -> Path:
        """Makes a folder that belongs to the user of the containers."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        if self.prefix:
            os.chown(path, NOBODY, NOBODY)
        return path

    def here(self, text: object) -> str:
        """A text of a container as it must be on this machine; a ``Path`` is of this machine already."""
        if isinstance(text, Path):
            return str(text)
        # One pass and whole words, so that nothing is replaced twice or by half.
        names = "|".join(re.escape(name) for name in sorted(self.places, key=len, reverse=True))
        return re.sub(rf"(?<![\w-])(?:{names})(?![\w-])", lambda found: self.places[found[0]], str(text))

    def environment(self, extra: Mapping[str, object] | None = None) -> dict[str, str]:
        """The environment of the image, of a service, and nothing of the machine's."""
        image = {name: self.here(value) for name, value in image_environment().items()}
        image["PATH"] = f"{self.commands}{os.pathsep}{os.defpath}{os.pathsep}/usr/local/bin"
        service = {name: self.here(value) for name, value in (extra or {}).items()}
        # A container's /tmp is its own: what another user has left in the machine's is not there.
        image["TMPDIR"] = self.here("/tmp")
        return {**image, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200", **service}

    def run(
        self, command: Sequence[str | Path], extra: Mapping[str, object] | None = None, *, seconds: float = 900
    ) -> subprocess.CompletedProcess[str]:
        """Runs a container's command to its end, in /data."""
        return subprocess.run(
            self._typed(command), env=self.environment(extra), cwd=self.data, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=seconds, check=False,
        )  # fmt: skip

    def _typed(self, command: Sequence[str | Path]) -> list[str]:
        first, *rest = (self.here(word) for word in command)
        installed = self.commands / first
        return [*self.prefix, str(installed) if installed.exists() else first, *rest]

    @contextmanager
    def started(
        self, command: Sequence[str | Path], extra: Mapping[str, object], log: str
    ) -> Iterator[subprocess.Popen[bytes]]:
        """A service that runs until the block is left; its log is shown where the block fails."""
        path = self.folder / f"{log}.log"
        with path.open("wb") as stream:
            process = subprocess.Popen(
                self._typed(command), env=self.environment(extra), cwd=self.data, stdin=subprocess.DEVNULL,
                stdout=stream, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield process
        except BaseException as error:
            error.add_note(path.read_text(errors="replace")[-6000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(200)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
