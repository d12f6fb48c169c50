"""The table of the cats' race and its sheet, made from finished runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.encode import markdown
from benchmarks.generation.tables import titled
from models.patches.model import HEADS, RECIPES, HeadName, RecipeName
from pipeline.evaluate.figures import Evaluation
from pipeline.images import below_each_other, grid_of, side_by_side
from pipeline.sample.draws import Settings, draw
from pipeline.sample.run import load_run
from pipeline.store_images import as_channels_last

SHEET_IMAGES, SHEET_COLUMNS = 18, 6

HEADINGS = (
    "head",
    "recipe",
    "seeds",
    "steps",
    "training, min",
    "evaluations",
    "FID",
    "KID",
    "nearest",
    "seams",
    "seams at 4x",
    "ms/image",
    "better in",
)


@dataclass(frozen=True)
class Finished:
    """A head that was trained with a recipe and a seed.

    Attributes:
        head: of the model.
        recipe: of its training.
        seed: of its training.
        run: folder.
        steps: of the training.
        core_seconds: that it took.
        evaluation: how good it is.
    """

    head: HeadName
    recipe: RecipeName
    seed: int
    run: Path
    steps: int
    core_seconds: float
    evaluation: Evaluation

    @property
    def fid(self) -> float:
        """Of the samples against originals that were held out."""
        return self.evaluation.headline.fid

    @property
    def kid(self) -> float:
        """Of the same."""
        return self.evaluation.headline.kid

    @property
    def nearest(self) -> float | None:
        """Median distance to the nearest image learned from, over that of originals that were held out."""
        return self.evaluation.neighbours.ratio

    @property
    def seams(self) -> float | None:
        """Of the samples, over those of originals on the same grid; None where either cannot be measured."""
        figures = self.evaluation.seams
        if figures is None or figures.generated is None or not figures.originals:
            return None
        return figures.generated / figures.originals

    @property
    def seams_enlarged(self) -> float | None:
        """Of samples that are drawn four times as large, where the head can."""
        return None if self.evaluation.seams is None else self.evaluation.seams.enlarged


def _from_one(value: float) -> float:
    """How far a ratio is from 1, above or below."""
    return abs(math.log(max(value, 1e-9)))


MEASURES: tuple[tuple[str, Callable[[Finished], float | None], Callable[[float], float], int], ...] = (
    ("FID", lambda run: run.fid, lambda value: value, 2),
    ("KID", lambda run: run.kid, lambda value: value, 2),
    # Below 1 samples are copies, above they are like no image.
    ("nearest", lambda run: run.nearest, _from_one, 3),
    ("seams", lambda run: run.seams, _from_one, 2),
    ("seams at 4x", lambda run: run.seams_enlarged, _from_one, 2),
)
"""Heading, figure, what of it is better the lower it is, and decimals."""


def _mean(runs: Sequence[Finished], figure: Callable[[Finished], float | None]) -> float | None:
    values = [value for run in runs if (value := figure(run)) is not None]
    return float(np.mean(values)) if values else None


def _shown(runs: Sequence[Finished], figure: Callable[[Finished], float | None], digits: int) -> str:
    """Mean, and the lowest and highest where they differ."""
    values = [value for run in runs if (value := figure(run)) is not None]
    if not values:
        return ""
    mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def better_in(mine: Sequence[Finished], other: Sequence[Finished]) -> list[str]:
    """Names of the measures in which the mean over the seeds beats that of the other recipe."""
    names = []
    for name, figure, cost, _ in MEASURES:
        one, two = _mean(mine, figure), _mean(other, figure)
        if one is not None and two is not None and cost(one) < cost(two):
            names.append(name)
    return names


def table(runs: Sequence[Finished]) -> str:
    """Every head with both recipes, as Markdown, with what a reader needs to judge it."""
    if not runs:
        return "Nothing has been trained and evaluated yet.\n"
    rows: list[list[str]] = [list(HEADINGS)]
    for head in HEADS:
        by_recipe = {recipe: [run for run in runs if (run.head, run.recipe) == (head, recipe)] for recipe in RECIPES}
        for recipe, mine in by_recipe.items():
            if not mine:
                continue
            other = next(found for name, found in by_recipe.items() if name != recipe)
            evaluation = mine[0].evaluation
            rows.append(
                [
                    head,
                    recipe,
                    ", ".join(str(run.seed) for run in mine),
                    f"{mine[0].steps:,}",
                    f"{np.mean([run.core_seconds for run in mine]) / 60:.1f}",
                    str(evaluation.cost.evaluations),
                    *(_shown(mine, figure, digits) for _, figure, _, digits in MEASURES),
                    f"{1e3 * np.mean([run.evaluation.cost.seconds_per_image for run in mine]):.1f}",
                    ", ".join(better_in(mine, other)) if other else "no other to compare with",
                ]
            )
    first = runs[0].evaluation
    facts, floor = first.generator.facts, first.real_floor
    note = (
        f"Preset {facts['preset']}, {first.reference.height}x{first.reference.width}, "
        f"{facts['images learned from']:,} images learned from, batches of {facts['batch']}; "
        f"{first.headline.n:,} samples against as many originals in {first.features.label}. Originals against other "
        f"originals: FID {floor.fid:.2f}, KID {floor.kid:.2f}. Seams: of samples over originals on the same grid."
    )
    return f"{markdown(rows)}\n\n{note}\n"


def write_sheet(path: Path, runs: Sequence[Finished]) -> None:
    """The first samples of every head and recipe, the recipes beside each other."""
    lines: list[Image.Image] = []
    for head in HEADS:
        panels = []
        for recipe in RECIPES:
            found = next((run for run in runs if (run.head, run.recipe) == (head, recipe)), None)
            if found is not None:
                panels.append(_panel(found))
        if panels:
            lines.append(side_by_side(panels, gap=8))
    path.parent.mkdir(parents=True, exist_ok=True)
    below_each_other(lines).save(path, optimize=True)


def _panel(found: Finished) -> Image.Image:
    run = load_run(found.run, device="cpu")
    evaluations = found.evaluation.cost.evaluations
    settings = Settings(run.objective.settings.sampler, evaluations, 1.0, 0, SHEET_IMAGES)
    drawn = draw(run, settings, None, SHEET_IMAGES, lambda _done: None)
    grid, _ = grid_of(as_channels_last(drawn.images), columns=SHEET_COLUMNS, smallest=1)
    grid = grid.resize((grid.width * 2, grid.height * 2), Image.Resampling.NEAREST)
    return titled(grid, f"{found.head}, {found.recipe}, {found.steps:,} steps")
