"""The scores of an evaluation as a table for the terminal."""

from __future__ import annotations

from rich.table import Table

from pipeline.generation.evaluation_report.figures import Evaluation
from pipeline.report.wording import number, seconds


def scores_table(found: Evaluation) -> Table:
    """One line for each pair of sets, the floors last; costs below."""
    cost = found.cost
    table = Table(
        title=f"{found.generator.name}, features {found.features.label}",
        caption=(
            f"{cost.gflop_per_step:.3f} GFLOP a step, {cost.tflop_per_sample:.4f} TFLOP and "
            f"{seconds(cost.seconds_per_image)} an image at {cost.evaluations} evaluations on {cost.device}"
        ),
        title_justify="left",
        caption_justify="left",
    )
    for name in ("images", "against"):
        table.add_column(name)
    for name in ("n", "FID", "KID", "precision", "recall", "density", "coverage", "sliced W2", "IS"):
        table.add_column(name, justify="right")
    lines = (*found.generated, found.against_renderings, found.real_floor, found.reconstruction_floor)
    for line in lines:
        steps = "" if line.evaluations is None else f", {line.evaluations} evaluations"
        table.add_row(
            line.images + steps,
            line.reference,
            f"{line.n:,}",
            number(line.fid),
            f"{number(line.kid, 3)} ± {number(line.kid_spread, 3)}",
            *(number(value) for value in (line.precision, line.recall, line.density, line.coverage)),
            number(line.sliced_wasserstein, 3),
            number(line.inception_score),
        )
    return table
