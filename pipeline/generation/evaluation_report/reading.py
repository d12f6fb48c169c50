"""Evaluations that were written before, to be set beside a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.documents import read_document
from pipeline.generation.evaluation_report.figures import Evaluation, Scores

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
