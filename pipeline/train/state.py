"""The files of a run from which it continues: ``state.safetensors`` (all) and ``model.safetensors`` (to sample from).

``state.safetensors`` holds the weights in training, their mean, the optimiser and the step in one file, replaced at
once: a kill at any instant leaves a whole state. There is no state of random generators: every draw follows from the
seed and the step. ``state.json`` repeats its plain part for people.

What a training says while it runs and when it ends.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from data_schemas.errors import CheckpointError, JobError
from data_schemas.files import wrap_os_errors, write_file
from models.checkpoint import Checkpoint, load_checkpoint, read_config, save_checkpoint
from models.ema import Ema
from models.registry import model_named
from pipeline.format import format_loss, list_parts
from pipeline.options import job_error, whole_number
from pipeline.train.job import CHANGEABLE, MOST_STEPS, TrainJob, TrainRequest

MODEL_FILE, STATE_FILE, STATE_TEXT = "model.safetensors", "state.safetensors", "state.json"
LOG_FILE, CARD_FILE, SAMPLES_FOLDER, TENSORBOARD_FOLDER = "log.jsonl", "card.md", "samples", "tensorboard"

_REPRESENTATION, _EMA, _OPTIMISER = "representation.", "ema.", "optimiser."


def run_folder(path: Path) -> Path:
    """The folder of a run that is named by itself or by its ``model.safetensors``."""
    return path.parent if path.suffix == ".safetensors" else path


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
    content = {**config, "ema": None if ema is None else ema.state(), "moments": len(optimiser.state_dict()["state"])}
    save_checkpoint(run / STATE_FILE, model, content, tensors)
    with wrap_os_errors("write", run / STATE_TEXT):
        write_file(run / STATE_TEXT, (json.dumps(content, indent=2) + "\n").encode())


def load_state(run: Path, model: nn.Module, ema: Ema | None, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Puts the weights, their mean and the optimiser back as ``save_state`` found them.

    Returns:
        The ``config`` that was saved.

    Raises:
        CheckpointError: missing, damaged, or of another network.
    """
    path = run / STATE_FILE
    checkpoint = load_checkpoint(path)
    _require_state(checkpoint.config, path, mean=ema is not None)
    checkpoint.load_into(model)
    moments: dict[int, dict[str, Tensor]] = {}
    mean: dict[str, Tensor] = {}
    for name, value in checkpoint.tensors.items():
        if name.startswith(_EMA):
            mean[name.removeprefix(_EMA)] = value
        elif name.startswith(_OPTIMISER):
            index, _, moment = name.removeprefix(_OPTIMISER).partition(".")
            moments.setdefault(_index(index, path), {})[moment] = value
    _require_moments(moments, optimiser, checkpoint.config, path)
    if ema is not None:
        ema.restore(mean, checkpoint.config["ema"])
    try:
        optimiser.load_state_dict({"state": moments, "param_groups": optimiser.state_dict()["param_groups"]})
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: an optimiser of another network: {error}") from error
    return checkpoint.config


def _foreign(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is no state that a training can go on from: {what}",
        allowed="the state.safetensors of splatspace train",
        next_step="train into another folder, or restore the run from a copy",
    )


def _require_state(config: dict[str, Any], path: Path, *, mean: bool) -> None:
    """Refuses a state of another program, or one that was changed by hand.

    Raises:
        CheckpointError: an entry is missing or of another kind.
    """
    kinds: dict[str, type | tuple[type, ...]] = {"job": dict, "step": int, "digest": str, "plans": list}
    kinds |= {"loss": (int, float, type(None)), "ema": dict if mean else (dict, type(None))}
    given = {"plans": [], "loss": None, **config}
    for name, kind in kinds.items():
        if name not in given:
            raise _foreign(path, f"it has no {name!r}")
        if not isinstance(given[name], kind) or isinstance(given[name], bool):
            raise _foreign(path, f"its {name!r} is {given[name]!r}")
    if not 0 <= given["step"] <= MOST_STEPS:
        raise _foreign(path, f"its 'step' is {given['step']}")
    if config.get("plans") == []:
        raise _foreign(path, "its 'plans' are empty")
    for plan in given["plans"]:
        if not (isinstance(plan, list) and len(plan) == 2 and all(type(number) is int for number in plan)):
            raise _foreign(path, f"one of its 'plans' is {plan!r}")


def _index(text: str, path: Path) -> int:
    found = whole_number(text)
    if found is None:
        raise _foreign(path, f"it has a moment of parameter {text!r}")
    return found


def _require_moments(
    moments: dict[int, dict[str, Tensor]], optimiser: torch.optim.Optimizer, config: dict[str, Any], path: Path
) -> None:
    """Refuses a state without the optimiser's moments: torch takes it without a word and begins them again.

    Raises:
        CheckpointError: moments are missing after the first step, or are those of other weights.
    """
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    wanted = config.get("moments", len(moments))  # states of earlier versions do not say how many there are
    if len(moments) != wanted or (config["step"] and not moments):
        raise _foreign(path, f"it has moments of {len(moments)} of its {wanted or len(parameters)} parameters")
    for index, found in moments.items():
        shape = parameters[index].shape if 0 <= index < len(parameters) else None
        if set(found) != {"step", "exp_avg", "exp_avg_sq"} or any(
            found[name].shape != shape for name in ("exp_avg", "exp_avg_sq")
        ):
            raise _foreign(path, f"its moments of parameter {index} are those of other weights")


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


