"""Options that a command and a flow both list: each arrives at the job, under its own name."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

import flows.ablate
import flows.evaluate
import flows.train
from data_schemas.errors import JobError
from flows.guards import ROOTS_VARIABLE
from pipeline.cli import ablate as ablate_command
from pipeline.cli import train as train_command
from pipeline.evaluate.ablate.job import resolve_ablate_job
from pipeline.train import request as train_request
from pipeline.train.request import resolve_request
from tests.hub_stand_in import install_stand_in


class ReachedError(Exception):
    """Ends a command where its job would be made."""


def handed_on(
    command: Callable[..., Any], module: object, makes_job: Callable[..., Any], patch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What arrives where the job is made, when every option of a command has its own name for a value."""
    seen: dict[str, Any] = {}

    def stand_in(*values: Any, **named: Any) -> None:
        given = signature(makes_job).bind(*values, **named).arguments
        seen.update(given.pop("options", {}), **given)
        raise ReachedError

    patch.setattr(module, makes_job.__name__, stand_in)
    with pytest.raises(ReachedError):
        command(**{name: name for name in signature(command).parameters})
    return seen


def names_of(command: Callable[..., Any], *others: str) -> dict[str, Any]:
    """All options, but those that are not for the job."""
    return {name: name for name in signature(command).parameters if name not in others}


@pytest.fixture
def no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bodies of flows, called without Prefect."""
    for module in (flows.train, flows.ablate):
        monkeypatch.setattr(module, "require_inside_roots", lambda **_places: None)
        monkeypatch.setattr(module, "get_run_logger", lambda: None)


def test_train_hands_on_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    found = handed_on(train_command.train, train_request, resolve_request, monkeypatch)
    assert found == names_of(train_command.train, "track", "as_json")


@pytest.mark.usefixtures("no_run")
def test_the_flow_train_hands_on_every_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    found = handed_on(flows.train.train.fn, flows.train, resolve_request, monkeypatch)
    assert found == {**names_of(flows.train.train.fn, "track"), "out": Path("out"), "resume": False}


def test_ablate_hands_on_every_option(monkeypatch: pytest.MonkeyPatch) -> None:
    found = handed_on(ablate_command.ablate, ablate_command, resolve_ablate_job, monkeypatch)
    assert found == names_of(ablate_command.ablate, "as_json")


@pytest.mark.usefixtures("no_run")
def test_the_flow_ablate_hands_on_every_parameter(monkeypatch: pytest.MonkeyPatch) -> None:
    found = handed_on(flows.ablate.ablate.fn, flows.ablate, resolve_ablate_job, monkeypatch)
    assert found == {**names_of(flows.ablate.ablate.fn), "axes": ["axes"]}


def test_a_run_of_the_hub_outside_the_roots_is_not_downloaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ROOTS_VARIABLE, str(tmp_path))
    hub = install_stand_in(monkeypatch, tmp_path / "hub")
    hub.failing = AssertionError("asked for")
    with pytest.raises(JobError, match="run 'hf://user/name' lies outside"):
        flows.evaluate.evaluate.fn("hf://user/name", str(tmp_path / "store.zarr"), out=str(tmp_path / "out"))
