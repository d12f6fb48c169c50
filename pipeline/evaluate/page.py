"""``evaluation.html``: one self-contained page; every text from the data is escaped by the template engine."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

from markupsafe import Markup

from pipeline.evaluate.ablate.report import (
    ABLATION_HEADER,
    Ablation,
    ablation_cells,
    ablation_png,
    ablation_words,
)
from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.page_images import Pictures
from pipeline.evaluate.reading import side_by_side
from pipeline.format import format_number, format_psnr, format_seconds, format_share
from pipeline.report.page.data import page_script, png_address
from pipeline.report.page.html import page_environment, page_style
from pipeline.report.page.plots import curves_svg

_FOLDER = "pipeline.evaluate"


def render_page(
    found: Evaluation, pictures: Pictures, others: Sequence[Evaluation] = (), ablation: Ablation | None = None
) -> str:
    """The page.

    Args:
        found: the figures.
        pictures: what it shows.
        others: evaluations of other generators, for the table that sets them beside this one.
        ablation: what single choices are worth, for a table of its own.
    """
    environment = page_environment()
    environment.filters.update(number=format_number, seconds=format_seconds, share=format_share, psnr=format_psnr)
    template = environment.from_string(files(_FOLDER).joinpath("evaluation.html.j2").read_text(encoding="utf-8"))
    way, times = pictures.way_sheet()
    script, allowed = page_script(("pipeline.report.page", "splat_canvas.js"), (_FOLDER, "page_steps.js"))
    return template.render(
        found=found,
        beside=side_by_side(found, others) if others else [],
        ablation=ablation,
        ablation_header=ABLATION_HEADER,
        ablation_cells=ablation_cells,
        ablation_words=None if ablation is None else ablation_words(ablation),
        ablation_picture=None if ablation is None else png_address(ablation_png(ablation)),
        curves=[Markup(evaluations_svg(found)), Markup(recall_svg(found))],
        samples=pictures.sample_sheet(),
        originals=pictures.original_sheet(),
        fitted=pictures.fitted_sheet(),
        way=way,
        times=times,
        neighbours=pictures.neighbour_sheet(),
        canvas=pictures.canvas(),
        style=page_style(),
        script=script,
        allowed=allowed,
    )


def evaluations_svg(found: Evaluation) -> str:
    """FID against the number of evaluations, with both floors."""
    return curves_svg(
        [float(scores.evaluations or 0) for scores in found.generated],
        [scores.fid for scores in found.generated],
        floors={
            "other originals": found.real_floor.fid,
            "reconstructions": found.reconstruction_floor.fid,
        },
        x_name="evaluations of the network",
        y_name=f"FID[{found.features.label}]",
    )


def recall_svg(found: Evaluation) -> str:
    """Recall against the number of evaluations, with both floors."""
    return curves_svg(
        [float(scores.evaluations or 0) for scores in found.generated],
        [scores.recall for scores in found.generated],
        floors={"other originals": found.real_floor.recall, "reconstructions": found.reconstruction_floor.recall},
        x_name="evaluations of the network",
        y_name="recall",
        name="recall",
    )