def read_recorded_job(run: Path) -> dict[str, Any]:
    """The fields of the job that a run was begun with.

    Raises:
        CheckpointError: there is no state to continue from, or one of another program.
    """
    path = run / STATE_FILE
    if not path.exists():
        raise CheckpointError(
            f"{run} holds no training to continue ({STATE_FILE} is missing)",
            next_step="leave out --resume to begin one",
        )
    recorded = read_config(path).get("job")
    try:
        return TrainJob.model_validate(recorded).model_dump(mode="json")
    except ValidationError as error:
        raise _foreign(path, f"its job {job_error(error, 'train').got}") from None


def continue_job(run: Path, given: dict[str, Any]) -> TrainJob:
    """The job of a run that is to go on; options that are given again must say the same.

    Args:
        run: folder of the run.
        given: fields of ``TrainJob`` that the user gave; those of ``CHANGEABLE`` may differ, and ``steps`` may grow.

    Raises:
        CheckpointError: there is no state to continue from.
        JobError: an option that differs from the recorded one.
    """
    recorded = read_recorded_job(run)
    planned = int(recorded["steps"])
    steps = planned if given.get("steps") is None else int(given["steps"])
    if steps < planned:
        raise JobError(
            f"--steps {steps} for a training that was planned with {planned}",
            allowed=f"{planned} (leave the option out), or more to lengthen it",
            next_step="give another --out to train for a shorter time",
        )
    for name, value in given.items():
        if name in (*CHANGEABLE, "steps") or value is None:
            continue
        if name == "changes":
            _require_same_changes(value, recorded)
        elif value != recorded.get(name):
            raise _differing(f"--{name.replace('_', '-')} {value}", recorded.get(name))
    changes = {name: given[name] for name in CHANGEABLE if given.get(name) is not None}
    return TrainJob.model_validate({**recorded, **changes, "steps": steps, "out": run})


def _require_same_changes(given: dict[str, Any], recorded: dict[str, Any]) -> None:
    """Compares fields of the preset one by one: those that are not given again stay as they are.

    Raises:
        JobError: one that differs from what the training began with.
    """
    began, preset = recorded["changes"], model_named(recorded["model"]).presets.get(recorded["preset"])
    for name, value in given.items():
        usual = getattr(preset, name, None)
        if value != began.get(name, usual):
            option = f"--{name} {value}" if name in TrainRequest.model_fields else f"--set {name}={value}"
            inherited = "nothing of that name" if usual is None else f"the preset's {usual}"
            raise _differing(option, began.get(name, inherited))


def _differing(option: str, before: Any) -> JobError:
    """The error of an option that differs from what a training began with."""
    return JobError(
        f"{option} for a training that began with {before}",
        allowed=f"{before} (leave the option out)",
        next_step="give another --out to train with other options",
    )


@dataclass(frozen=True)
class TrainProgress:
    """How far a training is.

    Attributes:
        step: steps taken.
        steps: of the whole training.
        loss: mean of the last entry.
        images_per_second: since this process began; None before the first step.
        seconds_left: at that rate.
    """

    step: int
    steps: int
    loss: float | None
    images_per_second: float | None
    seconds_left: float | None

    @property
    def words(self) -> str:
        """The same for people."""
        left = "" if self.seconds_left is None else f"{timedelta(seconds=round(self.seconds_left))} left"
        return list_parts(f"step {self.step:,} of {self.steps:,}", format_loss(self.loss), left)


class TrainSummary(BaseModel):
    """What a training left.

    Attributes:
        run: its folder.
        checkpoint: the file to sample from.
        model: name of the network.
        preset: its size.
        parameters: trainable numbers.
        gflop: billions of operations of one evaluation.
        images: learned from.
        unfinished: rows that were not done, and not used.
        unfinished_named: the first of them.
        held_out: images held out for evaluation.
        repeats: rows whose pixels an earlier row has, left out.
        repeats_named: the first of them.
        steps: of the whole training.
        steps_taken: by this process.
        loss: mean of the last entry; None where no step was taken.
        seconds: of this process.
        images_per_second: the same; None where no step was taken.
        device: computed on.
        precision: of the network.
        resident: whether all latents were in memory.
        rank: number of this process among those that trained together; the first one, 0, wrote the files.
    """

    model_config = ConfigDict(frozen=True)

    run: Path
    checkpoint: Path
    model: str
    preset: str
    parameters: int
    gflop: float
    images: int
    unfinished: int
    unfinished_named: tuple[str, ...]
    held_out: int = 0
    repeats: int = 0
    repeats_named: tuple[str, ...] = ()
    steps: int
    steps_taken: int
    loss: float | None
    seconds: float
    images_per_second: float | None
    device: str
    precision: str
    resident: bool
    rank: int = 0

    @property
    def report(self) -> Path:
        """The page for people."""
        return self.run / CARD_FILE
