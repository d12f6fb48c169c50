"""An evaluation as a Prefect artifact: the scores with their floors, costs, samples, and where the page is."""

from __future__ import annotations

from pathlib import Path

from prefect.artifacts import create_markdown_artifact

from flows.artifacts import artifact_key, escape, harmless, picture, places, small_sheet, table
from flows.training_artifact import newest_samples
from pipeline.generation.evaluation_report.figures import Evaluation, Scores
from pipeline.generation.evaluation_report.reading import JSON_FILE

_HEADER = ("images", "n", "FID", "KID", "precision", "recall", "density", "coverage", "sliced W2", "IS")


def score_rows(found: Evaluation) -> list[list[str]]:
    """One row for each pair of sets that was compared: generated images, and the floors."""
    named = [(f"generated, {line.evaluations} evaluations", line) for line in found.generated]
    named += [
        ("the last against renderings", found.against_renderings),
        ("floor: other originals", found.real_floor),
        ("floor: renderings of the store", found.reconstruction_floor),
    ]
    return [[name, *_cells(line)] for name, line in named]


def _cells(line: Scores) -> list[str]:
    score = "-" if line.inception_score is None else f"{line.inception_score:.2f}"
    return [
        f"{line.n:,}",
        f"{line.fid:.2f}",
        f"{line.kid:.4f} +/- {line.kid_spread:.4f}",
        f"{line.precision:.3f}",
        f"{line.recall:.3f}",
        f"{line.density:.3f}",
        f"{line.coverage:.3f}",
        f"{line.sliced_wasserstein:.4f}",
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
    sections = [
        f"# Evaluation of {escape(generator.name)} on {escape(reference.source)}",
        "Lower is better for FID, KID and sliced W2. Numbers compare only with the same features, hash and n.",
        table(_HEADER, score_rows(found)),
        table(["figure", "value"], facts),
    ]
    samples = newest_samples(run)
    if samples is not None:
        sections += ["## Samples at the end of the training", *picture(small_sheet(samples.read_bytes()), "samples")]
    sections += places([("page", page), ("figures", page.with_name(JSON_FILE)), ("run", run)])
    return "\n\n".join(sections) + "\n"


def publish_evaluation(found: Evaluation, run: Path, page: Path) -> None:
    """Keeps an evaluation under the key ``evaluation-<kind>-<set>``. Never raises.

    Args:
        found: the figures.
        run: folder of the training.
        page: path of ``evaluation.html``.
    """
    key = artifact_key(found.reference.source, f"evaluation-{found.generator.kind}")
    with harmless(f"artifact {key}"):
        create_markdown_artifact(evaluation_markdown(found, run=run, page=page), key=key, description="evaluation")
