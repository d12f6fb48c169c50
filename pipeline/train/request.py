"""What somebody asks to be trained, at a terminal or in a flow, as a job: begun or continued."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from upath import UPath

from data_schemas.errors import JobError
from data_schemas.locations import location
from models.base import DataKind
from models.names import HeadName, RecipeName, model_name
from models.patches.model import HEADS
from pipeline.options import whole_number
from pipeline.train.cats_job import head_of, resolve_cats_job
from pipeline.train.distil import resolve_distillation
from pipeline.train.job import KindName, TrainJob, resolve_train_job
from pipeline.train.state import continue_job, read_recorded_job, run_folder


def resolve_request(
    kind: KindName,
    store: str | os.PathLike[str] | UPath | None,
    out: str | os.PathLike[str],
    *,
    head: HeadName | None = None,
    recipe: RecipeName | None = None,
    pack: int | None = None,
    pool: int | None = None,
    settings: Iterable[str] | None = None,
    resume: bool = False,
    **options: Any,
) -> TrainJob:
    """The job that is meant.

    Args:
        kind: what to train.
        store: to learn from; needed unless a training goes on or a run is distilled.
        out: folder of the run.
        head: of a patch model.
        recipe: of a patch model; None is modern.
        pack: Gaussians per token.
        pool: side of the squares of pixels whose means are looked at.
        settings: other fields of the preset, as ``entries=64``.
        resume: go on with the training in ``out``: options may only repeat what it began with, ``steps`` may grow.
        options: fields of ``TrainJob``; None means "the default".

    Raises:
        JobError: options that exclude each other, or that differ from those of the training that is continued.
        CheckpointError: there is no training to continue.
        StoreError: a URL that cannot be used.
    """
    out = Path(out)
    options["changes"] = _changes({"pack": pack, "pool": pool}, settings or ())
    if kind != "cats" and (head or recipe):
        raise JobError(f"--head or --recipe with train {kind}", allowed="train cats", next_step="leave them out")
    if resume:
        data: DataKind = "pixels" if kind == "cats" else kind
        if options.get("distil") is not None:
            options["distil"] = str(run_folder(Path(options["distil"])))
        given = {"kind": data, "store": None if store is None else location(store), **options}
        if head is not None or recipe is not None:
            given["model"] = _choose_continued_model(out, head, recipe)
        return continue_job(out, given)
    if options.get("distil") is not None:
        if head or recipe:
            raise JobError("--head or --recipe with --distil", allowed="neither", next_step="the run's are taken")
        return resolve_distillation(kind, store, out, **options)
    if store is None:
        raise JobError("train without --store", allowed="a store", next_step="give --store NAME.zarr, or --resume")
    if kind != "cats":
        return resolve_train_job(kind, store, out, **options)
    if head is None:
        raise JobError("train cats without --head", allowed=", ".join(HEADS), next_step="give --head splats")
    return resolve_cats_job(store, out, head=head, recipe=recipe or "modern", **options)


def _choose_continued_model(out: Path, head: HeadName | None, recipe: RecipeName | None) -> str:
    """The model that head and recipe name; what is left out is that of the training which is continued.

    Raises:
        CheckpointError: there is no training to continue.
        JobError: it is no training of a patch model.
    """
    recorded = str(read_recorded_job(out)["model"])
    began = head_of(recorded)
    if began is None:
        raise JobError(
            f"--head or --recipe for a training of {recorded}", allowed="neither", next_step="leave them out"
        )
    return model_name(head or began[0], recipe or began[1])


def _changes(given: dict[str, Any], settings: Iterable[str]) -> dict[str, Any] | None:
    """Fields of the preset that were given, with numbers as numbers; None where there are none."""
    changes = {name: value for name, value in given.items() if value is not None}
    for text in settings:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise JobError(f"--set {text}", allowed="NAME=VALUE, as in entries=64")
        changes[name] = _number(value)
    return changes or None


def _number(text: str) -> int | float | str:
    """A text as a number, if it is one that can be computed with."""
    whole = whole_number(text)
    if whole is not None:
        return whole
    try:
        number = float(text)
    except ValueError:
        return text
    return number if math.isfinite(number) else text
