"""States and logs of other programs, or changed by hand: refused in words, never a KeyError, never taken in silence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from data_schemas.errors import CheckpointError, JobError
from models.checkpoint import load_checkpoint, save_checkpoint
from models.ema import Ema
from pipeline.train.job import resolve_train_job
from pipeline.train.request import resolve_request
from pipeline.train.state import STATE_FILE, load_state, save_state
from pipeline.train.tracking.log import loss_png, read_lines

MISSING = object()
"""Takes an entry away."""


def parts() -> tuple[nn.Module, Ema, torch.optim.AdamW]:
    """A network of two layers after one step."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    optimiser = torch.optim.AdamW(network.parameters())
    ema = Ema(network, 0.9)
    network(torch.ones(1, 2)).sum().backward()
    optimiser.step()
    return network, ema, optimiser


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a whole state."""
    job = resolve_train_job("pixels", "a.zarr", tmp_path, model="cats-lut-published", steps=8)
    content = {"job": job.model_dump(mode="json"), "step": 1, "digest": "x", "plans": [[0, 8]], "loss": 0.5}
    save_state(tmp_path, *parts(), content)
    return tmp_path


def changed(run: Path, *, drop: str = "", **entries: Any) -> None:
    """Writes the state again with other entries, or without tensors whose name begins with ``drop``."""
    held = load_checkpoint(run / STATE_FILE)
    config = {name: value for name, value in {**held.config, **entries}.items() if value is not MISSING}
    tensors = {name: value for name, value in held.tensors.items() if not (drop and name.startswith(drop))}
    save_checkpoint(run / STATE_FILE, held.model, config, tensors)


def test_a_whole_state_is_taken(run: Path) -> None:
    network, ema, optimiser = parts()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert load_state(run, network, ema, optimiser)["step"] == 1
    torch.testing.assert_close(dict(network.state_dict()), dict(parts()[0].state_dict()))


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        ("ema", MISSING), ("ema", None), ("ema", {"updates": "many", "decay": 0.9}), ("step", MISSING), ("step", "one"),
        ("step", -1), ("step", 10**30), ("step", True), ("digest", MISSING), ("job", MISSING), ("job", []),
        ("plans", "none"), ("plans", []), ("plans", [[0]]), ("loss", "low"), ("moments", 3),
    ],
)  # fmt: skip
def test_a_state_that_was_changed_is_refused_in_words(run: Path, entry: str, value: Any) -> None:
    changed(run, **{entry: value})
    with pytest.raises(CheckpointError, match=r"no state that a training can go on from|cannot be restored"):
        load_state(run, *parts())


@pytest.mark.parametrize("drop", ["optimiser.", "optimiser.0.", "optimiser.1.exp_avg_sq"])
def test_a_state_without_moments_is_refused(run: Path, drop: str) -> None:
    changed(run, drop=drop)
    with pytest.raises(CheckpointError, match="moments"):
        load_state(run, *parts())
    # States of earlier versions do not say how many there are.
    changed(run, drop="optimiser.", moments=MISSING)
    with pytest.raises(CheckpointError, match="moments of 0 of its 4"):
        load_state(run, *parts())


@pytest.mark.parametrize("job", [MISSING, None, {}, {"steps": 8}, [1]])
def test_a_job_of_another_program_is_refused_in_words(run: Path, job: Any) -> None:
    changed(run, job=job)
    with pytest.raises(CheckpointError, match="its job"):
        resolve_request("cats", None, run, resume=True)


def test_a_recipe_that_is_named_again_must_be_the_same(run: Path) -> None:
    assert resolve_request("cats", None, run, resume=True, recipe="published").model == "cats-lut-published"
    assert resolve_request("cats", None, run, resume=True, head="lut").model == "cats-lut-published"
    with pytest.raises(JobError, match="--model cats-lut for a training that began with cats-lut-published"):
        resolve_request("cats", None, run, resume=True, recipe="modern")
    with pytest.raises(JobError, match="--model cats-kpn-published for a training that began with cats-lut-published"):
        resolve_request("cats", None, run, resume=True, head="kpn")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, ""),
        ({"pool": 2}, ""),
        ({"settings": ["patch=2"]}, ""),
        ({"settings": ["patch=2", "pool=2"]}, ""),
        ({"settings": ["registers=0"]}, "--set registers=0 for a training that began with nothing of that name"),
        ({"pool": 2, "pack": 2}, "--pack 2 for a training that began with nothing of that name"),
        ({"pool": 1}, "--pool 1 for a training that began with 2\\."),
        ({"pool": 2, "settings": ["patch=4"]}, "--set patch=4 for a training that began with 2\\."),
    ],
)
def test_changes_that_are_given_again_are_compared_one_by_one(tmp_path: Path, given: dict[str, Any], said: str) -> None:
    began = resolve_request("splats", "a.zarr", tmp_path, preset="tiny", pool=2, settings=["patch=2"])
    config = {"job": began.model_dump(mode="json"), "step": 1, "digest": "x", "plans": [[0, 8]], "loss": 0.5}
    save_state(tmp_path, *parts(), config)
    if said:
        with pytest.raises(JobError, match=said):
            resolve_request("splats", None, tmp_path, resume=True, **given)
    else:
        assert resolve_request("splats", None, tmp_path, resume=True, **given) == began


@pytest.mark.slow
def test_lines_that_are_no_entries_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "log.jsonl"
    good = [{"step": 50, "loss": 1.0, "learning_rate": 0.1}, {"step": 100, "loss": 0.5}]
    strange = ["[]", '{"loss": 1}', '{"step": "2"}', "nonsense", "9" * 5000, '{"step": ' + "9" * 5000 + "}", "[" * 9999]
    path.write_text("\n".join([json.dumps(good[0]), *strange, json.dumps(good[1]), '{"step": 1']))
    assert read_lines(path) == good
    assert "7 lines are no entries of a log and are left out: 2, 3, 4, 5, 6 and more" in caplog.text
    assert loss_png(good) is not None, "an entry without a learning rate is no point of the curve"
    caplog.clear()
    path.write_text(json.dumps(good[0]) + '\n{"step": 1')
    assert read_lines(path) == good[:1]
    assert not caplog.text, "a last line that a kill cut short is nothing to warn of"
