"""The tables of docs/results.md about generators, made from finished runs and from counted operations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from benchmarks.encode import markdown
from models.base import DataSpec
from models.patches.model import HEADS
from models.registry import ModelCost, PresetName, measure_model
from pipeline.evaluate.figures import Scores
from pipeline.images import grid_of, side_by_side
from pipeline.sample.draws import Settings, draw
from pipeline.sample.fit import sample_fit
from pipeline.sample.run import load_run
from pipeline.store_images import as_channels_last

if TYPE_CHECKING:
    from benchmarks.generation.__main__ import Finished

OURS, PUBLISHED, UNET, DIT = "splatdit", "published", "pixel-unet", "pixel-dit"
RENDER, FEW_EVALUATIONS = "render-dit", 4
DISTILLED = "render-dit-4"
"""``render-dit``, distilled to ``FEW_EVALUATIONS``."""

FIT = "pixel-dit + fit"
"""The samples of ``pixel-dit``, to which Gaussians are fitted."""

SPLATS = DataSpec("splats", gaussians=150, features=8)
PIXELS = DataSpec("pixels", height=32, width=32, channels=3)

PUBLISHED_EVALUATIONS, OUR_EVALUATIONS, UNET_EVALUATIONS = 200, 20, 1000
"""Of the network per sample; those of the U-Net are what the published comparison gave it."""

CLAIMED_PARAMETERS, CLAIMED_GFLOP, CLAIMED_TFLOP, CLAIMED_UNET_GFLOP = "~40 M", "4.0", "0.80", "11.4 x 1000"

MOST_FID_RATIO, LEAST_RECALL, MOST_GFLOP, MOST_SMALL_GFLOP = 0.25, 0.6, 3.8, 0.65
MOST_TFLOP, MOST_TIME_RATIO, MOST_UNET_RATIO = 0.08, 1 / 50, 1.0
MOST_FIT_RATIO, MOST_FIT_TIME = 1.02, 0.25
MOST_RENDER_RATIO, LEAST_PRECISION_RATIO, MOST_FEW, MOST_STEP_RATIO = 1.2, 0.95, 1.3, 1.1
MOST_HEAD_RATIO = 1.0
"""The targets."""

SCORES_HEAD = (
    "contender",
    "seeds",
    "steps",
    "training, core-min",
    "evaluations",
    "FID",
    "KID",
    "precision",
    "recall",
    "coverage",
    "nearest",
    "GFLOP/step",
    "TFLOP/sample",
    "core-ms/image",
)

SHEET_IMAGES, SHEET_COLUMNS = 36, 6


@cache
def cost(model: str, preset: PresetName) -> ModelCost:
    """Parameters and GFLOP of a model on 32 x 32 colour images or their 150 Gaussians, counted on the meta device."""
    return measure_model(model, preset, PIXELS if model.startswith("pixel") else SPLATS)


def _of(runs: Sequence[Finished], contender: str) -> list[Finished]:
    return [run for run in runs if run.contender == contender]


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean, and the lowest and highest where they differ."""
    mean, low, high = (f"{value:.{digits}f}" for value in (np.mean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"


def scored(run: Finished) -> tuple[Scores, ...]:
    """The scores of a contender by number of evaluations, greatest last: that one of its splats where it has some.

    With fewer evaluations only what was sampled is measured, before any fit.
    """
    generated, fitted = run.evaluation.generated, run.evaluation.fitted
    if fitted is None:
        return generated
    return (*(scores for scores in generated if scores.evaluations != fitted.scores.evaluations), fitted.scores)


def _scores(run: Finished, evaluations: int | None) -> Scores | None:
    """The scores at a number of evaluations; None takes that of the contender."""
    wanted = run.evaluation.cost.evaluations if evaluations is None else evaluations
    return next((scores for scores in scored(run) if scores.evaluations == wanted), None)


def _mean(runs: Sequence[Finished], contender: str, score: str, evaluations: int | None = None) -> float | None:
    found = [_scores(run, evaluations) for run in _of(runs, contender)]
    values = [float(getattr(scores, score)) for scores in found if scores is not None]
    return float(np.mean(values)) if values else None


def timed_name(contender: str, evaluations: int) -> str:
    """Under which the time of an image is kept."""
    return f"{contender} at {evaluations}"


def _time(runs: Sequence[Finished], times: Mapping[str, float], contender: str, evaluations: int) -> float | None:
    """Core seconds per image: of a contender at a number of evaluations, where it was timed."""
    return times.get(timed_name(contender, evaluations)) if _of(runs, contender) else None


def scores_table(name: str, runs: Sequence[Finished], times: Mapping[str, float]) -> str:
    """Every contender of a set, mean over its seeds."""
    rows: list[list[str]] = [list(SCORES_HEAD)]
    kinds = dict.fromkeys((run.contender, scores.evaluations) for run in runs for scores in reversed(scored(run)))
    for contender, evaluations in kinds:
        assert evaluations is not None  # of generated images it is known
        mine = _of(runs, contender)
        found = [scores for run in mine if (scores := _scores(run, evaluations)) is not None]
        costs = mine[0].evaluation.cost
        ratios = [ratio for run in mine if (ratio := run.evaluation.neighbours.ratio) is not None]
        # Neighbours are searched for the pixels.
        headline = evaluations == costs.evaluations and contender != FIT
        taken = _time(runs, times, contender, evaluations)
        rows.append(
            [
                contender,
                ", ".join(str(run.seed) for run in mine),
                _spread([run.record.steps for run in mine], 0),
                f"{np.mean([run.record.core_seconds for run in mine]) / 60:.1f}",
                str(evaluations),
                _spread([scores.fid for scores in found], 2),
                _spread([scores.kid for scores in found], 1),
                f"{np.mean([scores.precision for scores in found]):.2f}",
                _spread([scores.recall for scores in found], 2),
                f"{np.mean([scores.coverage for scores in found]):.2f}",
                f"{np.mean(ratios):.2f}" if ratios and headline else "",
                f"{costs.gflop_per_step:.3f}",
                f"{costs.gflop_per_step * evaluations / 1000:.4f}",
                "" if taken is None else f"{1e3 * taken:.1f}",
            ]
        )
    first = runs[0].evaluation
    floors = f"FID of other originals {first.real_floor.fid:.2f}, of the store's renderings "
    floors += f"{first.reconstruction_floor.fid:.2f}"
    head = f"### {name}: n = {first.headline.n:,}, FID[{first.features.label}], K = {_gaussians(runs)}"
    return f"{head}\n\n{markdown(rows)}\n\nFloors: {floors}.{_fit_words(runs)}"


def _gaussians(runs: Sequence[Finished]) -> int:
    """K of the store, or of what is fitted where samples are compared with images alone."""
    fits = [fitted.gaussians for run in runs if (fitted := run.evaluation.fitted) is not None]
    return runs[0].evaluation.reference.gaussians or next(iter(fits), 0)


def _fit_words(runs: Sequence[Finished]) -> str:
    """What the fits of samples were, and how near they come to what was sampled."""
    text = ""
    for contender in dict.fromkeys(run.contender for run in runs):
        fits = [fitted for run in _of(runs, contender) if (fitted := run.evaluation.fitted) is not None]
        quality = [fitted.psnr for fitted in fits if fitted.psnr is not None]
        if fits:
            text += (
                f" Fit of {contender}: K = {fits[0].gaussians}, up to {fits[0].steps} steps of engine {fits[0].engine}"
            )
            text += f", {_spread(quality, 1)} dB against what was sampled" if quality else ""
            text += (
                f", {1e3 * float(np.mean([fitted.core_seconds_per_image for fitted in fits])):.1f} core-ms an image."
            )
    return text


def _figure(name: str, value: float | None, *, most: float | None = None, least: float | None = None) -> list[str]:
    target = f"<= {most:g}" if most is not None else f">= {least:g}"
    if value is None:
        return [name, target, "not measured", ""]
    met = (most is None or value <= most) and (least is None or value >= least)
    return [name, target, f"{value:.3g}", "met" if met else "**missed**"]


def _evaluations(runs: Sequence[Finished], contender: str) -> int:
    """Of the network per sample, as the contender is meant to be used."""
    return next((run.evaluation.cost.evaluations for run in _of(runs, contender)), 0)


def _ratio(runs: Sequence[Finished], over: str, evaluations: int | None = None) -> float | None:
    mine, other = _mean(runs, OURS, "fid", evaluations), _mean(runs, over, "fid")
    return mine / other if mine is not None and other else None


def _over(value: float | None, other: float | None) -> float | None:
    return value / other if value is not None and other else None


def _published_targets(name: str, runs: Sequence[Finished], times: Mapping[str, float]) -> list[list[str]]:
    """Of ``splatdit`` beside the published recipe."""
    rows = [
        _figure(f"{name}: FID over published", _ratio(runs, PUBLISHED), most=MOST_FID_RATIO),
        _figure(f"{name}: recall", _mean(runs, OURS, "recall"), least=LEAST_RECALL),
        _figure(f"{name}: FID over pixel-unet", _ratio(runs, UNET), most=MOST_UNET_RATIO),
    ]
    other = _time(runs, times, PUBLISHED, _evaluations(runs, PUBLISHED))
    for scores in reversed(next(iter(_of(runs, OURS))).evaluation.generated) if _of(runs, OURS) else ():
        count = scores.evaluations or 0
        fid = _ratio(runs, PUBLISHED, count)
        words = "" if fid is None else f", at {fid:.2f} of its FID"
        share = _over(_time(runs, times, OURS, count), other)
        title = f"{name}: core time per image over published, {count} evaluations{words}"
        rows.append(_figure(title, share, most=MOST_TIME_RATIO))
    return rows


def _pixel_targets(name: str, runs: Sequence[Finished], times: Mapping[str, float]) -> list[list[str]]:
    """Of generators of splats beside the pixel transformer of equal cost."""
    rows = []
    pixels = _mean(runs, DIT, "fid")
    if _of(runs, RENDER):
        mine = _mean(runs, RENDER, "fid")
        few = _mean(runs, RENDER, "fid", FEW_EVALUATIONS)
        precise = _over(_mean(runs, RENDER, "precision"), _mean(runs, DIT, "precision"))
        took = [[run.record.core_seconds / run.record.steps for run in _of(runs, one)] for one in (RENDER, DIT)]
        cost_ratio = float(np.mean(took[0]) / np.mean(took[1])) if all(took) else None
        rows += [
            _figure(f"{name}: FID of {RENDER} over {DIT}", _over(mine, pixels), most=MOST_RENDER_RATIO),
            _figure(f"{name}: precision of {RENDER} over {DIT}", precise, least=LEAST_PRECISION_RATIO),
            _figure(
                f"{name}: FID of {RENDER} at {FEW_EVALUATIONS} evaluations over 20", _over(few, mine), most=MOST_FEW
            ),
            _figure(f"{name}: training time per step of {RENDER} over {DIT}", cost_ratio, most=MOST_STEP_RATIO),
        ]
        if not _of(runs, DIT):
            rows = rows[2:3]
        if _of(runs, DISTILLED):
            ratio = _over(_mean(runs, DISTILLED, "fid"), mine)
            rows.append(_figure(f"{name}: FID of {DISTILLED} over {RENDER} at 20 evaluations", ratio, most=MOST_FEW))
        heads = [kid for head in HEADS if (kid := _mean(runs, head, "kid")) is not None]
        if heads:
            best = _over(_mean(runs, RENDER, "kid"), min(heads))
            rows.append(_figure(f"{name}: KID of {RENDER} over the best head", best, most=MOST_HEAD_RATIO))
    if _of(runs, FIT):
        taken = [_time(runs, times, one, _evaluations(runs, one)) for one in (FIT, DIT)]
        ratio = _over(*taken)
        rows += [
            _figure(f"{name}: FID of {FIT} over {DIT}", _over(_mean(runs, FIT, "fid"), pixels), most=MOST_FIT_RATIO),
            _figure(
                f"{name}: core time that the fit adds to that of {DIT}",
                None if ratio is None else ratio - 1,
                most=MOST_FIT_TIME,
            ),
        ]
    return rows


def targets_table(finished: Mapping[str, Sequence[Finished]], times: Mapping[str, Mapping[str, float]]) -> str:
    """The figures that were aimed at, and whether they were met; of contenders that were run."""
    rows = [["figure", "target", "measured", ""]]
    for name, runs in finished.items():
        if _of(runs, PUBLISHED):
            rows += _published_targets(name, runs, times.get(name, {}))
        rows += _pixel_targets(name, runs, times.get(name, {}))
    full, small = cost(OURS, "full"), cost(OURS, "small")
    rows += [
        _figure("GFLOP per step, preset full, K = 150", full.gflop, most=MOST_GFLOP),
        _figure("the same, small", small.gflop, most=MOST_SMALL_GFLOP),
        _figure("TFLOP per sample, full", full.gflop * OUR_EVALUATIONS / 1000, most=MOST_TFLOP),
    ]
    return markdown(rows)


def comparison_table(finished: Mapping[str, Sequence[Finished]], times: Mapping[str, Mapping[str, float]]) -> str:
    """Published claim | published recipe re-measured | ours | pixel baselines."""
    published, ours, unet, dit = (cost(name, "full") for name in (PUBLISHED, OURS, UNET, DIT))
    rows = [["", "published claim", "published recipe, re-measured", OURS, UNET, DIT, FIT]]
    costs = (published, ours, unet, dit, dit)
    rows.append(["parameters, full", CLAIMED_PARAMETERS, *(f"{one.parameters / 1e6:.1f} M" for one in costs)])
    rows.append(["GFLOP per step, full", CLAIMED_GFLOP, *(f"{one.gflop:.2f}" for one in costs)])
    counts = (PUBLISHED_EVALUATIONS, OUR_EVALUATIONS, UNET_EVALUATIONS, OUR_EVALUATIONS, OUR_EVALUATIONS)
    rows.append(["evaluations per sample", "200", *(str(count) for count in counts)])
    tflops = (one.gflop * count / 1000 for one, count in zip(costs, counts, strict=True))
    rows.append(["TFLOP per sample, full", CLAIMED_TFLOP, *(f"{tflop:.3f}" for tflop in tflops)])
    for name, runs in finished.items():
        for title, score, digits in (("FID", "fid", 1), ("recall", "recall", 2)):
            values = [_mean(runs, contender, score) for contender in (PUBLISHED, OURS, UNET, DIT, FIT)]
            shown = ["" if value is None else f"{value:.{digits}f}" for value in values]
            rows.append([f"{name}: {title}, tiny", "none", *shown])
        held = times.get(name, {})
        taken = [_time(runs, held, one, _evaluations(runs, one)) for one in (PUBLISHED, OURS, UNET, DIT, FIT)]
        shown = ["" if seconds is None else f"{1e3 * seconds:.1f}" for seconds in taken]
        rows.append([f"{name}: core-ms per image, tiny", "none", *shown])
    return markdown(rows)


def tables(finished: Mapping[str, Sequence[Finished]], times: Mapping[str, Mapping[str, float]]) -> str:
    """All tables as Markdown."""
    parts = ["### Targets", targets_table(finished, times)]
    compared = {name: runs for name, runs in finished.items() if _of(runs, PUBLISHED)}
    if compared:
        parts += ["### Published, ours and pixels", comparison_table(compared, times)]
    parts += [scores_table(name, runs, times.get(name, {})) for name, runs in finished.items()]
    return "\n\n".join(parts) + "\n"


def write_sheet(path: Path, first: Mapping[str, Finished]) -> None:
    """The first samples of every contender beside each other, each under its name."""
    panels = []
    for name, found in first.items():
        run = load_run(found.run, device="cpu")
        labels: NDArray[np.int64] | None = None
        if run.objective.classes:
            labels = np.arange(SHEET_IMAGES, dtype=np.int64) % run.objective.classes
        evaluations = found.evaluation.cost.evaluations
        settings = Settings(run.objective.settings.sampler, evaluations, 1.0, 0, SHEET_IMAGES)
        drawn = draw(run, settings, labels, SHEET_IMAGES, lambda _done: None)
        images = as_channels_last(drawn.images)
        if found.evaluation.fitted is not None:
            fit = sample_fit(run)
            images = fit.view.rendered(fit.splats(images))
        grid, _ = grid_of(images, columns=SHEET_COLUMNS, smallest=1)
        grid = grid.resize((grid.width * 2, grid.height * 2), Image.Resampling.NEAREST)
        panels.append(titled(grid, f"{name}, {evaluations} evaluations"))
    path.parent.mkdir(parents=True, exist_ok=True)
    side_by_side(panels, gap=8).save(path, optimize=True)


def titled(picture: Image.Image, title: str) -> Image.Image:
    """The image under a line of text."""
    canvas = Image.new("RGB", (picture.width, picture.height + 18), "white")
    canvas.paste(picture.convert("RGB"), (0, 18))
    ImageDraw.Draw(canvas).text((4, 3), title, fill="black")
    return canvas
