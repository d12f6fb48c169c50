"""The scores of an evaluation as a table for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline.generation.evaluation_report.figures import Evaluation
from pipeline.report.wording import number, seconds


def scores_table(found: Evaluation) -> Table:
    """The scores that fit on a terminal of 80 columns, one line for each pair of sets; costs below."""
    cost = found.cost
    fitted = ""
    if found.fitted is not None:
        quality = "lossless" if found.fitted.psnr is None else f"{number(found.fitted.psnr)} dB"
        fitted = f"; the fit {seconds(found.fitted.core_seconds_per_image)} of a core, {quality}"
    table = Table(
        box=SIMPLE_HEAD,
        title=f"{found.generator.name}, features {found.features.label}",
        caption=(
            f"{cost.gflop_per_step:.3f} GFLOP a step, {cost.tflop_per_sample:.4f} TFLOP and "
            f"{seconds(cost.seconds_per_image)} an image at {cost.evaluations} evaluations on {cost.device}{fitted}"
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
            number(line.fid),
            number(line.kid),
            number(line.precision),
            number(line.recall),
            number(line.sliced_wasserstein),
            number(line.inception_score),
        )
    return table
