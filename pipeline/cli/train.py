"""``splatspace train`` and ``splatspace models``: a store to a generator; the generators and what a step costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich import box
from rich.table import Table

from models.descriptions import DESCRIPTIONS
from pipeline.cli.job_options import options_from
from pipeline.cli.progress_bar import work_progress
from pipeline.cli.terminal import print_json, say, stdout, stop_on_signal, warn
from pipeline.format import format_duration, format_loss, format_rate, list_names, list_parts
from pipeline.model_costs import USUAL, CostedData, model_costs
from pipeline.train.job import KindName, TrainJob, TrainRequest

if TYPE_CHECKING:
    from pipeline.train.state import TrainProgress, TrainSummary

TRAIN_EXAMPLES = (
    "splatspace train splats --store mnist.zarr --out runs/mnist --preset tiny --steps 2000",
    "splatspace train splats --store sprites.zarr --out runs/sprites --model set",
    "splatspace train splats --store sprites.zarr --out runs/loss --render-loss 20",
    "splatspace train pixels --store mnist.zarr --out runs/pixels --model pixel-dit",
    "splatspace train cats --head splats --store cats.zarr --out runs/cats",
    "splatspace train cats --head lut --recipe published --store cats.zarr --out runs/lut --preset full",
    "splatspace train splats --distil runs/sprites --evaluations 4 --out runs/sprites-4",
    "splatspace train splats --out runs/mnist --resume",
)


@options_from(TrainJob, TrainRequest)
def train(
    kind: KindName,
    out: Path,
    store: str | None = None,
    *,
    track: Annotated[
        list[str] | None, typer.Option(help="Tracker to log to as well: wandb or mlflow (extras); may be repeated.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a run that was stopped.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    **options: Any,
) -> None:
    """Trains a generator on a store: model.safetensors, card.md, log.jsonl and sample grids in the run's folder.

    Stopped or killed, it goes on with --resume; on one CPU the result is the same bit for bit.
    """
    # Imports that take seconds come after the command line has been read.
    from pipeline.train.request import resolve_request
    from pipeline.train.train import train as run

    job = resolve_request(kind, store, out, resume=resume, **options)
    with stop_on_signal() as should_stop, work_progress("train", "step {done:,} of {total:,}: {words}") as show:

        def progress(made: TrainProgress) -> None:
            show(made.step, made.steps, _words(made))

        summary = run(job, resume=resume, progress=progress, should_stop=should_stop, trackers=track or ())
    if not summary.rank:  # the other processes of a training say the same
        _show(summary, as_json=as_json)


def _show(summary: TrainSummary, *, as_json: bool) -> None:
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        took = list_parts(
            f"{summary.steps:,} steps",
            format_duration(summary.seconds),
            format_rate(summary.images_per_second),
            format_loss(summary.loss),
        )
        network = f"{summary.model} ({summary.preset}), {summary.parameters:,} parameters"
        say(f"{network}, on {summary.images:,} images: {took}")
        say(f"model:   {summary.checkpoint}")
        say(f"card:    {summary.run / 'card.md'}")
        say(f"samples: {summary.run / 'samples'}")
        if summary.held_out:
            say(f"held out for evaluation: {summary.held_out:,} images")
    if summary.repeats:
        named = ", ".join(summary.repeats_named[:5])
        warn(f"Note: {summary.repeats:,} rows repeat earlier ones and were not used: {named}")
    if summary.unfinished:
        named = list_names(summary.unfinished_named, count=summary.unfinished)
        warn(f"Warning: {summary.unfinished:,} rows of the store are not done and were not used: {named}")


def _words(progress: TrainProgress) -> str:
    left = progress.seconds_left
    return list_parts(
        format_loss(progress.loss),
        format_rate(progress.images_per_second),
        "" if left is None else f"{format_duration(left)} left",
    )


MODELS_EXAMPLES = (
    "splatspace models",
    "splatspace models --gaussians 70 --size 28 --channels 1",
    "splatspace models --json",
)


def models(
    gaussians: Annotated[
        int, typer.Option("--gaussians", "-k", min=1, max=100_000, help="Gaussians per image (K).")
    ] = USUAL.gaussians,
    size: Annotated[int, typer.Option(min=8, max=16_384, help="Image size in pixels a side.")] = USUAL.size,
    channels: Annotated[Literal["1", "3"], typer.Option(help="Channels of the images.")] = "3",
    classes: Annotated[int, typer.Option(min=0, max=1_000_000, help="Number of classes; 0 for none.")] = USUAL.classes,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the table.")] = False,
) -> None:
    """Lists the generators with their parameters and GFLOP per evaluation, counted without computing anything."""
    costs = model_costs(CostedData(gaussians, size, int(channels), classes))
    if as_json:
        print_json(costs)
        return
    table = Table(box=box.SIMPLE, pad_edge=False)
    for column in ("model", "preset", "parameters", "GFLOP/step", "what"):
        table.add_column(column, justify="right" if column in ("parameters", "GFLOP/step") else "left")
    for name, presets in costs.items():
        summary = DESCRIPTIONS[name].summary
        for preset, cost in presets.items():
            table.add_row(name, preset, f"{cost['parameters']:,}", f"{cost['gflop']:.2f}", summary)
            summary = ""
    stdout().print(table)
    say(f"For K = {gaussians} and images of {size} x {size} x {channels}; one evaluation of one image.")
