"""Distillation: a trained generator teaches a copy of itself to sample in a few evaluations."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from upath import UPath

from data_schemas.errors import CheckpointError, JobError, StoreMismatchError
from models.base import Denoiser
from models.checkpoint import Checkpoint, load_checkpoint, read_config
from models.diffusion.distillation import DistillingObjective, teacher_settings
from models.diffusion.objectives import Objective
from models.features.pixels import PixelRepresentation, representation_from
from models.features.splats import SplatRepresentation
from pipeline.options import job_error
from pipeline.train.cats_job import head_of
from pipeline.train.job import KindName, TrainJob, resolve_train_job
from pipeline.train.rows import TrainingRows
from pipeline.train.state import MODEL_FILE, STATE_FILE, read_recorded_job, representation_tensors, run_folder

EVALUATIONS = 4
"""Of a distilled generator, where none are given."""

STEPS = 1000
LEARNING_RATE = 1e-3
"""Where none are given: the network knows already what it is to predict."""

DISTILLABLE = ("flow-clean", "flow-velocity")
"""Objectives whose path begins at pure noise and whose samplers add none."""

OWN = (
    "store", "out", "distil", "evaluations", "steps", "batch", "learning_rate", "every", "seed", "ema", "latents",
    "device", "devices", "nodes", "precision", "compile",
)  # fmt: skip
"""Fields of ``TrainJob`` that are the distillation's own; all others are those of the run that teaches."""


FIRST = (
    "render_loss", "perceptual", "perceptual_weight", "lpips_weights", "weight_decay", "warm_up", "clip",
    "constant_rate", "second_moment",
)  # fmt: skip
"""Fields that matter to the first training alone: its losses in image space, its recipe of the optimiser."""


def resolve_distillation(
    kind: KindName, store: str | os.PathLike[str] | UPath | None, out: Path, **options: Any
) -> TrainJob:
    """The job that teaches a copy of ``options["distil"]`` to sample in a few evaluations.

    Args:
        kind: what that run makes.
        store: that it learned from; None takes the one that its state names.
        out: folder of the new run.
        options: fields of ``TrainJob``; None means "as that run, or the default".

    Raises:
        CheckpointError: there is no such run.
        JobError: a run that cannot be distilled, or options that are that run's.
        StoreError: a URL that cannot be used.
    """
    run = run_folder(Path(options["distil"]))
    path = run / MODEL_FILE
    config = read_config(path)
    try:
        taught = TrainJob.model_validate(config.get("job"))
    except ValidationError as error:
        raise CheckpointError(f"{path} holds no job of a training: {job_error(error, 'train').got}") from None
    made = "cats" if head_of(taught.model) is not None else taught.kind
    if kind != made:
        raise JobError(f"train {kind} --distil {run}, which makes {made}", allowed=f"train {made}")
    if taught.distil is not None:
        raise JobError(
            f"--distil {run}, which is distilled itself", allowed=f"the run that it came of: {taught.distil}"
        )
    if taught.objective not in DISTILLABLE:
        raise JobError(
            f"--distil {run}, a training of {taught.objective}",
            allowed=f"trainings of {' or '.join(DISTILLABLE)}",
            next_step="train one with --objective flow-clean",
        )
    given = {name: value for name, value in options.items() if value is not None}
    its = taught.model_dump(exclude={*OWN, "kind"})
    for name in given.keys() & its.keys():
        if given[name] != its[name]:
            raise JobError(
                f"--{name.replace('_', '-')} {given[name]} with --distil {run}, whose is {its[name]}",
                allowed=f"{its[name]} (leave the option out)",
                next_step="a distilled generator is a copy of the one that teaches it",
            )
    number = int(given.get("evaluations", EVALUATIONS))
    changes = {**its["objective_changes"], "evaluations": number, "sampler": "euler", "distilled": number}
    fields = taught.model_dump(exclude={*OWN, *FIRST, "kind"}, exclude_defaults=True)
    fields |= {"steps": STEPS, "learning_rate": LEARNING_RATE, **given, "objective_changes": changes}
    fields |= {"distil": run, "evaluations": number}
    return resolve_train_job(taught.kind, _store_of(run) if store is None else store, out, **fields)


def _store_of(run: Path) -> Any:
    """The store that a run learned from, as the state from which it goes on says: the model holds no places.

    Raises:
        JobError: there is no state.
    """
    if (run / STATE_FILE).exists():
        return read_recorded_job(run)["store"]
    raise JobError(
        f"train --distil {run} without --store: that run holds no {STATE_FILE}, which says where its store is",
        allowed="the store that it learned from",
        next_step="give --store NAME.zarr",
    )


def load_teacher(job: TrainJob, rows: TrainingRows) -> Checkpoint:
    """The run that teaches.

    Args:
        job: with ``distil``.
        rows: that are learned from: the run must know their size, their slots and their labels.

    Raises:
        CheckpointError: there is no such run, or it is damaged.
        StoreMismatchError: images of another size, other slots, another K, or labels that it does not know.
    """
    assert job.distil is not None
    checkpoint = load_checkpoint(job.distil / MODEL_FILE)
    known = [int(number) for number in checkpoint.config.get("labels", [])]
    if known != list(rows.class_labels.numbers):
        raise _other(job, f"labels {list(rows.class_labels.numbers)[:10]}, not {known[:10]}")
    mine = json.loads(json.dumps(rows.spec(representation_of(checkpoint)).to_dict()))  # with lists, as it is read
    its = checkpoint.config.get("data", {})
    other = sorted(name for name in mine if mine[name] != its.get(name))
    if other:
        raise _other(job, f"another {', '.join(other)}")
    return checkpoint


def representation_of(teacher: Checkpoint) -> SplatRepresentation | PixelRepresentation:
    """How the teacher's features stand for splats or pixels."""
    return representation_from(teacher.config["representation"], representation_tensors(teacher))


def teach(teacher: Checkpoint, network: Denoiser, objective: Objective, rows: TrainingRows) -> DistillingObjective:
    """Gives the network the teacher's weights, and the objective that a copy of it teaches by.

    Raises:
        CheckpointError: weights of another network.
    """
    teacher.load_into(network)
    frozen = copy.deepcopy(network).requires_grad_(False).eval()
    walks = Objective.from_config(teacher.config["objective"]).settings
    return DistillingObjective(
        objective.settings,
        frozen,
        teacher_settings(walks),
        groups=objective.groups,
        classes=objective.classes,
        anchors=rows.slots.anchors,
    )


def _other(job: TrainJob, what: str) -> StoreMismatchError:
    return StoreMismatchError(
        f"{job.store} is another set than the one that {job.distil} learned from: {what}",
        allowed="the same store",
        next_step="leave --store out",
    )
