"""What an ablation is asked to do: a base configuration, and one choice at a time that differs from it.

Light to import: the command line makes its options from the fields.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_schemas.errors import JobError
from data_schemas.locations import LocationField, location
from data_schemas.splats import StartName
from models.diffusion.objective_settings import OBJECTIVES
from models.names import CovarianceForm, Normalisation, PresetName
from pipeline.evaluate.job import FeatureName, NumberOfEvaluations
from pipeline.options import DeviceName, Option, PathText, job_error
from pipeline.train.job import MOST_STEPS, TrainJob, resolve_train_job

if TYPE_CHECKING:
    from upath import UPath

AxisName = Literal[
    "gaussians", "start", "pack", "objective", "normalisation", "covariance", "evaluations", "render_loss", "ema"
]
AXES: tuple[AxisName, ...] = get_args(AxisName)
PointName = AxisName | Literal["base"]

BASE: Literal["base"] = "base"
MOST_VALUES = 64

ABLATED = "splatdit"
"""The generator whose choices are studied: it learns from the numbers of splats, which most of them decide."""

ANCHORED = "adaptive+anchors"
"""A start without slot identity whose Gaussians are assigned to anchors after the fit: second best."""

STARTS = (*get_args(StartName), ANCHORED)
EMA = ("yes", "no")

Value = int | float | str


class AblateJob(BaseModel):
    """Everything that one ablation needs; frozen and printable as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: Annotated[
        LocationField,
        Field(description="The base store of splats, with its source images."),
        Option(flags=("--store", "-s"), given=PathText),
    ]
    out: Annotated[
        Path,
        Field(description="Folder of the ablation; run again, it continues."),
        Option(flags=("--out", "-o")),
    ]
    axes: Annotated[
        dict[AxisName, tuple[Value, ...]],
        Field(
            description="gaussians, start, pack, objective, normalisation, covariance, evaluations, render_loss or "
            "ema, with its values; may be repeated."
        ),
        Option(
            flags=("--axis",),
            metavar="NAME[=A,B]",
            open=True,
            default="all",
            given=list[str],
            parameter=Annotated[str, Field(min_length=1)],
        ),
    ] = Field(default_factory=dict)
    model: Annotated[str, Field(min_length=1, description="Model of the base."), Option(open=True)] = ABLATED
    preset: Annotated[PresetName, Field(description="Size of the model."), Option(open=True)] = "tiny"
    steps: Annotated[
        int, Field(ge=1, le=MOST_STEPS, description="Optimiser steps of each training."), Option(open=True)
    ] = 2000
    batch: Annotated[int, Field(ge=1, le=1_000_000, description="Images per step."), Option(open=True)] = 64
    learning_rate: Annotated[
        float | None,
        Field(gt=0, le=1, description="Peak of the learning rate."),
        Option(default="as in train"),
    ] = None
    limit: Annotated[int | None, Field(ge=1, description="Learn from the first N finished images only."), Option()] = (
        None
    )
    seeds: Annotated[int, Field(ge=1, le=100, description="Number of trainings of each point."), Option(open=True)] = 1
    images: Annotated[
        int | None,
        Field(ge=1, description="Number of images of each set that is compared."),
        Option(flags=("--images", "-n"), default="as in evaluate"),
    ] = None
    evaluations: Annotated[
        NumberOfEvaluations | None,
        Field(description="Number of function evaluations (NFE) per image."),
        Option(given=NumberOfEvaluations, default="the objective's"),
    ] = None
    features: Annotated[
        FeatureName, Field(description="Features in which distances are measured."), Option(open=True)
    ] = "auto"
    device: Annotated[
        str, Field(description="Device: auto, cpu, cuda or mps."), Option(open=True, parameter=DeviceName)
    ] = "auto"
    workers: Annotated[
        int | None,
        Field(ge=1, description="Threads of the encoder, where stores are made."),
        Option(default="one per CPU"),
    ] = None

    def deciding(self) -> dict[str, Any]:
        """What decides the points that are there already; axes, values and seeds may be added later."""
        return self.model_dump(mode="json", exclude={"store", "out", "axes", "seeds", "device", "workers"})


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _weight(text: str) -> float:
    number = float(text)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def _one_of(allowed: Sequence[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in allowed:
            raise ValueError
        return text

    return read


_READERS: dict[AxisName, tuple[Callable[[str], Value], str]] = {
    "gaussians": (_whole, "whole numbers from 1"),
    "start": (_one_of(STARTS), ", ".join(STARTS)),
    "pack": (_whole, "whole numbers from 1"),
    "objective": (_one_of(tuple(OBJECTIVES)), ", ".join(OBJECTIVES)),
    "normalisation": (_one_of(get_args(Normalisation)), ", ".join(get_args(Normalisation))),
    "covariance": (_one_of(get_args(CovarianceForm)), ", ".join(get_args(CovarianceForm))),
    "evaluations": (_whole, "whole numbers from 1"),
    "render_loss": (_weight, "numbers from 0"),
    "ema": (_one_of(EMA), ", ".join(EMA)),
}


def axes_of(texts: Sequence[str]) -> dict[AxisName, tuple[Value, ...]]:
    """Axes from what a user types: ``pack=1,2,4``, or a name alone for the values by default.

    Raises:
        JobError: an unknown axis or value, or an axis twice.
    """
    found: dict[AxisName, tuple[Value, ...]] = {}
    for text in texts:
        given, separator, listed = text.strip().partition("=")
        name: AxisName | None = next((axis for axis in AXES if axis == given.strip()), None)
        if name is None:
            raise JobError(f"Axis {given!r}", allowed=", ".join(AXES), next_step="for instance pack=1,2,4")
        if name in found:
            raise JobError(f"Axis {name} twice", next_step=f"name all its values at once: {name}=A,B")
        read, allowed = _READERS[name]
        parts = [part.strip() for part in listed.split(",") if part.strip()]
        if bool(separator) != bool(parts) or len(parts) > MOST_VALUES:
            raise JobError(f"Axis {text!r}", allowed=f"{name}=A,B with 1 to {MOST_VALUES} values: {allowed}")
        try:
            found[name] = tuple(dict.fromkeys(read(part) for part in parts))
        except ValueError:
            raise JobError(f"Axis {text!r}", allowed=f"{allowed}", next_step=f"give {name}=A,B") from None
    return found


@dataclass(frozen=True)
class Point:
    """One training of the ablation.

    Attributes:
        axis: what differs from the base; ``base`` for the base itself.
        value: of that axis.
        seed: of the training.
        gaussians: K of the store, where the base store has another.
        start: of the store, where the base store has another.
    """

    axis: PointName
    value: Value
    seed: int
    gaussians: int | None = None
    start: StartName | None = None

    @property
    def name(self) -> str:
        """Of its folder."""
        return BASE if self.axis == BASE else f"{self.axis}={self.value}"

    @property
    def folder(self) -> Path:
        """Inside the ablation's folder."""
        return Path("points", self.name, f"seed-{self.seed}")


def train_job(job: AblateJob, point: Point, store: str | os.PathLike[str] | UPath) -> TrainJob:
    """The training of a point.

    Args:
        job: of the ablation.
        point: which one.
        store: the base store, or the variant that the point needs.

    Raises:
        JobError: a choice that the model does not take.
    """
    options: dict[str, Any] = {}
    if point.axis == "pack":
        options["changes"] = {"pack": point.value}
    elif point.axis == "start":
        # Without slot identity the order is taken as it is: that is what is to be shown.
        options["order"] = "anchors" if point.value == ANCHORED else "stored"
    elif point.axis == "ema":
        options["ema"] = point.value == "yes"
    elif point.axis in ("objective", "normalisation", "covariance", "render_loss"):
        options[point.axis] = point.value
    return resolve_train_job(
        "splats",
        store,
        job.out / point.folder / "run",
        model=job.model,
        preset=job.preset,
        steps=job.steps,
        batch=job.batch,
        learning_rate=job.learning_rate,
        limit=job.limit,
        seed=point.seed,
        device=job.device,
        every=job.steps if job.steps < 1000 else None,
        **options,
    )


def resolve_ablate_job(
    store: str | os.PathLike[str] | UPath,
    out: str | os.PathLike[str],
    *,
    axes: Sequence[str] | None = None,
    **options: Any,
) -> AblateJob:
    """Fills what the user left open and checks the whole.

    Args:
        store: of splats, with its source images.
        out: folder.
        axes: as ``axes_of`` reads them; none: all.
        options: fields of ``AblateJob``; None means "the default".

    Raises:
        JobError: a value outside its range, or an unknown axis, value or model.
    """
    given = {key: value for key, value in options.items() if value is not None}
    try:
        job = AblateJob(store=location(store), out=Path(out), axes=axes_of(axes or ()), **given)
    except ValidationError as error:
        raise job_error(error, "ablate") from None
    train_job(job, Point(BASE, "", 0), job.store)
    return job
