"""The files of a run from which it continues: ``state.safetensors`` (all) and ``model.safetensors`` (to sample from).

``state.safetensors`` holds the weights in training, their mean, the optimiser and the step in one file, replaced at
once: a kill at any instant leaves a whole state. There is no state of random generators: every draw follows from the
seed and the step. ``state.json`` repeats its plain part for people.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from data_schemas.durable_files import explained, write_file
from data_schemas.errors import CheckpointError, JobError
from models.checkpoint import Checkpoint, load_checkpoint, read_config, save_checkpoint
from models.ema import Ema
from pipeline.generation.jobs import CHANGEABLE, TrainJob

MODEL_FILE, STATE_FILE, STATE_TEXT = "model.safetensors", "state.safetensors", "state.json"
LOG_FILE, CARD_FILE, SAMPLES_FOLDER, TENSORBOARD_FOLDER = "log.jsonl", "card.md", "samples", "tensorboard"

_REPRESENTATION, _EMA, _OPTIMISER = "representation.", "ema.", "optimiser."


def representation_tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """Statistics of the representation that were saved with ``save_model``."""
    return {
        name.removeprefix(_REPRESENTATION): value
        for name, value in checkpoint.tensors.items()
        if name.startswith(_REPRESENTATION)
    }


def save_model(run: Path, weights: nn.Module, config: dict[str, Any], representation: dict[str, Tensor]) -> None:
    """Writes ``model.safetensors``: what is sampled from, with everything that sampling needs."""
    tensors = {_REPRESENTATION + name: value for name, value in representation.items()}
    save_checkpoint(run / MODEL_FILE, weights, config, tensors)


def save_state(
    run: Path, model: nn.Module, ema: Ema | None, optimiser: torch.optim.Optimizer, config: dict[str, Any]
) -> None:
    """Writes ``state.safetensors`` and ``state.json``.

    Args:
        run: folder of the run.
        model: the weights in training.
        ema: their mean, if it is kept.
        optimiser: AdamW.
        config: ``job``, ``step``, ``digest`` of the rows, ``plans`` (see ``plans_of``), ``labels`` of the classes,
            ``collected`` losses since the last entry of the log, and more that is plain.
    """
    tensors = {} if ema is None else {_EMA + name: value for name, value in ema.tensors().items()}
    for index, moments in optimiser.state_dict()["state"].items():
        for name, value in moments.items():
            tensors[f"{_OPTIMISER}{index}.{name}"] = torch.as_tensor(value)
    content = {**config, "ema": None if ema is None else ema.state()}
    save_checkpoint(run / STATE_FILE, model, content, tensors)
    with explained("write", run / STATE_TEXT):
        write_file(run / STATE_TEXT, (json.dumps(content, indent=2) + "\n").encode())


def load_state(run: Path, model: nn.Module, ema: Ema | None, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Puts the weights, their mean and the optimiser back as ``save_state`` found them.

    Returns:
        The ``config`` that was saved.

    Raises:
        CheckpointError: missing, damaged, or of another network.
    """
    checkpoint = load_checkpoint(run / STATE_FILE)
    checkpoint.load_into(model)
    moments: dict[int, dict[str, Tensor]] = {}
    mean: dict[str, Tensor] = {}
    for name, value in checkpoint.tensors.items():
        if name.startswith(_EMA):
            mean[name.removeprefix(_EMA)] = value
        elif name.startswith(_OPTIMISER):
            index, _, moment = name.removeprefix(_OPTIMISER).partition(".")
            moments.setdefault(int(index), {})[moment] = value
    if ema is not None:
        ema.restore(mean, checkpoint.config["ema"])
    try:
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{run / STATE_FILE}: an optimiser of another network: {error}") from error
    return checkpoint.config


def plans_of(state: dict[str, Any], steps: int) -> list[list[int]]:
    """How long the training was planned to be, and from which step on: [[0, steps], [step, more steps], ...].

    Args:
        state: ``config`` that ``save_state`` kept; an empty one for a training that begins.
        steps: as planned now.
    """
    if not state:
        return [[0, steps]]
    plans = [list(plan) for plan in state.get("plans", [[0, state["job"]["steps"]]])]
    return plans if plans[-1][1] == steps else [*plans, [int(state["step"]), steps]]


def continued_job(run: Path, given: dict[str, Any]) -> TrainJob:
    """The job of a run that is to go on; options that are given again must say the same.

    Args:
        run: folder of the run.
        given: fields of ``TrainJob`` that the user gave; those of ``CHANGEABLE`` may differ, and ``steps`` may grow.

    Raises:
        CheckpointError: there is no state to continue from.
        JobError: an option that differs from the recorded one.
    """
    path = run / STATE_FILE
    if not path.exists():
        raise CheckpointError(
            f"{run} holds no training to continue ({STATE_FILE} is missing)",
            next_step="leave out --resume to begin one",
        )
    recorded = read_config(path)["job"]
    planned = int(recorded["steps"])
    steps = planned if given.get("steps") is None else int(given["steps"])
    if steps < planned:
        raise JobError(
            f"--steps {steps} for a training that was planned with {planned}",
            allowed=f"{planned} (leave the option out), or more to lengthen it",
            next_step="give another --out to train for a shorter time",
        )
    for name, value in given.items():
        before = recorded.get(name)
        if name not in (*CHANGEABLE, "steps") and value is not None and value != before:
            raise JobError(
                f"--{name.replace('_', '-')} {value} for a training that began with {before}",
                allowed=f"{before} (leave the option out)",
                next_step="give another --out to train with other options",
            )
    changes = {name: given[name] for name in CHANGEABLE if given.get(name) is not None}
    return TrainJob.model_validate({**recorded, **changes, "steps": steps, "out": run})
