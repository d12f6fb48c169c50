"""``--json``: every command leaves exactly one JSON object on stdout: succeeding, failing and called wrongly."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from data_schemas.errors import StoppedError
from data_schemas.stores.open import open_store
from models import registry
from pipeline.cli import app
from pipeline.cli.app import COMMANDS
from pipeline.evaluate import evaluate as evaluation
from pipeline.evaluate.flops import StepTime
from pipeline.train import loop as train_loop
from tests.pipeline.encode.fakes import ArrayImages, pictures
from tests.pipeline.encode.fakes import run as encode
from tests.pipeline.training_runs import trained

pytestmark = pytest.mark.usefixtures("brief_features", "brief_previews")


@dataclass(frozen=True)
class Places:
    """What commands work on.

    Attributes:
        store: 150 images, one of them unfinished and one a repeat.
        run: a training on it.
        out: an empty folder.
    """

    store: Path
    run: Path
    out: Path


Arguments = tuple[object, ...]
_FEW = ("--limit", 4, "--gaussians", 0, "--workers", 1)  # images only: engines take long to compile
_TINY = ("--model", "set", "--preset", "tiny", "--steps", 1, "--batch", 4, "--device", "cpu")
_SETS = ("--images", 65, "--evaluations", 1, "--device", "cpu")

CALLS: dict[str, tuple[Callable[[Places], Arguments], Callable[[Places], Arguments]]] = {
    # One that succeeds, and one that fails at its work.
    "encode": (lambda at: ("demo", "--out", at.out / "b.zarr", *_FEW), lambda at: ("none", "--out", at.out / "b.zarr")),
    "report": (lambda at: (at.store, "--out", at.out / "report"), lambda at: (at.out / "none.zarr",)),
    "info": (lambda at: (at.store,), lambda at: (at.out / "none.zarr",)),
    "verify": (lambda at: (at.store,), lambda at: (at.out / "none.zarr",)),
    "render": (
        lambda at: (at.store, "--image", 0, "--out", at.out / "a.png"),
        lambda at: (at.store, "--image", 900, "--out", at.out / "a.png"),
    ),
    "compare": (lambda at: (at.store, at.store), lambda at: (at.store, at.out / "none.zarr")),
    "convert": (lambda at: (at.store, at.out / "b.h5"), lambda at: (at.out / "none.zarr", at.out / "b.h5")),
    "sample": (
        lambda at: (at.run, "-n", 2, "--evaluations", 1, "--out", at.out / "samples", "--device", "cpu"),
        lambda at: (at.run, "--label", "nobody", "--out", at.out / "samples", "--device", "cpu"),
    ),
    "export": (
        lambda at: (at.store, "--image", 0, "--out", at.out / "a.svg"),
        lambda at: (at.store, "--image", 900, "--out", at.out / "a.svg"),
    ),
    "edit": (
        lambda at: (at.store, "--image", 0, "--move", "1,0", "--out", at.out / "a.png"),
        lambda at: (at.store, "--image", 900, "--move", "1,0", "--out", at.out / "a.png"),
    ),
    "presets": (lambda _: (), lambda _: ("--no-such-option",)),
    "evaluate": (
        lambda at: (at.run, "--store", at.store, "--out", at.out / "evaluation", *_SETS),
        lambda at: (at.out, "--store", at.store, *_SETS),
    ),
    "train": (
        lambda at: ("splats", "--store", at.store, "--out", at.out / "r", "--held-out", 0.3, "--distinct", *_TINY),
        lambda at: ("splats", "--store", at.store, "--out", at.run, *_TINY),
    ),
    "ablate": (
        lambda at: ("--store", at.store, "--out", at.out / "a", "--axis", "ema=yes", *_TINY, *_SETS[:4]),
        lambda at: ("--store", at.store, "--out", at.out / "a", "--axis", "pack", *_TINY),
    ),
    "push": (
        lambda at: (at.store, "hf://datasets/user/arrays", "--dry-run", "--licence-ok"),
        lambda at: (at.out / "none.zarr", "hf://datasets/user/arrays", "--dry-run"),
    ),
    "models": (lambda _: ("--gaussians", 4, "--size", 8), lambda _: ("--size", 1)),
}


def splatspace(*arguments: object) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
    return runner.invoke(app, [str(argument) for argument in arguments])


def the_object(result: Result) -> dict[str, Any]:
    """What stdout holds, if it is one JSON object and nothing else."""
    content = json.loads(result.stdout)
    assert isinstance(content, dict)
    return content


def no_samples(*_: object) -> Any:
    return np.zeros((1, 8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("made")
    images = pictures(150)
    images[1] = images[0]
    source = ArrayImages(images)
    source.broken["image-0003"] = "cut short"
    encode(folder / "a.zarr", source, block_rows=64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_loop, "sample_preview", no_samples)
        trained(folder / "a.zarr", folder / "run", model="set", steps=1)
    return folder / "a.zarr", folder / "run"


@pytest.fixture
def places(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    # What takes the time of these commands is not the matter here.
    monkeypatch.setattr(train_loop, "sample_preview", no_samples)
    monkeypatch.setattr(evaluation, "time_steps", lambda _, batch: StepTime(batch, 1, 1.0, 1.0))
    return Places(*made, tmp_path)


def test_every_command_with_json_is_called_here() -> None:
    with_json = {command.__name__ for command, _ in COMMANDS if "as_json" in inspect.signature(command).parameters}
    assert with_json == set(CALLS)


@pytest.mark.slow
@pytest.mark.parametrize("command", CALLS)
def test_one_object_in_success_and_in_failure(command: str, places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "MODELS", {"set": registry.MODELS["set"]})
    good, bad = CALLS[command]
    result = splatspace(command, *good(places), "--json")
    assert result.exit_code == 0, result.output
    assert "error" not in the_object(result)
    failed = splatspace(command, *bad(places), "--json")
    content = the_object(failed)
    assert failed.exit_code == content["exit_code"] > 0
    assert content["error"]
    wrong = splatspace(command, "--json", "--no-such-option")
    assert (wrong.exit_code, the_object(wrong)["exit_code"]) == (2, 2)
    assert "--no-such-option" in the_object(wrong)["error"] or "Missing" in the_object(wrong)["error"]


@pytest.mark.slow
def test_what_went_wrong_is_said_on_stderr_as_without_json(places: Places) -> None:
    for arguments in (("info", places.out / "none.zarr"), ("evaluate", places.run, "--store", "a", "--sweep", "1,x")):
        plain, as_json = splatspace(*arguments), splatspace(*arguments, "--json")
        assert plain.stdout == ""
        assert plain.stderr == as_json.stderr
        assert plain.exit_code == as_json.exit_code


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "Stopped: what was finished is kept"),
        (StoppedError("Stopped after 3"), 130, "Stopped: Stopped after 3."),
        (RuntimeError("a fault of ours"), 1, "Error: unexpected RuntimeError: a fault of ours."),
    ],
)
def test_stopped_and_unexpected_ends_are_objects_too(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_path: str) -> None:
        raise error

    monkeypatch.setattr("pipeline.info.store_info", broken)
    result = splatspace("info", "a.zarr", "--json")
    content = the_object(result)
    assert (result.exit_code, content["exit_code"]) == (code, code)
    assert content["error"].startswith(words)


@pytest.mark.slow
def test_a_store_at_fault_is_one_object(places: Places) -> None:
    path = places.out / "b.zarr"
    encode(path, ArrayImages(pictures(4)))
    with open_store(path, "a") as store:
        rows = store.read_block(0)
        rows.psnr[2] += 1
        store.write_block(0, rows)
    result = splatspace("verify", path, "--json")
    content = the_object(result)
    assert (result.exit_code, content["sound"]) == (1, False)


@pytest.mark.slow
def test_one_of_several_processes_answers(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert splatspace("info", places.out / "none.zarr", "--json").stdout == ""
