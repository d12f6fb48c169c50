"""What people read about a store: ``report.json``, ``report.html``, ``panel.png`` and a table for the terminal.

with open_store("sprites.zarr") as store:
    summary = build_report(store, "sprites-report")
Console().print(report_table(summary.report))
"""

from pipeline.report.build import ReportSummary, build_report
from pipeline.report.ellipses import draw_ellipses
from pipeline.report.figures import LOSSLESS_PSNR, Report
from pipeline.report.files import read_report
from pipeline.report.terminal import report_table

__all__ = [
    "LOSSLESS_PSNR",
    "Report",
    "ReportSummary",
    "build_report",
    "draw_ellipses",
    "read_report",
    "report_table",
]
