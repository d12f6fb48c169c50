"""``splatspace info``, ``verify``, ``compare`` and ``report``: what a store is, whether it is whole, how good it is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from data_schemas.printable import printable
from pipeline.cli.progress_bar import count_progress
from pipeline.cli.terminal import MOST_NAMED, print_json, say, stdout, warn
from pipeline.format import NONE, format_psnr, list_names

INFO_EXAMPLES = ("splatspace info demo.zarr", "splatspace info demo.h5 --json")


def info(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store, or the URL of a .zarr.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Says what a store holds and how it was made."""
    from pipeline.info import store_info

    found = store_info(store)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    header, source = found.header, found.header.source
    quality = f"{format_psnr(found.psnr)} of the mean error, {found.lossless:,} lossless"
    if found.psnr is None:
        quality = f"all {found.lossless:,} lossless" if found.lossless else NONE
    rows: list[tuple[str, str]] = [
        ("images", f"{found.rows:,}: {found.done:,} done, {found.failed:,} failed, {found.empty:,} not encoded yet"),
        ("PSNR", quality),
        (
            "codec",
            f"{header.codec}, {header.colours} colours, start {header.start or '-'}"
            + (f", refined ({header.refine})" if header.refine else ""),
        ),
        ("Gaussians", f"{header.gaussians} an image, {header.layout} layout: {' '.join(header.splat_layout.names)}"),
        ("image size", f"{header.height} x {header.width} x {header.channels} (height, width, channels)"),
        ("source pixels", "in the store" if header.images else "not in the store"),
        ("on disk", ", ".join(f"{name} {size:,}" for name, size in found.bytes_by_array.items() if size) + " bytes"),
        ("numbers", f"{found.numbers_per_image:,} {header.dtype} an image, {found.bytes_stored:,} bytes in all"),
        ("engine", f"{header.engine or '-'}, seed {header.seed}, {header.settings.get('steps', '-')} steps at most"),
        ("source", f"{source.name}, split {source.split}" + (f", {source.digest}" if source.digest else "")),
        ("transparency", f"laid over {source.background}"),
        ("left out", f"{source.removed_duplicates:,} repeats, {source.left_out:,} other files"),
        ("licence", source.licence or "-"),
        ("runs", "; ".join(f"{run.images:,} images by {run.device}" for run in header.runs) or "-"),
        ("in Python", found.opened_with),
        ("updated", f"{header.updated:%Y-%m-%d %H:%M:%S} UTC"),
    ]
    table = Table(
        box=box.SIMPLE, show_header=False, title=Text(printable(str(found.path)), style="bold"), title_justify="left"
    )
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(name), Text(printable(value)))
    stdout().print(table)
    if found.failures:
        names = [f"row {row} {name} ({reason})" for row, name, reason in found.failures]
        warn(f"{found.failed:,} failed: {list_names(names, most=MOST_NAMED, by=';')}")


VERIFY_EXAMPLES = ("splatspace verify demo.zarr", "splatspace verify demo.h5 --json")


def verify(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store, or the URL of a .zarr.")],
    workers: Annotated[
        int | None, typer.Option(min=1, envvar="SPLATSPACE_WORKERS", help="Number of threads. Default: one per CPU.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Checks every byte, decodes every image again and compares it with the recorded PSNR.

    Leaves with code 1 and the row numbers if anything differs.
    """
    from pipeline.verify import verify as run

    with count_progress("verify") as progress:
        found = run(store, workers=workers, progress=progress)
    if as_json:
        print_json({**found.model_dump(mode="json"), "sound": found.sound})
    else:
        for fault in found.faults:
            say(f"row {fault.row} {fault.source_id}: {fault.reason}")
        if found.done and not found.images:
            say("The store holds no source pixels: bytes and numbers were checked, PSNR could not be.")
        verdict = "all sound" if found.sound else f"{len(found.faults):,} rows at fault"
        say(f"{found.rows:,} rows, {found.done:,} done, {found.compared:,} decoded and compared: {verdict}")
    if not found.sound:
        rows = ", ".join(str(fault.row) for fault in found.faults)
        warn(f"Error: rows {rows} of {store} are not what was written. Next: encode again to repair them.")
        raise typer.Exit(1)


COMPARE_EXAMPLES = ("splatspace compare grid.zarr transport.zarr", "splatspace compare a.zarr b.h5 --json")


def compare(
    a: Annotated[str, typer.Argument(help="The store to compare with.")],
    b: Annotated[str, typer.Argument(help="The store in question: differences are B minus A.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Compares PSNR, SSIM, cost and size of two stores on the images that both hold."""
    from data_schemas.stores.open import open_store
    from pipeline.report.compare import compare_stores, comparison_table

    with open_store(a, "r") as first, open_store(b, "r") as second:
        found = compare_stores(first, second)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        stdout().print(comparison_table(found))


REPORT_EXAMPLES = (
    "splatspace report demo.zarr",
    "splatspace report demo.zarr --out reports/demo",
    "splatspace report transport.zarr --against grid.zarr",
)


def report(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store or the URL of a .zarr, complete or not.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", help="Folder or URL. Default: NAME-report beside the store.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            help="Say what changed against another report of the same set: its folder, its report.json, or a store "
            "with a report beside it. Default: the last report of this store."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json instead of the table.")] = False,
) -> None:
    """Measures a store and writes report.json, report.html (one file, no network), panel.png and images.npz."""
    from data_schemas.stores.open import open_store
    from pipeline.documents import report_folder
    from pipeline.report.build import build_report
    from pipeline.report.terminal import report_table

    with open_store(store, "r") as opened:
        built = build_report(opened, out or report_folder(opened.path), against=against)
    if as_json:
        print_json(built.report.model_dump(mode="json"))
        return
    stdout().print(report_table(built.report))
    say(f"report: {built.html_path}")
