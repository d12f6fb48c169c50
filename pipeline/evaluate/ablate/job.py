"""What an ablation is asked to do: a base configuration, and one choice at a time that differs from it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from data_schemas.errors import JobError
from data_schemas.locations import LocationField, location
from data_schemas.records import StoreHeader
from data_schemas.splats import StartName
from models.diffusion.objective_settings import OBJECTIVES
from models.features.covariance import COVARIANCE_FORMS
from models.features.normalisation import NORMALISATIONS
from models.networks.trunk import default_pack
from pipeline.evaluate.features import FeatureName
from pipeline.options import job_error
from pipeline.train.job import RENDER_LOSS_WEIGHT, TrainJob, resolve_train_job

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

_STARTS = (*get_args(StartName), ANCHORED)
_EMA = ("yes", "no")

Value = int | float | str


class AblateJob(BaseModel):
    """Everything that one ablation needs; frozen and printable as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    store: LocationField = Field(description="the base store of splats, with its source images")
    out: Path = Field(description="folder of everything that the ablation makes")
    axes: dict[AxisName, tuple[Value, ...]] = Field(
        default_factory=dict, description="values of each axis; empty: every axis with the values of default_axes"
    )
    model: str = ABLATED
    preset: Literal["tiny", "small", "medium", "full"] = "tiny"
    steps: int = Field(default=2000, ge=1, le=100_000_000)
    batch: int = Field(default=64, ge=1, le=1_000_000)
    learning_rate: float | None = Field(default=None, gt=0, le=1, description="None: as train has it")
    limit: int | None = Field(default=None, ge=1, description="first finished images of the store only")
    seeds: int = Field(default=1, ge=1, le=100, description="trainings of each point")
    device: str = "auto"
    images: int | None = Field(default=None, ge=1, description="of each set that is compared; None: as evaluate has it")
    evaluations: int | None = Field(default=None, ge=1, description="of the network; None: the objective's")
    features: FeatureName = "auto"
    workers: int | None = Field(default=None, ge=1, description="of the encoder; None: every processor")

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
    "start": (_one_of(_STARTS), ", ".join(_STARTS)),
    "pack": (_whole, "whole numbers from 1"),
    "objective": (_one_of(tuple(OBJECTIVES)), ", ".join(OBJECTIVES)),
    "normalisation": (_one_of(NORMALISATIONS), ", ".join(NORMALISATIONS)),
    "covariance": (_one_of(COVARIANCE_FORMS), ", ".join(COVARIANCE_FORMS)),
    "evaluations": (_whole, "whole numbers from 1"),
    "render_loss": (_weight, "numbers from 0"),
    "ema": (_one_of(_EMA), ", ".join(_EMA)),
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


def default_axes(job: AblateJob, header: StoreHeader) -> dict[AxisName, tuple[Value, ...]]:
    """Values of every axis that the model and the store have, where the user names none."""
    count = header.gaussians
    packs = {1, default_pack(count), 2 * default_pack(count)}
    needless: set[AxisName] = set() if job.model == ABLATED else {"pack", "start"}
    if header.start is None:
        needless |= {"gaussians", "start"}
    values: dict[AxisName, tuple[Value, ...]] = {
        "gaussians": tuple(sorted({max(1, count // 2), count, count * 3 // 2})),
        # The starts of a refined fit are foretold; there is none from adaptive ones.
        "start": tuple(name for name in _STARTS if header.refine is None or not name.startswith("adaptive")),
        "pack": tuple(sorted(pack for pack in packs if pack <= count)),
        "objective": tuple(name for name in OBJECTIVES if name != "published"),
        "normalisation": NORMALISATIONS,
        "covariance": COVARIANCE_FORMS,
        "evaluations": (5, 10, 20, 50),
        "render_loss": (0.0, RENDER_LOSS_WEIGHT),
        "ema": _EMA,
    }
    return {axis: found for axis, found in values.items() if axis not in needless}


def base_values(job: AblateJob, header: StoreHeader) -> dict[AxisName, Value]:
    """Where the base configuration stands on each axis."""
    planned = train_job(job, Point(BASE, "", 0), job.store)
    return {
        "gaussians": header.gaussians,
        "start": header.start or "unknown",
        "pack": default_pack(header.gaussians),
        "objective": planned.objective,
        "normalisation": planned.normalisation or "whitened",
        "covariance": planned.covariance,
        "evaluations": job.evaluations or OBJECTIVES[planned.objective].evaluations,
        "render_loss": 0.0,
        "ema": "yes",
    }


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


def points_of(job: AblateJob, header: StoreHeader, base: Mapping[AxisName, Value]) -> list[Point]:
    """Every training, the base first; values that the base has are not trained again.

    Args:
        job: with its axes filled in.
        header: of the base store.
        base: from ``base_values``.
    """
    choices: list[tuple[PointName, Value]] = [(BASE, "")]
    for axis, values in job.axes.items():
        if axis != "evaluations":  # the base is sampled with each of them
            choices.extend((axis, value) for value in values if value != base[axis])
    points = []
    for axis, value in choices:
        start = next(
            (name for name in get_args(StartName) if axis == "start" and name == str(value).split("+")[0]), None
        )
        points += [
            Point(
                axis,
                value,
                seed,
                gaussians=int(value) if axis == "gaussians" else None,
                start=None if start == header.start else start,
            )
            for seed in range(job.seeds)
        ]
    return points


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
    store: str | os.PathLike[str] | UPath, out: str | os.PathLike[str], *, axes: Sequence[str] = (), **options: Any
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
        job = AblateJob(store=location(store), out=Path(out), axes=axes_of(axes), **given)
    except ValidationError as error:
        raise job_error(error, "ablate") from None
    train_job(job, Point(BASE, "", 0), job.store)
    return job
