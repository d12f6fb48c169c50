"""What one training is asked to do. Light to import: the command line makes its options from the fields."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_schemas.errors import JobError
from data_schemas.locations import LocationField, location
from models.diffusion.objective_settings import OBJECTIVES, ObjectiveSettings
from models.names import CovarianceForm, DataKind, HeadName, Normalisation, PresetName, RecipeName
from pipeline.options import DeviceName, Internal, Option, PathText, job_error

if TYPE_CHECKING:
    from upath import UPath

KindName = Literal["splats", "pixels", "cats"]
"""What is trained; ``cats`` are patch models, which make pixels."""

PerceptualName = Literal["none", "gradient", "dct", "lpips", "lpips-if-there"]
OrderName = Literal["auto", "stored", "anchors"]
PrecisionName = Literal["auto", "32", "bf16"]

DEFAULT_MODEL: dict[DataKind, str] = {"splats": "render-dit", "pixels": "pixel-unet"}

RENDER_LOSS_WEIGHT = 20.0
"""A weight of ``render_loss`` that matters: its gradient is about as large as that of the numbers; at 1, 2 to 5 %."""

CHANGEABLE = ("store", "out", "device", "devices", "nodes", "compile", "every", "lpips_weights")
"""Fields that may differ when a training is continued; all others decide the result."""


MOST_STEPS = 100_000_000

TINY_LEARNING_RATE = 3e-3
"""Of the preset ``tiny`` of ``splatdit``: three quarters of the FID that 1e-3 leads to (docs/results.md). The other
models with that trunk and an order take the same."""


DRAWN_LOSSES: dict[str, Any] = {"shown_clean": 0.05, "shown_weight": 0.05}
"""Fields of ``ObjectiveSettings`` of models that look at pixels and answer with Gaussians."""


def drawn_losses(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of ``ObjectiveSettings`` of a model that looks at pixels and answers with Gaussians.

    Means of p x p pixels carry 1/p of the noise. Training times therefore lie log p earlier on the scale of their
    log-odds, so that what is looked at is as noisy as pixels are otherwise ("simple diffusion", arXiv:2301.11093).

    Args:
        changes: to its preset.
    """
    pool = changes.get("pool", 1)
    if not isinstance(pool, int) or pool <= 1:  # what is no side of a square is refused with the network
        return DRAWN_LOSSES
    return {**DRAWN_LOSSES, "time_mean": ObjectiveSettings.time_mean - math.log(pool)}


class TrainRequest(BaseModel):
    """What a user says in words of its own, and ``pipeline.train.request`` turns into fields of ``TrainJob``."""

    kind: Annotated[
        KindName,
        Field(description="What the generator makes; cats: pixels, by a patch model."),
        Option(argument=True),
    ]
    head: Annotated[
        HeadName | None,
        Field(description="Head of a patch model; cats only, required there."),
        Option(after="model"),
    ] = None
    recipe: Annotated[
        RecipeName | None,
        Field(description="Recipe of a patch model."),
        Option(after="head", default="modern"),
    ] = None
    pack: Annotated[
        int | None,
        Field(ge=1, description="Gaussians per token of splatdit."),
        Option(after="preset", default="about 50 tokens"),
    ] = None
    pool: Annotated[
        int | None,
        Field(ge=1, description="Side of the squares of pixels whose means render-dit looks at."),
        Option(after="pack", default="1, the pixels"),
    ] = None
    settings: Annotated[
        list[str] | None,
        Field(description="A field of the preset, as in kernel=cosine or entries=64."),
        Option(
            flags=("--set",),
            metavar="NAME=VALUE",
            after="pool",
            no_parameter="a deployment trains a preset; what is tried once is tried at a terminal",
        ),
    ] = None


