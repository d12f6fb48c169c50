"""Options that a command and a flow make from the fields of one job: each is reached from both, with one range."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import annotated_types
import pytest
import typer
from prefect import Flow
from prefect.exceptions import ParameterTypeError

import flows.ablate
import flows.encode
import flows.evaluate
import flows.train
from pipeline.cli import app
from pipeline.cli.ablate import ablate
from pipeline.cli.encode import encode
from pipeline.cli.evaluate import evaluate
from pipeline.cli.sample import sample
from pipeline.cli.train import train
from pipeline.encode.job import EncodeJob
from pipeline.evaluate.ablate.job import AblateJob
from pipeline.evaluate.job import EvaluateJob
from pipeline.options import DeclaredOption, DeviceOption, Internal, declared, fields_of, marks_of
from pipeline.sample.job import SampleJob
from pipeline.train.job import TrainJob, TrainRequest

JOBS: dict[str, tuple[tuple[type, ...], Callable[..., None], Flow[..., Any] | None]] = {
    "encode": ((EncodeJob,), encode, flows.encode.encode),
    "train": ((TrainJob, TrainRequest), train, flows.train.train),
    "ablate": ((AblateJob,), ablate, flows.ablate.ablate),
    "sample": ((SampleJob, DeviceOption), sample, None),
    "evaluate": ((EvaluateJob, DeviceOption), evaluate, flows.evaluate.evaluate),
}
"""Models that declare the options of a command, the command, and its flow."""

NEITHER: dict[str, set[str]] = {
    "encode": {"regression", "download"},
    "train": {"changes", "objective_changes", "weight_decay", "warm_up", "clip", "constant_rate", "second_moment"},
    "ablate": set(),
    "sample": {"known", "suffix"},
    "evaluate": {"rows", "references"},
}
"""Fields that nobody gives: those that are marked ``Internal``, each with its reason."""

NO_PARAMETER: dict[str, set[str]] = {
    "encode": {"images", "block_rows", "overwrite"},
    "train": {"settings", "devices", "nodes"},
    "ablate": set(),
    "evaluate": set(),
}
"""Options that flows leave out, each with its reason."""


@pytest.mark.parametrize("name", JOBS)
def test_every_field_is_reached_from_the_command_line_and_from_the_flow(name: str) -> None:
    models, command, flow = JOBS[name]
    fields = declared(*models)
    internal = {field: mark for model in models for field, (kind, _) in fields_of(model).items()
                if isinstance(mark := marks_of(kind)[0], Internal)}  # fmt: skip
    assert set(internal) - set(fields) == NEITHER[name]
    assert all(mark.reason for mark in internal.values())
    assert set(fields) <= set(inspect.signature(command).parameters)
    if flow is not None:
        missing = set(fields) - set(flow.parameters.properties)
        assert missing == NO_PARAMETER[name]
        assert missing == {field for field, one in fields.items() if one.option.no_parameter}


@pytest.mark.parametrize("name", JOBS)
def test_command_and_flow_say_the_same_of_an_option(name: str) -> None:
    models, _, flow = JOBS[name]
    shown = {option.name: option for option in typer.main.get_command(app).commands[name].params}  # type: ignore[attr-defined]
    for field, one in declared(*models).items():
        assert getattr(shown[field], "help", None) == one.help
        if flow is not None and not one.option.no_parameter:
            described = flow.parameters.properties[field]["description"]
            assert described == flow_words(one)


def flow_words(one: DeclaredOption) -> str:
    words = one.help
    for other in ("--compute", "--resume", "--splats", "--gif", "--store", "--axis"):
        words = words.replace(other, other[2:])
    return words


def outside(one: DeclaredOption) -> list[float]:
    """Numbers just outside of a declared range."""
    found: list[float] = []
    for rule in one.given.range:
        if isinstance(rule, annotated_types.Ge):
            found.append(rule.ge - 1)  # type: ignore[operator]
        if isinstance(rule, annotated_types.Le):
            found.append(rule.le + 1)  # type: ignore[operator]
        if isinstance(rule, annotated_types.Gt):
            found.append(rule.gt)  # type: ignore[arg-type]
        if isinstance(rule, annotated_types.Lt):
            found.append(rule.lt)  # type: ignore[arg-type]
    return found


BESIDES: dict[str, tuple[list[str], dict[str, Any]]] = {
    "encode": (["demo", "--out", "a.zarr", "--dry-run"], {"dataset": "demo", "out": "a.zarr"}),
    "ablate": (["--store", "a.zarr", "--out", "here"], {"store": "a.zarr", "out": "here"}),
    "sample": (["run", "--out", "images", "--splats"], {}),
    "evaluate": (["run", "--store", "a.zarr", "--splats"], {"run": "run", "store": "a.zarr"}),
    "train": (["splats", "--store", "a.zarr", "--out", "run"], {"store": "a.zarr", "out": "run"}),
}
"""What a call needs besides, on the command line and in the flow."""


@pytest.mark.parametrize("name", JOBS)
def test_a_number_outside_the_range_is_refused_by_both(
    name: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    models, _, flow = JOBS[name]
    words, parameters = BESIDES[name]
    tried = 0
    commands = typer.main.get_command(app)
    for field, one in declared(*models).items():
        for number in outside(one):
            flag = (one.option.flags or (f"--{field.replace('_', '-')}",))[0]
            with pytest.raises(SystemExit) as left:
                commands.main([name, *words, f"{flag}={number}"])
            assert left.value.code == 2, (flag, number)
            assert flag in capsys.readouterr().err
            if flow is not None and not one.option.no_parameter:
                with pytest.raises(ParameterTypeError, match=field):
                    flow.validate_parameters({**parameters, field: number})
            tried += 1
    assert tried > 3
    assert not list(tmp_path.iterdir())


def test_a_flow_refuses_what_is_no_parameter() -> None:
    with pytest.raises(TypeError, match="colour"):
        flows.encode.encode.validate_parameters({"dataset": "demo", "out": "a.zarr", "colour": "signed"})
