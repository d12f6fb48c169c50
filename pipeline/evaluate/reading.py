"""Evaluations that were written before, to be set beside a new one; scores as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline.documents import read_document
from pipeline.evaluate.figures import Evaluation, Scores
from pipeline.format import format_number, format_psnr, format_seconds

JSON_FILE, PAGE_FILE = "evaluation.json", "evaluation.html"


def read_evaluation(path: Path) -> Evaluation:
    """Reads an ``evaluation.json``, or the one in a folder.

    Raises:
        ReportError: no such file, not an evaluation, or one of a newer version.
    """
    return read_document(path, Evaluation, JSON_FILE, made_by="splatspace evaluate RUN")


@dataclass(frozen=True)
class Beside:
    """One line of the table that sets generators beside each other.

    Attributes:
        found: the evaluation.
        scores: at the number of evaluations that was asked for.
        difference: why its scores cannot be compared with the first line's; "" where they can.
        ratio: its FID over the first line's; None where that means nothing.
    """

    found: Evaluation
    scores: Scores
    difference: str
    ratio: float | None


def side_by_side(found: Evaluation, others: Sequence[Evaluation]) -> list[Beside]:
    """This evaluation and others; scores in other features, of another n or of other data are marked."""
    first = found.headline.fid
    lines = []
    for other in (found, *others):
        difference = _difference(found, other)
        ratio = None if difference or first <= 0 else other.headline.fid / first
        lines.append(Beside(other, other.headline, difference, ratio))
    return lines


def _difference(found: Evaluation, other: Evaluation) -> str:
    parts = []
    if (found.reference.source, found.reference.split) != (other.reference.source, other.reference.split):
        parts.append(f"other data ({other.reference.source}, {other.reference.split})")
    if found.features.label != other.features.label:
        parts.append(f"other features ({other.features.label})")
    if found.headline.n != other.headline.n:
        parts.append(f"other n ({other.headline.n:,})")
    return ", ".join(parts)


def scores_table(found: Evaluation) -> Table:
    """The scores that fit on a terminal of 80 columns, one line for each pair of sets; costs below."""
    cost = found.cost
    fitted = ""
    if found.fitted is not None:
        fit_time = format_seconds(found.fitted.core_seconds_per_image)
        fitted = f"; the fit {fit_time} of a core, {format_psnr(found.fitted.psnr)}"
    table = Table(
        box=SIMPLE_HEAD,
        title=f"{found.generator.name}, features {found.features.label}",
        caption=(
            f"{cost.gflop_per_step:.3f} GFLOP a step, {cost.tflop_per_sample:.4f} TFLOP and "
            f"{format_seconds(cost.seconds_per_image)} an image at {cost.evaluations} evaluations on {cost.device}"
            f"{fitted}"
        ),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("images", no_wrap=True)
    for name in ("n", "FID", "KID", "prec.", "recall", "W2", "IS"):
        table.add_column(name, justify="right", no_wrap=True)
    named = [(f"generated at {line.evaluations}", line) for line in found.generated]
    if found.fitted is not None:
        named.append((f"  as {found.fitted.gaussians} splats", found.fitted.scores))
    named += [
        ("  against renderings", found.against_renderings),
        ("floor: originals", found.real_floor),
        ("floor: renderings", found.reconstruction_floor),
    ]
    for name, line in named:
        table.add_row(
            name,
            f"{line.n:,}",
            format_number(line.fid),
            format_number(line.kid),
            format_number(line.precision),
            format_number(line.recall),
            format_number(line.sliced_wasserstein),
            format_number(line.inception_score),
        )
    return table
