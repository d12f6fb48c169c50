"""``splatspace evaluate``: how good a trained generator is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.progress_bar import count_progress
from pipeline.cli.terminal import print_json, say, stdout

EVALUATE_EXAMPLES = (
    "splatspace evaluate RUN --store sprites.zarr",
    "splatspace evaluate RUN --store mnist.zarr --images 2000 --evaluations 20 --sweep 5,10,50",
    "splatspace evaluate RUN --store mnist.zarr --against OTHER/evaluation",
    "splatspace evaluate RUN --store sprites.zarr --reference sprites-test.zarr",
    "splatspace evaluate RUN_OF_PIXELS --store sprites.zarr --splats",
    "splatspace evaluate RUN --store cifar10.zarr --features inception --images 5000",
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Folder of a training, or its model.safetensors.")],
    store: Annotated[
        str, typer.Option("--store", "-s", help="The store that it was trained on, with its source images.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the report. Default: RUN/evaluation.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Store of images that nothing learned from, to compare with. Default: those of --store."),
    ] = None,
    features: Annotated[
        Literal["auto", "classifier", "selfsup", "inception"],
        typer.Option(help="Features of the distances. auto: classifier where every image has a label, else selfsup."),
    ] = "auto",
    images: Annotated[
        int | None,
        typer.Option(
            "--images", "-n", min=1, help="Number of images of each set. Default: 1000, at most half of the store."
        ),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(min=1, help="Number of function evaluations (NFE) per image. Default: the objective's."),
    ] = None,
    sweep: Annotated[
        str | None, typer.Option(help="Further NFE to measure, as 5,10,50. Default: a quarter and a half of the first.")
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(help="Sampler: dpmpp-2m, heun, euler, ddim or ancestral. Default: the objective's.")
    ] = None,
    guidance: Annotated[float, typer.Option(help="Strength of classifier-free guidance; 1 for none.")] = 1.0,
    splats: Annotated[
        bool, typer.Option("--splats", help="Also fit Gaussians to what a generator of pixels draws and measure them.")
    ] = False,
    gaussians: Annotated[
        int | None,
        typer.Option(
            "--gaussians",
            "-k",
            help="With --splats: Gaussians per image. Default: as in the store that was learned from.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="With --splats: optimiser steps of the fit. Default: as in that store.")
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="File or folder of the Inception network's weights. "
            "Default: $SPLATSPACE_INCEPTION_WEIGHTS, else a download."
        ),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="Evaluation of another generator (folder or JSON) for one table; may be repeated."),
    ] = None,
    ablation: Annotated[
        Path | None, typer.Option(help="Folder of splatspace ablate: its table and picture go into the page.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device: auto, cpu, cuda or mps.")] = "auto",
    batch: Annotated[int, typer.Option(min=1, help="Number of images at once.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the samples and of the choice of originals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json instead of the table.")] = False,
) -> None:
    """Measures FID, KID, precision, recall and more against the originals, with floors; writes JSON and one page."""
    from pipeline.evaluate.evaluate import evaluate as measure
    from pipeline.evaluate.job import EvaluateJob
    from pipeline.evaluate.reading import scores_table
    from pipeline.train.state import run_folder

    job = EvaluateJob(
        run=run,
        store=store,
        out=out or run_folder(run) / "evaluation",
        reference=reference,
        images=images,
        evaluations=evaluations,
        sweep=_numbers(sweep),
        sampler=sampler,
        guidance=guidance,
        features=features,
        splats=splats,
        gaussians=gaussians,
        steps=steps,
        weights=weights,
        against=tuple(against or ()),
        ablation=ablation,
        batch=batch,
        seed=seed,
    )
    with count_progress("evaluate") as progress:
        found = measure(job, device=device, progress=progress)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    stdout().print(scores_table(found))
    say(f"evaluation: {job.out / 'evaluation.html'}")


def _numbers(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r}: whole numbers with commas, as 5,10,50", param_hint="--sweep") from None
