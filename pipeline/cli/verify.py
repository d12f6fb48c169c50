"""``splatspace verify``: is a store still what was written?"""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.progress_bar import count_progress
from pipeline.cli.terminal import print_json, say, warn

EXAMPLES = ("splatspace verify demo.zarr", "splatspace verify demo.h5 --json")


def verify(
    store: Annotated[str, typer.Argument(help="A .zarr or .h5 store, or the URL of a .zarr.")],
    workers: Annotated[
        int | None, typer.Option(min=1, envvar="SPLATSPACE_WORKERS", help="Threads. Default: every processor.")
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
