"""What somebody asks to be trained, at a terminal or in a flow, as a job: begun or continued."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from upath import UPath

from data_schemas.errors import JobError
from data_schemas.locations import location
from models.base import DataKind
from models.patch_presets import HEADS, HeadName, RecipeName, model_name
from pipeline.generation.cats_job import resolve_cats_job
from pipeline.generation.jobs import TrainJob, resolve_train_job
from pipeline.generation.train_state import continued_job

KindName = Literal["splats", "pixels", "cats"]
"""What is trained; ``cats`` are patch models, which make pixels."""


def requested_job(
    kind: KindName,
    store: str | os.PathLike[str] | UPath | None,
    out: Path,
    *,
    head: HeadName | None = None,
    recipe: RecipeName | None = None,
    pack: int | None = None,
    settings: Iterable[str] = (),
    resume: bool = False,
    **options: Any,
) -> TrainJob:
    """The job that is meant.

    Args:
        kind: what to train.
        store: to learn from; needed unless a training goes on.
        out: folder of the run.
        head: of a patch model.
        recipe: of a patch model; None is modern.
        pack: Gaussians per token.
        settings: other fields of the preset, as ``entries=64``.
        resume: go on with the training in ``out``: options may only repeat what it began with, ``steps`` may grow.
        options: fields of ``TrainJob``; None means "the default".

    Raises:
        JobError: options that exclude each other, or that differ from those of the training that is continued.
        CheckpointError: there is no training to continue.
        StoreError: a URL that cannot be used.
    """
    options["changes"] = _changes(pack, settings)
    if kind != "cats" and (head or recipe):
        raise JobError(f"--head or --recipe with train {kind}", allowed="train cats", next_step="leave them out")
    if resume:
        data: DataKind = "pixels" if kind == "cats" else kind
        given = {"kind": data, "store": None if store is None else location(store), **options}
        if head is not None:
            given["model"] = model_name(head, recipe or "modern")
        return continued_job(out, given)
    if store is None:
        raise JobError("train without --store", allowed="a store", next_step="give --store NAME.zarr, or --resume")
    if kind != "cats":
        return resolve_train_job(kind, store, out, **options)
    if head is None:
        raise JobError("train cats without --head", allowed=", ".join(HEADS), next_step="give --head splats")
    return resolve_cats_job(store, out, head=head, recipe=recipe or "modern", **options)


def _changes(pack: int | None, settings: Iterable[str]) -> dict[str, Any] | None:
    """Fields of the preset that were given, with numbers as numbers; None where there are none."""
    changes: dict[str, Any] = {} if pack is None else {"pack": pack}
    for text in settings:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise JobError(f"--set {text}", allowed="NAME=VALUE, as in entries=64")
        changes[name] = value
        for kind in (int, float):
            with suppress(ValueError):
                changes[name] = kind(value)
                break
    return changes or None
