"""From the evaluations of an ablation's points to the rows of its table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from data_schemas.errors import EvaluationError
from pipeline.evaluate.ablate.job import BASE, AblateJob, AxisName, Point, Value
from pipeline.evaluate.ablate.report import Ablation, AblationRow
from pipeline.evaluate.figures import Evaluation, Scores


@dataclass(frozen=True)
class Found:
    """What became of a point.

    Attributes:
        point: which one.
        evaluation: None where it failed.
        psnr: of the store that was learned from, dB.
        failure: why there is no evaluation.
    """

    point: Point
    evaluation: Evaluation | None
    psnr: float | None
    failure: str = ""


def gather_rows(job: AblateJob, base: Mapping[AxisName, Value], found: Sequence[Found], images: int) -> Ablation:
    """The whole table.

    Args:
        job: with its axes filled in.
        base: where the base stands on each axis.
        found: of every point.
        images: that were learned from.

    Raises:
        EvaluationError: the evaluations were made in different features or with different numbers of images.
    """
    first = next(one.evaluation for one in found if one.evaluation is not None)
    kinds = {(one.evaluation.features.label, one.evaluation.headline.n) for one in found if one.evaluation is not None}
    if len(kinds) > 1:
        raise EvaluationError(
            f"{job.out} holds evaluations that cannot be compared: "
            + ", ".join(f"{label} with n = {n}" for label, n in sorted(kinds)),
            next_step="give another --out",
        )
    rows: list[AblationRow] = []
    for axis, values in job.axes.items():
        shown = list(values if base[axis] in values else (base[axis], *values))
        numbers = [value for value in shown if isinstance(value, int | float)]
        if len(numbers) == len(shown):
            shown = sorted(numbers)
        for value in shown:
            is_base = value == base[axis]
            if axis == "evaluations":
                own = [one for one in found if one.point.axis == BASE]
                rows.append(_row(axis, value, is_base, own, evaluations=int(value)))
            else:
                wanted = (BASE, "") if is_base else (axis, value)
                own = [one for one in found if (one.point.axis, one.point.value) == wanted]
                rows.append(_row(axis, value, is_base, own))
    return Ablation(
        created=datetime.now(UTC),
        model=first.generator.name,
        store=job.store.name,
        source=first.reference.source,
        images=images,
        steps=job.steps,
        batch=job.batch,
        n=first.headline.n,
        features=first.features.label,
        real_floor=first.real_floor.fid,
        device=first.cost.device,
        rows=tuple(rows),
    )


def _row(
    axis: AxisName, value: Value, is_base: bool, found: Sequence[Found], *, evaluations: int | None = None
) -> AblationRow:
    done = [(one, one.evaluation) for one in found if one.evaluation is not None]
    failure = "; ".join(sorted({one.failure for one in found if one.failure}))
    text = f"{value:g}" if isinstance(value, float) else str(value)
    if not done:
        return AblationRow(axis=axis, value=text, base=is_base, seeds=0, failure=failure)
    scored = [_scores(evaluation, evaluations) for _, evaluation in done]
    cost = done[0][1].cost
    number = scored[0].evaluations or cost.evaluations
    psnr = [one.psnr for one, _ in done if one.psnr is not None]
    return AblationRow(
        axis=axis,
        value=text,
        base=is_base,
        seeds=len(done),
        evaluations=number,
        fid=statistics.fmean(scores.fid for scores in scored),
        fid_spread=_spread([scores.fid for scores in scored]),
        kid=statistics.fmean(scores.kid for scores in scored),
        precision=statistics.fmean(scores.precision for scores in scored),
        recall=statistics.fmean(scores.recall for scores in scored),
        recall_spread=_spread([scores.recall for scores in scored]),
        reconstruction_fid=statistics.fmean(evaluation.reconstruction_floor.fid for _, evaluation in done),
        psnr=statistics.fmean(psnr) if psnr else None,
        gflop=cost.gflop_per_step,
        tflop=cost.tflop_per_sample * number / cost.evaluations,
        parameters=cost.parameters,
        # Each evaluation of the network takes the same time; only the number that was timed is stated.
        seconds_per_image=cost.seconds_per_image if number == cost.evaluations else None,
        failure=failure,
    )


def _scores(evaluation: Evaluation, evaluations: int | None) -> Scores:
    """Of generated images at some number of evaluations; the one that was asked for without it."""
    if evaluations is None:
        return evaluation.headline
    return next(scores for scores in evaluation.generated if scores.evaluations == evaluations)


def _spread(values: Sequence[float]) -> float | None:
    return statistics.stdev(values) if len(values) > 1 else None
