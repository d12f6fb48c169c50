"""The plugin that lets Prefect's commands take short names."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from flows.catalogue import BY_NAME
from flows.server import short_names
from flows.server.server import RECORD
from flows.server.short_names import UnknownName, expand, read_recorded_server, setup_environment


def typed(line: str) -> str:
    return " ".join(expand(line.split()))


@pytest.mark.parametrize("group", ["deployment", "deployments"])
@pytest.mark.parametrize("command", ["run", "inspect", "delete", "schedule ls", "schedule create", "schedule clear"])
@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_short_name_becomes_the_full_one(group: str, command: str, name: str) -> None:
    full = BY_NAME[name].full_name
    assert typed(f"prefect {group} {command} {name}") == f"prefect {group} {command} {full}"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("/bin/prefect deployment run encode-cats --watch", "/bin/prefect deployment run encode/encode-cats --watch"),
        ("-m deployment run encode-cats", "-m deployment run encode/encode-cats"),
        ("prefect deployment run --watch encode-cats", "prefect deployment run --watch encode/encode-cats"),
        ("prefect deployment run -p limit=3 encode-cats", "prefect deployment run -p limit=3 encode/encode-cats"),
        ("prefect deployment run encode-cats --tag mnist", "prefect deployment run encode/encode-cats --tag mnist"),
        ("prefect deployment run --tag report-cats encode-cats",
         "prefect deployment run --tag report-cats encode/encode-cats"),
        ("prefect --no-prompt deployment run encode-cats", "prefect --no-prompt deployment run encode/encode-cats"),
        ("prefect --profile x deployment run encode-cats", "prefect --profile x deployment run encode/encode-cats"),
        ("prefect deployment schedule create --no-active encode-cats --cron 0",
         "prefect deployment schedule create --no-active encode/encode-cats --cron 0"),
        ("prefect deployment schedule pause encode-cats ID", "prefect deployment schedule pause encode/encode-cats ID"),
    ],
)  # fmt: skip
def test_the_name_is_found_among_options(line: str, expected: str) -> None:
    assert typed(line) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("prefect deployment pause encode-cats", "-m flows --pause encode-cats"),
        ("prefect deployment resume encode-cats", "-m flows --resume encode-cats"),
        ("prefect deployment schedule resume encode-cats", "-m flows --resume encode-cats"),
        ("prefect deployment schedule pause encode/encode-cats", "-m flows --pause encode/encode-cats"),
    ],
)
def test_schedules_without_an_identifier_go_to_our_own_command(line: str, expected: str) -> None:
    assert typed(line) == expected


@pytest.mark.parametrize(
    "line",
    [
        "prefect deployment run encode/encode-cats",
        "prefect deployment run other/thing --watch",
        "prefect deployment run --id 0000",
        "prefect deployment run",
        "prefect deployment ls",
        "prefect deployment schedule pause --all",
        "prefect deployment schedule ls encode/encode-cats",
        "prefect deployment --help",
        "prefect deploy --all",
        "prefect flow-run inspect encode-cats",
        "prefect",
        "python deployment run encode-cats",
        "pytest deployment run nonsense",
    ],
)
def test_everything_else_stays_as_it_was_typed(line: str) -> None:
    assert typed(line) == line


def test_no_arguments_at_all() -> None:
    assert expand([]) == []


@pytest.mark.parametrize("command", ["run", "inspect", "schedule ls", "schedule clear"])
def test_an_unknown_short_name_lists_the_known_ones(command: str) -> None:
    with pytest.raises(UnknownName) as caught:
        typed(f"prefect deployment {command} encode-mnits")
    assert all(name in str(caught.value) for name in ("'encode-mnits'", *BY_NAME))


class TestHook:
    @pytest.fixture(autouse=True)
    def _own_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("PREFECT_API_URL", raising=False)

    def test_it_changes_the_arguments_in_place(self, monkeypatch: pytest.MonkeyPatch) -> None:
        arguments = ["prefect", "deployment", "run", "encode-cats"]
        monkeypatch.setattr(sys, "argv", arguments)
        setup_environment(ctx=SimpleNamespace(api_url="http://127.0.0.1:1/api"))
        assert arguments == ["prefect", "deployment", "run", "encode/encode-cats"]
        assert sys.argv is arguments

    @pytest.mark.parametrize("arguments", [["-m"], ["-c"], ["-m", "flows"], [""], []])
    def test_other_programs_go_on_as_they_are(self, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        def replaced(*_: object) -> None:
            raise AssertionError("the process was replaced")

        monkeypatch.setattr(os, "execv", replaced)
        monkeypatch.setattr(sys, "argv", list(arguments))
        setup_environment(ctx=SimpleNamespace(api_url="http://127.0.0.1:1/api"))
        assert sys.argv == arguments

    def test_the_server_that_is_recorded_and_listens_is_used(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("prefect.settings.get_current_settings", lambda: SimpleNamespace(home=tmp_path))
        with socket.create_server(("127.0.0.1", 0)) as listening:
            api_url = f"http://127.0.0.1:{listening.getsockname()[1]}/api"
            (tmp_path / RECORD).write_text(json.dumps({"api_url": api_url}))
            setup_environment(ctx=SimpleNamespace(api_url="http://elsewhere/api"))
            assert "PREFECT_API_URL" not in os.environ
            setup_environment(ctx=SimpleNamespace(api_url=None))
            assert os.environ.pop("PREFECT_API_URL") == api_url
        assert read_recorded_server(tmp_path) is None, "nobody listens any more"

    @pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"api_url": 3}', '{"api_url": "nonsense"}'])
    def test_a_broken_record_is_no_record(self, tmp_path: Path, content: str | None) -> None:
        if content is not None:
            (tmp_path / RECORD).write_text(content)
        assert read_recorded_server(tmp_path) is None


class TestCommand:
    """Prefect's real command, in the checkout, where ``pyproject.toml`` switches plugins on."""

    @staticmethod
    def run(line: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
        program = Path(sys.executable).with_name("prefect")
        return subprocess.run(
            [str(program), *line.split()], cwd=folder, env={**os.environ, **environment}, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip

    @pytest.mark.slow
    def test_an_unknown_name_ends_it_with_the_known_ones(self, repository: Path) -> None:
        finished = self.run("deployment run encode-mnits", repository)
        assert finished.returncode == 1
        assert "encode-mnist, encode-sprites" in finished.stderr
        assert "Traceback" not in finished.stderr + finished.stdout

    @pytest.mark.slow
    def test_elsewhere_a_variable_switches_it_on(self, tmp_path: Path) -> None:
        finished = self.run("deployment run encode-mnits", tmp_path, PREFECT_PLUGINS_ENABLED="true")
        assert finished.returncode == 1
        assert "encode-mnist, encode-sprites" in finished.stderr

    @pytest.mark.slow
    def test_resume_says_that_there_is_no_server(self, repository: Path) -> None:
        finished = self.run("deployment resume encode-cats", repository, PREFECT_API_URL="http://127.0.0.1:9/api")
        assert finished.returncode == 1
        assert "python -m flows" in finished.stderr

    def test_the_plugin_is_the_one_of_this_project(self) -> None:
        assert short_names.setup_environment is setup_environment
        from importlib.metadata import entry_points

        (entry,) = entry_points(group="prefect.plugins", name="splatspace")
        assert entry.load() is short_names
