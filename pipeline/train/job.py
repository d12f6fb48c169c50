"""What one training is asked to do."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from data_schemas.errors import JobError
from data_schemas.locations import LocationField, location
from models.base import DataKind
from models.diffusion.objective_settings import OBJECTIVES
from models.features.covariance import checked_form
from models.features.normalisation import checked_normalisation
from models.registry import model_named
from pipeline.options import job_error
from pipeline.train.losses import PerceptualName

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


class TrainJob(BaseModel):
    """Everything that one training needs; frozen, picklable and printable as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: DataKind = "splats"
    store: LocationField = Field(description="the store of finished splats, or of images for pixels")
    out: Path = Field(description="the run's folder")
    model: str = Field(description="a name of models.registry.MODELS")
    preset: Literal["tiny", "small", "medium", "full"] = "small"
    changes: dict[str, Any] = Field(default_factory=dict, description="fields of the preset that differ, as pack")
    objective: str = "flow-clean"
    objective_changes: dict[str, Any] = Field(default_factory=dict, description="fields of ObjectiveSettings")
    covariance: str = "matrix_log"
    normalisation: str | None = Field(default=None, description="whitened or minmax; None: by model")
    order: OrderName = "auto"
    classes: bool | None = Field(default=None, description="condition on labels; None: where model and store can")
    limit: int | None = Field(default=None, ge=1, description="first finished images only")
    steps: int = Field(default=10_000, ge=1, le=MOST_STEPS)
    batch: int = Field(default=64, ge=1, le=1_000_000)
    learning_rate: float = Field(default=1e-3, gt=0, le=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warm_up: int | None = Field(default=None, ge=0, description="steps; None: 500, at most a tenth of all")
    clip: float = Field(default=1.0, ge=0, description="largest norm of a gradient; 0: any")
    constant_rate: bool = Field(default=False, description="the learning rate does not fall after warm-up")
    second_moment: float = Field(default=0.99, gt=0, lt=1, description="decay of AdamW's mean of squares")
    ema: bool = Field(default=True, description="sample from the mean of the weights")
    render_loss: float = Field(default=0.0, ge=0, description="weight of the loss in image space, of splats")
    perceptual: PerceptualName = Field(default="none", description="a loss on how predictions look, of pixels")
    perceptual_weight: float = Field(default=0.1, ge=0)
    lpips_weights: Path | None = Field(default=None, description="VGG16's weights or their folder; None: the cache")
    flip: float = Field(default=0.0, ge=0, le=1, description="share of images that are mirrored, of pixels")
    distinct: bool = Field(default=False, description="leave out rows whose pixels an earlier row has")
    held_out: float = Field(default=0.0, ge=0, lt=1, description="share of images kept apart for evaluation")
    seed: int = Field(default=0, ge=0, lt=2**63)
    device: str = "auto"
    devices: int = Field(default=1, ge=1)
    nodes: int = Field(default=1, ge=1)
    precision: PrecisionName = "auto"
    compile: bool = False
    every: int | None = Field(default=None, ge=1, description="steps between checkpoints; None: a tenth of all")
    latents: int | None = Field(default=None, ge=1, description="most MiB of latents in memory; more are streamed")

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
        given["objective_changes"] = {**DRAWN_LOSSES, **given.get("objective_changes", {})}
    if name == "published":
        given = {"objective": "published", "learning_rate": 1e-3, "normalisation": "minmax", **given}
    if name == "published" and given.get("covariance") is None:
        given["covariance"] = "raw"
    try:
        job = TrainJob(kind=kind, store=location(store), out=Path(out), **given)
    except ValidationError as error:
        raise job_error(error, "train") from None
    if job.objective not in OBJECTIVES:
        raise JobError(f"Objective {job.objective!r}", allowed=", ".join(OBJECTIVES))
    if job.preset not in entry.presets:
        raise JobError(f"Preset {job.preset!r} of {name}", allowed=", ".join(entry.presets))
    checked_form(job.covariance)
    if job.normalisation is not None:
        checked_normalisation(job.normalisation)
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
    return job
