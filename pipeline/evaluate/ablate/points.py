"""Which trainings an ablation is: values of its axes, where the base stands on each, a point for every other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from data_schemas.records import StoreHeader
from data_schemas.splats import StartName
from models.diffusion.objective_settings import OBJECTIVES
from models.features.covariance import COVARIANCE_FORMS
from models.features.normalisation import NORMALISATIONS
from models.networks.trunk import default_pack
from models.registry import model_named
from pipeline.evaluate.ablate.job import (
    ABLATED,
    BASE,
    EMA,
    STARTS,
    AblateJob,
    AxisName,
    Point,
    PointName,
    Value,
    train_job,
)
from pipeline.train.job import RENDER_LOSS_WEIGHT


def default_axes(job: AblateJob, header: StoreHeader) -> dict[AxisName, tuple[Value, ...]]:
    """Values of every axis that the model and the store have, where the user names none."""
    count = header.gaussians
    packs = {1, default_pack(count), 2 * default_pack(count)}
    needless: set[AxisName] = set() if job.model == ABLATED else {"pack", "start"}
    if model_named(job.model).clean_only:  # its prediction is a drawing of the clean image, and so is its loss
        needless |= {"objective", "normalisation", "covariance", "render_loss"}
    if header.start is None:
        needless |= {"gaussians", "start"}
    values: dict[AxisName, tuple[Value, ...]] = {
        "gaussians": tuple(sorted({max(1, count // 2), count, count * 3 // 2})),
        # The starts of a refined fit are predicted; there is none from adaptive ones.
        "start": tuple(name for name in STARTS if header.refine is None or not name.startswith("adaptive")),
        "pack": tuple(sorted(pack for pack in packs if pack <= count)),
        "objective": tuple(name for name in OBJECTIVES if name != "published"),
        "normalisation": NORMALISATIONS,
        "covariance": COVARIANCE_FORMS,
        "evaluations": (5, 10, 20, 50),
        "render_loss": (0.0, RENDER_LOSS_WEIGHT),
        "ema": EMA,
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
        "normalisation": planned.normalisation or ("whitened" if model_named(job.model).sees == "splats" else "minmax"),
        "covariance": planned.covariance,
        "evaluations": job.evaluations or OBJECTIVES[planned.objective].evaluations,
        "render_loss": 0.0,
        "ema": "yes",
    }


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
