"""An evaluation as a Prefect artifact: the scores with their floors, costs, samples, and where the page is."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from flows.artifacts import escape, harmless, picture, places, small_sheet, table
from flows.training_artifact import newest_samples, training_key
from models.checkpoint import read_config
from pipeline.generation.evaluation_report.figures import Evaluation, Scores
from pipeline.generation.evaluation_report.reading import JSON_FILE
from pipeline.generation.train_state import MODEL_FILE

_HEADER = ("images", "n", "FID", "KID", "precision", "recall", "coverage", "W2", "IS")


def score_rows(found: Evaluation) -> list[list[str]]:
    """One row for each pair of sets that was compared: generated images, and the floors."""
    named = [(f"{line.evaluations} evaluations", line) for line in found.generated]
    if found.fitted is not None:
        named.append((f"the same as {found.fitted.gaussians} splats", found.fitted.scores))
    named += [
        ("the same to renderings", found.against_renderings),
        ("floor: originals", found.real_floor),
        ("floor: renderings", found.reconstruction_floor),
    ]
    return [[name, *_cells(line)] for name, line in named]


def _cells(line: Scores) -> list[str]:
    score = "-" if line.inception_score is None else f"{line.inception_score:.2f}"
    return [
        f"{line.n:,}",
        f"{line.fid:.2f}",
        f"{line.kid:.3g} \u00b1 {line.kid_spread:.2g}",
        f"{line.precision:.2f}",
        f"{line.recall:.2f}",
        f"{line.coverage:.2f}",
        f"{line.sliced_wasserstein:.3f}",
        score,
    ]


def evaluation_markdown(found: Evaluation, *, run: Path, page: Path) -> str:
    """The evaluation as one page of markdown.

    Args:
        found: the figures.
        run: folder of the training.
        page: path of ``evaluation.html``.
    """
    generator, cost, near, reference = found.generator, found.cost, found.neighbours, found.reference
    facts = [
        ("features, hash", f"{found.features.name}, {found.features.sha}"),
        ("objective, sampler", f"{generator.objective}, {generator.sampler} with {cost.evaluations} evaluations"),
        ("parameters", f"{cost.parameters:,}"),
        ("GFLOP per evaluation", f"{cost.gflop_per_step:.3f}"),
        ("TFLOP per sample", f"{cost.tflop_per_sample:.5f}"),
        ("ms per image, rendering included", f"{1000 * cost.seconds_per_image:.1f}"),
        ("device, threads", f"{cost.device}, {cost.threads}"),
        ("nearest original, over that of other originals", "-" if near.ratio is None else f"{near.ratio:.2f}"),
        ("rows finished, of", f"{reference.finished:,} of {reference.rows:,}"),
        ("seed", str(generator.seed)),
    ]
    if found.fitted is not None:
        fitted = found.fitted
        quality = "lossless" if fitted.psnr is None else f"{fitted.psnr:.2f} dB"
        facts.append(("fit", f"K = {fitted.gaussians}, engine {fitted.engine}, {quality} to the generated pixels"))
        facts.append(("core-ms of the fit per image", f"{1000 * fitted.core_seconds_per_image:.1f}"))
    sections = [
        f"# Evaluation of {escape(generator.name)} on {escape(reference.source)}",
        "Lower is better for FID, KID and sliced Wasserstein (W2). Compare only in the same features, at equal n.",
        table(_HEADER, score_rows(found)),
        table(["figure", "value"], facts),
    ]
    samples = newest_samples(run)
    if samples is not None:
        sections += ["## Samples at the end of the training", *picture(small_sheet(samples.read_bytes()), "samples")]
    sections += places([("page", page), ("figures", page.with_name(JSON_FILE)), ("run", run)])
    return "\n\n".join(sections) + "\n"


def publish_evaluation(found: Evaluation, run: Path, page: Path) -> None:
    """Keeps an evaluation under the key ``evaluation-splats-<set>`` or the like. Never raises.

    Args:
        found: the figures.
        run: folder of the training.
        page: path of ``evaluation.html``.
    """
    with harmless("artifact of the evaluation"):
        key = training_key(read_config(run / MODEL_FILE), "evaluation")
        create_markdown_artifact(evaluation_markdown(found, run=run, page=page), key=key, description="evaluation")
