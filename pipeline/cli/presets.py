"""``splatspace presets``: the table of named data sets."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer
from rich import box
from rich.table import Table

from pipeline.cli.terminal import print_json, say, stdout
from pipeline.presets import PRESETS

EXAMPLES = ("splatspace presets", "splatspace presets --json")


def presets(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Lists the named data sets and what is assumed for each."""
    if as_json:
        print_json({name: dataclasses.asdict(preset) for name, preset in PRESETS.items()})
        return
    table = Table(box=box.SIMPLE, pad_edge=False, caption_justify="left")
    for column in ("dataset", "size", "K", "steps", "split"):
        table.add_column(column, justify="right" if column in ("K", "steps") else "left", no_wrap=True)
    table.add_column("what", overflow="fold")
    for preset in PRESETS.values():
        table.add_row(
            preset.name,
            f"{preset.height}x{preset.width}x{preset.channels}",
            str(preset.gaussians),
            str(preset.steps),
            preset.split,
            preset.title,
        )
    stdout().print(table)
    say("Codec, start, colours and type of each: splatspace presets --json")
