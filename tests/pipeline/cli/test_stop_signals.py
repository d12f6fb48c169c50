"""SIGTERM in commands that cannot stop at a good moment: exit code 130, and nothing half made is left."""

from __future__ import annotations

import contextlib
import importlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from data_schemas.files import partial_name
from pipeline.cli import app
from pipeline.cli.app import COMMANDS
from pipeline.cli.terminal import interrupt_on_terminate
from tests.pipeline.training_runs import make_store


def splatspace(*arguments: Any) -> Result:
    return CliRunner(env={"TERM": "dumb"}).invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "a.zarr", count=4)


def terminated(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, during which SIGTERM comes, twice."""

    def during(*arguments: Any, **options: Any) -> Any:
        result = function(*arguments, **options)
        signal.raise_signal(signal.SIGTERM)
        return result

    return during


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "where", "name"),
    [
        (["convert", "STORE", "OUT.h5"], "pipeline.convert.convert.StoreSink", "write"),
        (["convert", "STORE", "OUT"], "pipeline.convert.torch_folder.TorchFolderSink", "write"),
        (["report", "STORE", "--out", "OUT"], "data_schemas.files.os", "fsync"),
        (["verify", "STORE"], "pipeline.verify", "_check_rows"),
        (["export", "STORE", "--image", "0", "--out", "OUT.svg"], "data_schemas.files.os", "fsync"),
        (["render", "STORE", "--image", "0", "--out", "OUT.png"], "data_schemas.files.os", "fsync"),
    ],
)
def test_sigterm_leaves_with_130_and_nothing_half_made(
    arguments: list[str], where: str, name: str, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, _, inner = where.rpartition(".")
    owner = importlib.import_module(where) if inner.islower() and inner != "os" else None
    owner = owner or getattr(importlib.import_module(module), inner)
    monkeypatch.setattr(owner, name, terminated(getattr(owner, name)))
    before = signal.getsignal(signal.SIGTERM)
    given = [word.replace("STORE", str(store)).replace("OUT", str(tmp_path / "out")) for word in arguments]
    result = splatspace(*given)
    assert result.exit_code == 130, result.output
    assert "Next: run the same command again" in " ".join(result.stderr.split())
    left = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert [path for path in left if path not in ("out", "out.h5.lock")] == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.slow
def test_the_next_run_clears_what_a_killed_one_left(store: Path, tmp_path: Path) -> None:
    for place, arguments in {
        tmp_path / "b.h5": ("convert", store, tmp_path / "b.h5"),
        tmp_path / "folder": ("convert", store, tmp_path / "folder"),
        tmp_path / "a.svg": ("export", store, "--image", 0, "--out", tmp_path / "a.svg"),
        tmp_path / "a.png": ("render", store, "--image", 0, "--out", tmp_path / "a.png"),
    }.items():
        partial_name(place).mkdir()
        partial_name(place).write_bytes(b"half")
        result = splatspace(*arguments)
        assert result.exit_code == 0, result.output
        assert place.exists()
    assert list(tmp_path.glob("*.partial")) == []


def test_a_second_sigterm_does_not_disturb_the_clearing_up() -> None:
    cleared = []

    @contextlib.contextmanager
    def work() -> Iterator[None]:
        try:
            yield
        finally:
            signal.raise_signal(signal.SIGTERM)
            cleared.append(True)

    with pytest.raises(KeyboardInterrupt), interrupt_on_terminate(), work():
        signal.raise_signal(signal.SIGTERM)
    assert cleared


def test_who_has_an_answer_of_his_own_keeps_it() -> None:
    told = []
    before = signal.signal(signal.SIGTERM, lambda *_: told.append("mine"))
    try:
        with interrupt_on_terminate():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == ["mine"]


def test_every_command_answers_to_sigterm() -> None:
    registered = {command.callback for command in app.registered_commands}
    assert len(registered) == len(COMMANDS)
    for callback in registered:
        assert callback is not None
        assert callback.__code__.co_qualname == "reporting_errors.<locals>.run"
