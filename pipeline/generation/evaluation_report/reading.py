"""Evaluations that were written before, to be set beside a new one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ValidationError

from data_schemas.errors import ReportError
from pipeline.generation.evaluation_report.figures import EVALUATION_VERSION, Evaluation, Scores

JSON_FILE, PAGE_FILE = "evaluation.json", "evaluation.html"


class _Version(BaseModel):
    evaluation_version: int


def read_evaluation(path: Path) -> Evaluation:
    """Reads an ``evaluation.json``, or the one in a folder.

    Raises:
        ReportError: no such file, not an evaluation, or one of a newer version.
    """
    file = path / JSON_FILE if path.is_dir() else path
    try:
        text = file.read_bytes()
    except OSError as error:
        raise ReportError(
            f"{file} cannot be read ({error.strerror or error})",
            allowed=f"an {JSON_FILE} or its folder",
            next_step="run `splatspace evaluate` for that generator first",
        ) from error
    try:
        version = _Version.model_validate_json(text).evaluation_version
        if version > EVALUATION_VERSION:
            raise ReportError(
                f"{file} is an evaluation of version {version}",
                allowed=f"{EVALUATION_VERSION} or older",
                next_step="install a newer SplatSpace",
            )
        return Evaluation.model_validate_json(text)
    except ValidationError as error:
        raise ReportError(
            f"{file} is not an evaluation ({error.errors()[0]['msg']})",
            allowed=f"an {JSON_FILE} of version {EVALUATION_VERSION}",
            next_step="run `splatspace evaluate` again",
        ) from error


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
