"""``splatspace report``: what people read about a store."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.terminal import print_json, say, stdout

EXAMPLES = ("splatspace report demo.zarr", "splatspace report demo.zarr --out reports/demo")


def report(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store or the URL of a .zarr, complete or not.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder or URL. Default: NAME-report beside the store.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> None:
    """Measures a store and writes report.json, report.html (one file, no network) and panel.png."""
    from data_schemas.stores import open_store
    from pipeline.report.build import build_report
    from pipeline.report.terminal import report_table
    from pipeline.report_folder import report_folder

    with open_store(store, "r") as opened:
        built = build_report(opened, out or report_folder(opened.path))
    if as_json:
        print_json(built.report.model_dump(mode="json"))
        return
    stdout().print(report_table(built.report))
    say(f"report: {built.html_path}")
