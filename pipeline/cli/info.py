"""``splatspace info``: what a store is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from data_schemas.printable import printable
from pipeline.cli.terminal import named, print_json, stdout, warn

EXAMPLES = ("splatspace info demo.zarr", "splatspace info demo.h5 --json")


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
    quality = "-" if found.psnr is None else f"{found.psnr:.2f} dB of the mean error, {found.lossless:,} lossless"
    rows: list[tuple[str, str]] = [
        ("images", f"{found.rows:,}: {found.done:,} done, {found.failed:,} failed, {found.empty:,} not encoded yet"),
        ("PSNR", f"all {found.lossless:,} lossless" if found.psnr is None and found.lossless else quality),
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
        warn(f"{found.failed:,} failed: {named(names)}")
