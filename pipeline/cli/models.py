"""``splatspace models``: every generator, its sizes and what a step costs."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Literal

import typer
from rich import box
from rich.table import Table

from pipeline.cli.terminal import print_json, say, stdout

EXAMPLES = ("splatspace models", "splatspace models --gaussians 70 --size 28 --channels 1", "splatspace models --json")


def models(
    gaussians: Annotated[int, typer.Option("--gaussians", "-k", min=1, max=100_000, help="K.")] = 150,
    size: Annotated[int, typer.Option(min=8, max=16_384, help="Pixels of a side.")] = 32,
    channels: Annotated[Literal["1", "3"], typer.Option(help="Colours.")] = "3",
    classes: Annotated[int, typer.Option(min=0, max=1_000_000, help="Labels.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Lists the generators with their parameters and GFLOP per evaluation, counted without computing anything."""
    # torch takes seconds to import.
    from data_schemas.splats import layout_for
    from encoders.anchors import anchors
    from models.registry import MODELS, DataSpec, measure_model

    colours = int(channels)
    points = tuple((float(x), float(y)) for x, y in anchors(gaussians, size, size))
    measured: dict[str, dict[str, dict[str, float]]] = {}
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("model", "preset", "parameters", "GFLOP/step", "what"):
        table.add_column(column, justify="right" if column in ("parameters", "GFLOP/step") else "left")
    for name, entry in MODELS.items():
        spec = DataSpec(
            kind=entry.sees,
            gaussians=gaussians,
            features=5 + colours if entry.sees == "splats" else 0,
            groups=2 if entry.sees == "splats" else 1,
            height=size,
            width=size,
            channels=colours,
            classes=classes if entry.takes_labels else 0,
            anchors=points if entry.needs_slots or entry.draws else None,
            layout=layout_for(colours).name if entry.draws else "",
        )
        for preset in entry.presets:
            cost = measure_model(name, preset, spec)
            measured.setdefault(name, {})[preset] = dataclasses.asdict(cost)
            summary = entry.summary if preset == next(iter(entry.presets)) else ""
            table.add_row(name, preset, f"{cost.parameters:,}", f"{cost.gflop:.2f}", summary)
    if as_json:
        print_json(measured)
        return
    stdout().print(table)
    say(f"For K = {gaussians} and images of {size} x {size} x {colours}; one evaluation of one image.")
