"""What an ablation has found: typed records, a table in markdown and for the terminal, and a plot."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict, Field
from rich.box import SIMPLE_HEAD
from rich.table import Table

from data_schemas.printable import markdown_text, printable
from pipeline.documents import read_document
from pipeline.format import NONE, format_cell

ABLATION_VERSION = 1
"""Version of ``ablation.json``; a reader refuses a greater one."""

JSON_FILE, MARKDOWN_FILE, PICTURE_FILE = "ablation.json", "ablation.md", "ablation.png"

_COLUMNS = 3

ABLATION_HEADER = (
    "axis", "value", "evaluations", "FID", "KID", "precision", "recall", "FID of the store", "PSNR of the store, dB",
    "parameters", "GFLOP a step", "TFLOP a sample", "trainings",
)  # fmt: skip


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class AblationRow(_Record):
    """One choice: figures are means over its seeds."""

    axis: str
    value: str
    base: bool = Field(description="whether the base configuration has this value")
    seeds: int = Field(description="trainings that were evaluated")
    evaluations: int | None = Field(default=None, description="of the network")
    fid: float | None = Field(default=None, description="against originals")
    fid_spread: float | None = Field(default=None, description="standard deviation over the seeds; None for one")
    kid: float | None = None
    precision: float | None = None
    recall: float | None = None
    recall_spread: float | None = None
    reconstruction_fid: float | None = Field(default=None, description="floor of the store that was learned from")
    psnr: float | None = Field(default=None, description="of the mean error of that store, dB")
    gflop: float | None = Field(default=None, description="of one evaluation")
    tflop: float | None = Field(default=None, description="of one sample")
    parameters: int | None = None
    seconds_per_image: float | None = None
    failure: str = Field(default="", description="why a training has no figures")


class Ablation(_Record):
    """All rows, axis by axis."""

    ablation_version: int = ABLATION_VERSION
    created: datetime
    model: str
    store: str
    source: str
    images: int = Field(description="learned from")
    steps: int
    batch: int
    n: int = Field(description="images in each set that was compared")
    features: str = Field(description="name and hash")
    real_floor: float = Field(description="FID of originals against other originals")
    device: str
    rows: tuple[AblationRow, ...]

    @property
    def axes(self) -> tuple[str, ...]:
        """In their order."""
        return tuple(dict.fromkeys(row.axis for row in self.rows))

    @property
    def failures(self) -> tuple[AblationRow, ...]:
        """Rows of which a training has failed."""
        return tuple(row for row in self.rows if row.failure)

    def of(self, axis: str) -> tuple[AblationRow, ...]:
        """Rows of one axis."""
        return tuple(row for row in self.rows if row.axis == axis)


def with_spread(value: float | None, spread: float | None, decimals: int) -> str:
    """A mean with its standard deviation, where there is one."""
    if value is None:
        return NONE
    return f"{value:.{decimals}f}" + ("" if spread is None else f" +/- {spread:.{decimals}f}")


def ablation_cells(row: AblationRow) -> list[str]:
    """What the tables show of a row, in the order of ``ABLATION_HEADER``."""
    return [
        row.axis,
        row.value + (" (base)" if row.base else ""),
        format_cell(row.evaluations, "d"),
        with_spread(row.fid, row.fid_spread, 2),
        format_cell(row.kid, ".4f"),
        format_cell(row.precision, ".3f"),
        with_spread(row.recall, row.recall_spread, 3),
        format_cell(row.reconstruction_fid, ".2f"),
        format_cell(row.psnr, ".2f"),
        format_cell(row.parameters, ","),
        format_cell(row.gflop, ".4f"),
        format_cell(row.tflop, ".5f"),
        str(row.seeds) + (f"; {row.failure}" if row.failure else ""),
    ]


def ablation_words(found: Ablation) -> str:
    """What all rows share, in a sentence or two."""
    return (
        f"{found.model} on {found.images:,} images of {found.source}, {found.steps:,} steps of {found.batch}, one "
        f"choice changed at a time. FID in {found.features}, n = {found.n:,}; floor of other originals "
        f"{found.real_floor:.2f}. Means over the trainings, +/- standard deviation. Computed on {found.device}."
    )


def ablation_markdown(found: Ablation) -> str:
    """The page ``ablation.md``."""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(printable(cell.replace("|", "/").replace("\n", " ")) for cell in cells) + " |"

    table = [line(ABLATION_HEADER), line(["---"] * len(ABLATION_HEADER))]
    table += [line(ablation_cells(row)) for row in found.rows]
    parts = ["# Ablation", markdown_text(ablation_words(found)), "\n".join(table), f"![FID by axis]({PICTURE_FILE})"]
    return "\n\n".join(parts) + "\n"


def ablation_png(found: Ablation) -> bytes:
    """FID by value, a panel for each axis; the base in another colour, dashes at the floor of originals."""
    axes = found.axes
    lines = math.ceil(len(axes) / _COLUMNS)
    columns = min(_COLUMNS, len(axes))
    figure = Figure(figsize=(3.7 * columns, 2.5 * lines), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for number, axis in enumerate(axes):
        rows = [row for row in found.of(axis) if row.fid is not None]
        panel = figure.add_subplot(lines, columns, number + 1)
        places = range(len(rows))
        values = [row.fid or 0.0 for row in rows]
        panel.bar(places, values, width=0.7, color=["#3566c8" if row.base else "#aab4c4" for row in rows])
        panel.set_xlim(-0.7, max(len(rows) - 0.3, 2.3))
        if any(row.fid_spread is not None for row in rows):
            spreads = [row.fid_spread or 0.0 for row in rows]
            panel.errorbar(places, values, yerr=spreads, fmt="none", ecolor="#1b2230", capsize=3)
        for place, row in zip(places, rows, strict=True):
            top = (row.fid or 0.0) + (row.fid_spread or 0.0)
            panel.annotate(f"{row.fid:.3g}", (place, top), (0, 2), textcoords="offset points", ha="center", fontsize=7)
        panel.set_xticks(places, [row.value for row in rows], fontsize=7, rotation=20 if len(rows) > 3 else 0)
        panel.axhline(found.real_floor, color="#5d6778", linewidth=0.8, dashes=(4, 3))
        panel.set_title(axis.replace("_", " "), fontsize=9)
        panel.margins(y=0.2)
        panel.tick_params(axis="y", labelsize=7)
        panel.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"FID[{found.features}], lower is better", fontsize=9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()


def read_ablation(path: Path) -> Ablation:
    """Reads an ``ablation.json``, or the one in a folder.

    Raises:
        ReportError: no such file, not an ablation, or one of a newer version.
    """
    return read_document(path, Ablation, JSON_FILE, made_by="splatspace ablate")


def ablation_table(found: Ablation) -> Table:
    """The figures that fit on a terminal of 80 columns; ``ablation.md`` has all of them."""
    table = Table(box=SIMPLE_HEAD)
    for name in ("axis", "value"):
        table.add_column(name, no_wrap=True)
    for name in ("eval.", "FID", "recall", "GFLOP"):
        table.add_column(name, justify="right", no_wrap=True)
    before = ""
    for row in found.rows:
        table.add_row(
            "" if row.axis == before else row.axis,
            row.value + (" (base)" if row.base else ""),
            format_cell(row.evaluations, "d"),
            "failed" if row.fid is None else with_spread(row.fid, row.fid_spread, 2),
            with_spread(row.recall, row.recall_spread, 3),
            format_cell(row.gflop, ".4f"),
        )
        before = row.axis
    return table