class TrainJob(BaseModel):
    """Everything that one training needs; frozen, picklable and printable as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Annotated[DataKind, Internal("kind of the request; cats are pixels")] = "splats"
    store: Annotated[
        LocationField, Field(description="The store to learn from; not needed with --resume."), Option(given=PathText)
    ]
    out: Annotated[Path, Field(description="Folder of the run."), Option(flags=("--out", "-o"))]
    model: Annotated[
        str,
        Field(min_length=1, description="Model; see splatspace models."),
        Option(open=True, default="render-dit, or pixel-unet for pixels"),
    ]
    preset: Annotated[PresetName, Field(description="Size of the model."), Option(open=True)] = "small"
    changes: Annotated[dict[str, Any], Internal("pack and settings of the request")] = Field(default_factory=dict)
    steps: Annotated[
        int,
        Field(ge=1, le=MOST_STEPS, description="Optimiser steps; with --resume they may grow."),
        Option(open=True),
    ] = 10_000
    batch: Annotated[
        int, Field(ge=1, le=1_000_000, description="Images per step, over all devices."), Option(open=True)
    ] = 64
    learning_rate: Annotated[
        float,
        Field(gt=0, le=1, description="Peak of the learning rate."),
        Option(open=True, default="by model and preset"),
    ] = 1e-3
    distil: Annotated[
        Path | None,
        Field(description="Run to distil: a copy of it learns to make in a few evaluations what it makes in many."),
        Option(default="none"),
    ] = None
    evaluations: Annotated[
        int | None,
        Field(ge=1, le=64, description="Number of function evaluations (NFE) of the distilled generator."),
        Option(default="4, where a run is distilled"),
    ] = None
    objective: Annotated[
        str,
        Field(
            min_length=1,
            description="Objective: flow-clean, flow-velocity, epsilon, ddpm-linear, ddpm-cosine or published.",
        ),
        Option(open=True),
    ] = "flow-clean"
    objective_changes: Annotated[dict[str, Any], Internal("the recipe or the model")] = Field(default_factory=dict)
    render_loss: Annotated[
        float,
        Field(ge=0, description="Weight of a loss on rendered predictions (20)."),
        Option(open=True, default="0, none"),
    ] = 0.0
    perceptual: Annotated[
        PerceptualName,
        Field(description="Perceptual loss on predicted pixels."),
        Option(open=True, default="none; of cats: by recipe", given=Literal["none", "gradient", "dct", "lpips"]),
    ] = "none"
    perceptual_weight: Annotated[
        float,
        Field(ge=0, description="Weight of the perceptual loss."),
        Option(open=True, default="0.1; of cats: by recipe"),
    ] = 0.1
    lpips_weights: Annotated[
        Path | None,
        Field(description="Weights for lpips: vgg16-397923af.pth or its folder."),
        Option(default="downloaded to the cache"),
    ] = None
    flip: Annotated[
        float,
        Field(ge=0, le=1, description="Fraction of images that are mirrored."),
        Option(open=True, default="0; of cats: by recipe"),
    ] = 0.0
    distinct: Annotated[
        bool,
        Field(description="Learn each distinct image once."),
        Option(flags=("--distinct/--repeats",), open=True, default="cats only"),
    ] = False
    held_out: Annotated[
        float,
        Field(ge=0, le=0.9, description="Fraction of images held out for evaluation."),
        Option(open=True, default="0; of cats 0.1"),
    ] = 0.0
    covariance: Annotated[CovarianceForm, Field(description="Parametrisation of a covariance."), Option(open=True)] = (
        "matrix_log"
    )
    normalisation: Annotated[
        Normalisation | None, Field(description="Normalisation of the features."), Option(default="by model")
    ] = None
    classes: Annotated[
        bool | None,
        Field(description="Condition on labels."),
        Option(flags=("--classes/--no-classes",), default="where there are some"),
    ] = None
    order: Annotated[
        OrderName,
        Field(description="Order of the Gaussians: as stored, or each image assigned to anchors."),
        Option(open=True),
    ] = "auto"
    limit: Annotated[int | None, Field(ge=1, description="Learn from the first N finished images only."), Option()] = (
        None
    )
    ema: Annotated[
        bool, Field(description="Sample from the moving average of the weights (EMA)."), Option(open=True)
    ] = True
    seed: Annotated[int, Field(ge=0, lt=2**63, description="Seed of everything."), Option(open=True)] = 0
    device: Annotated[
        str, Field(description="Device: auto, cpu, cuda or mps."), Option(open=True, parameter=DeviceName)
    ] = "auto"
    devices: Annotated[
        int,
        Field(ge=1, description="Number of processes on this machine."),
        Option(open=True, no_parameter="a flow is one process"),
    ] = 1
    nodes: Annotated[
        int,
        Field(ge=1, description="Number of machines, each given this command."),
        Option(open=True, no_parameter="a flow is one process"),
    ] = 1
    precision: Annotated[
        PrecisionName, Field(description="Precision; auto: bf16 on CUDA, else 32."), Option(open=True)
    ] = "auto"
    compile: Annotated[bool, Field(description="Compile the network."), Option(open=True)] = False
    every: Annotated[
        int | None,
        Field(ge=1, description="Number of steps between checkpoints and sample grids."),
        Option(default="a tenth of all"),
    ] = None
    latents: Annotated[
        int | None,
        Field(ge=1, description="Memory for features in MiB; larger sets are streamed."),
        Option(default="4096"),
    ] = None
    weight_decay: Annotated[float, Field(ge=0), Internal("one value for every model")] = 0.01
    warm_up: Annotated[int | None, Field(ge=0), Internal("the recipe; None: 500 steps, at most a tenth of all")] = None
    clip: Annotated[float, Field(ge=0), Internal("the recipe: largest norm of a gradient; 0: any")] = 1.0
    constant_rate: Annotated[bool, Internal("the recipe: the learning rate does not fall after warm-up")] = False
    second_moment: Annotated[float, Field(gt=0, lt=1), Internal("the recipe: decay of AdamW's mean of squares")] = 0.99

    @property
    def steps_between(self) -> int:
        """Steps between checkpoints and sample grids."""
        return self.every or max(1, self.steps // 10)

    @property
    def warm_up_steps(self) -> int:
        """Steps in which the learning rate rises."""
        return min(500, self.steps // 10) if self.warm_up is None else self.warm_up

    def deciding(self) -> dict[str, Any]:
        """The fields that decide the result, as plain values."""
        return self.model_dump(mode="json", exclude=set(CHANGEABLE))


def resolve_train_job(
    kind: DataKind, store: str | os.PathLike[str] | UPath, out: str | os.PathLike[str], **options: Any
) -> TrainJob:
    """Fills what the user left open and checks the whole.

    Args:
        kind: ``splats`` or ``pixels``.
        store: of splats; for ``pixels`` one that holds the source images.
        out: folder of the run.
        options: fields of ``TrainJob``; None means "the default".

    Raises:
        JobError: a value outside its range, an unknown name or option, or options that exclude each other.
        StoreError: a URL that cannot be used.
    """
    from models.registry import model_named

    given = {key: value for key, value in options.items() if value is not None}
    name = str(given.setdefault("model", DEFAULT_MODEL[kind]))
    entry = model_named(name)
    if entry.kind != kind:
        raise JobError(
            f"train {kind} with model {name}, which makes {entry.kind}",
            allowed=DEFAULT_MODEL[kind],
            next_step=f"splatspace train {entry.kind} --model {name}",
        )
    if name in ("splatdit", "render-dit") and given.get("preset") == "tiny":
        given.setdefault("learning_rate", TINY_LEARNING_RATE)
    if entry.draws:
        given["objective_changes"] = {**drawn_losses(given.get("changes", {})), **given.get("objective_changes", {})}
    if name == "published":
        given = {"objective": "published", "learning_rate": 1e-3, "normalisation": "minmax", **given}
    if name == "published" and given.get("covariance") is None:
        given["covariance"] = "raw"
    try:
        job = TrainJob(kind=kind, store=location(store), out=Path(out), **given)
    except ValidationError as error:
        raise job_error(error, "train") from None
    if job.evaluations is not None and job.distil is None:
        raise JobError(
            f"--evaluations {job.evaluations} without --distil",
            allowed="both, or neither",
            next_step="a training serves any number of evaluations: give it to splatspace sample, or give --distil RUN",
        )
    if job.objective not in OBJECTIVES:
        raise JobError(f"Objective {job.objective!r}", allowed=", ".join(OBJECTIVES))
    if job.preset not in entry.presets:
        raise JobError(f"Preset {job.preset!r} of {name}", allowed=", ".join(entry.presets))
    if job.classes and not entry.takes_labels:
        raise JobError(f"--classes with model {name}", allowed="--no-classes", next_step="choose another model")
    if kind == "pixels" and (job.render_loss or job.order != "auto"):
        raise JobError("--render-loss or --order of pixels", allowed="train splats", next_step="leave it out")
    if entry.draws and (job.render_loss or job.order != "auto" or "covariance" in given or "pack" in job.changes):
        raise JobError(
            f"--render-loss, --order, --covariance or --pack with model {name}",
            allowed="none of them: it learns from pixels, its loss is on its rendering, and its slots are the store's",
            next_step="leave them out, or give --model splatdit, which learns from the numbers of the splats",
        )
    if kind == "splats" and (job.perceptual != "none" or job.flip):
        raise JobError("--perceptual or --flip of splats", allowed="train pixels", next_step="use --render-loss")
    if entry.clean_only:
        _require_clean_images(job)
    return job


def _require_clean_images(job: TrainJob) -> None:
    """Refuses what a model whose prediction is a drawing cannot predict.

    Raises:
        JobError: an objective that asks for noise or a velocity, or features of another range than an image's.
    """
    other = "give another --head" if job.kind == "pixels" else "give --model splatdit, which answers with numbers"
    if OBJECTIVES[job.objective].target != "clean":
        raise JobError(
            f"--objective {job.objective} with model {job.model}, whose prediction is a drawing of the clean image",
            allowed=", ".join(name for name, objective in OBJECTIVES.items() if objective.target == "clean"),
            next_step=f"leave --objective out, or {other}",
        )
    if job.normalisation not in (None, "minmax"):
        raise JobError(
            f"--normalisation {job.normalisation} with model {job.model}, whose prediction is drawn in [-1, 1]",
            allowed="minmax, its own",
            next_step=f"leave --normalisation out, or {other}",
        )
