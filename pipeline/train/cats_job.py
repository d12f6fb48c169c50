"""Trainings of the patch models: what a head and a recipe mean in the terms of ``TrainJob``."""

from __future__ import annotations

import os
from typing import Any, cast, get_args

from upath import UPath

from data_schemas.errors import JobError
from models.names import HeadName, RecipeName, model_name
from models.patches.model import HEADS, RECIPES
from pipeline.train.job import TrainJob, resolve_train_job

HELD_OUT = 0.1
"""Share of images that no patch model learns from unless told to: memorising cannot be measured without them."""

_SHARED: dict[str, Any] = {"distinct": True, "held_out": HELD_OUT}

RECIPE_DEFAULTS: dict[RecipeName, dict[str, Any]] = {
    # As published: plain loss at uniform noise levels, LPIPS where its weights are there, a constant rate of learning
    # without warm-up or clipping, raw weights sampled, a quarter of the images mirrored.
    "published": {
        **_SHARED,
        "objective_changes": {
            "times": "uniform",
            "loss_space": "clean",
            "image_loss_from": 0.0,
            "group_times": 0.0,
            "label_drop": 0.0,
            "sampler": "euler",
            "evaluations": 64,
        },
        "learning_rate": 3e-4,
        "constant_rate": True,
        "warm_up": 0,
        "clip": 0.0,
        "second_moment": 0.999,
        "ema": False,
        "flip": 0.25,
        "perceptual": "lpips-if-there",
        "perceptual_weight": 1.0,
    },
    "modern": {
        **_SHARED,
        "objective_changes": {
            "time_mean": 0.0,
            "group_times": 0.0,
            "image_loss_from": 0.3,
            "sampler": "heun",
            "evaluations": 49,
        },
        "learning_rate": 1e-3,
        "flip": 0.5,
        "perceptual": "gradient",
        "perceptual_weight": 0.5,
    },
}

PUBLISHED_RATES: dict[HeadName, float] = {"splats": 1e-4}
"""Where the published rate of learning is another than 3e-4."""


def cats_options(head: str, recipe: str, options: dict[str, Any]) -> dict[str, Any]:
    """Fields of ``TrainJob`` for a head and a recipe.

    Args:
        head: ``kpn``, ``lut``, ``outer`` or ``splats``.
        recipe: ``published`` or ``modern``.
        options: fields that the user gave; they win over the recipe's. Those inside ``objective_changes`` too.

    Raises:
        JobError: an unknown head or recipe, or a model besides them.
    """
    for name, value, allowed in (("head", head, HEADS), ("recipe", recipe, RECIPES)):
        if value not in allowed:
            raise JobError(f"--{name} {value}", allowed=", ".join(allowed))
    if options.get("model") is not None:
        raise JobError(f"--model {options['model']} with train cats", allowed="--head and --recipe")
    chosen_head, chosen_recipe = cast(HeadName, head), cast(RecipeName, recipe)
    result = {**RECIPE_DEFAULTS[chosen_recipe], "model": model_name(chosen_head, chosen_recipe)}
    if chosen_recipe == "published":
        result["learning_rate"] = PUBLISHED_RATES.get(chosen_head, result["learning_rate"])
    given = {name: value for name, value in options.items() if value is not None}
    changes = {**result["objective_changes"], **given.pop("objective_changes", {})}
    return {**result, **given, "objective_changes": changes}


def resolve_cats_job(
    store: str | os.PathLike[str] | UPath,
    out: str | os.PathLike[str],
    *,
    head: str,
    recipe: str = "modern",
    **options: Any,
) -> TrainJob:
    """The training of a patch model.

    Args:
        store: one that holds the source images.
        out: folder of the run.
        head: see :func:`cats_options`.
        recipe: see :func:`cats_options`.
        options: fields of ``TrainJob``; None means "as the recipe says".

    Raises:
        JobError: see :func:`cats_options` and ``resolve_train_job``.
        StoreError: a URL that cannot be used.
    """
    return resolve_train_job("pixels", store, out, **cats_options(head, recipe, options))


def head_of(model: str) -> tuple[HeadName, RecipeName] | None:
    """Head and recipe of a model's name; None for other models."""
    names = {model_name(head, recipe): (head, recipe) for head in get_args(HeadName) for recipe in get_args(RecipeName)}
    return names.get(model)
