"""The table of an ablation for the terminal."""

from __future__ import annotations

from rich.box import SIMPLE_HEAD
from rich.table import Table

from pipeline.generation.ablation_report import Ablation, with_spread


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
            "-" if row.evaluations is None else str(row.evaluations),
            "failed" if row.fid is None else with_spread(row.fid, row.fid_spread, 2),
            with_spread(row.recall, row.recall_spread, 3),
            "-" if row.gflop is None else f"{row.gflop:.4f}",
        )
        before = row.axis
    return table
