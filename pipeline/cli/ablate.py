"""``splatspace ablate``: what each choice of a generator is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import TaskProgressColumn

from pipeline.cli.progress_bar import work_progress
from pipeline.cli.terminal import print_json, say, stdout, stop_on_signal, warn

ABLATE_EXAMPLES = (
    "splatspace ablate --store mnist.zarr --out ablation --limit 4000 --steps 2000",
    "splatspace ablate --store mnist.zarr --out ablation --axis pack=1,2,4 --axis objective --seeds 3",
    "splatspace evaluate RUN --store mnist.zarr --ablation ablation",
)


def ablate(
    store: Annotated[str, typer.Option("--store", "-s", help="The base store of splats, with its source images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the ablation; run again, it continues.")],
    axis: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME[=A,B]",
            help="gaussians, start, pack, objective, normalisation, covariance, evaluations, render_loss or ema, with "
            "its values; may be repeated. Default: all.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model of the base. Default: splatdit.")] = None,
    preset: Annotated[
        Literal["tiny", "small", "medium", "full"] | None, typer.Option(help="Size of the model. Default: tiny.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps of each training. Default: 2000.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Images per step. Default: 64.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak of the learning rate. Default: as in train.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Learn from the first N finished images only.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Number of trainings of each point. Default: 1.")] = None,
    images: Annotated[
        int | None, typer.Option("--images", "-n", min=1, help="Number of images of each set that is compared.")
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(min=1, help="Number of function evaluations (NFE) per image. Default: the objective's."),
    ] = None,
    features: Annotated[
        Literal["auto", "classifier", "selfsup", "inception"] | None,
        typer.Option(help="Features in which distances are measured."),
    ] = None,
    device: Annotated[str | None, typer.Option(help="Device: auto, cpu, cuda or mps. Default: auto.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Threads of the encoder, where stores are made.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print ablation.json instead of the table.")] = False,
) -> None:
    """Changes one choice at a time around a base configuration; each point is trained and evaluated.

    Stores with another K or another start are made from the images of the base store.
    """
    from pipeline.evaluate.ablate.ablate import ablate as run
    from pipeline.evaluate.ablate.job import resolve_ablate_job
    from pipeline.evaluate.ablate.report import MARKDOWN_FILE, ablation_table, ablation_words

    job = resolve_ablate_job(
        store, out, axes=axis or (), model=model, preset=preset, steps=steps, batch=batch, learning_rate=learning_rate,
        limit=limit, seeds=seeds, images=images, evaluations=evaluations, features=features, device=device,
        workers=workers,
    )  # fmt: skip
    shown = work_progress("ablate", "{done:.0f} %, {words}", TaskProgressColumn())
    with stop_on_signal() as should_stop, shown as show:
        found = run(job, progress=lambda share, words: show(100 * share, 100, words), should_stop=should_stop)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        stdout().print(ablation_table(found))
        say(ablation_words(found))
        say(f"ablation: {job.out / MARKDOWN_FILE}")
    if found.failures:
        for row in found.failures:
            warn(f"Failed: {row.axis} {row.value}: {row.failure}")
        raise typer.Exit(1)
