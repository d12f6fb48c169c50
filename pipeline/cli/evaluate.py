"""``splatspace evaluate``: how good a trained generator is."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.job_options import options_from
from pipeline.cli.progress_bar import count_progress
from pipeline.cli.terminal import print_json, say, stdout
from pipeline.evaluate.job import EvaluateJob, resolve_evaluate_job
from pipeline.options import DeviceOption

EVALUATE_EXAMPLES = (
    "splatspace evaluate RUN --store sprites.zarr",
    "splatspace evaluate RUN --store mnist.zarr --images 2000 --evaluations 20 --sweep 5,10,50",
    "splatspace evaluate RUN --store mnist.zarr --against OTHER/evaluation",
    "splatspace evaluate RUN --store sprites.zarr --reference sprites-test.zarr",
    "splatspace evaluate RUN_OF_PIXELS --store sprites.zarr --splats",
    "splatspace evaluate RUN --store cifar10.zarr --features inception --images 5000",
)


@options_from(EvaluateJob, DeviceOption)
def evaluate(
    run: Path,
    store: str,
    *,
    device: str = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print evaluation.json instead of the table.")] = False,
    **options: Any,
) -> None:
    """Measures FID, KID, precision, recall and more against the originals, with floors; writes JSON and one page."""
    from pipeline.evaluate.evaluate import evaluate as measure
    from pipeline.evaluate.reading import scores_table

    job = resolve_evaluate_job(run, store, **options)
    with count_progress("evaluate") as progress:
        found = measure(job, device=device, progress=progress)
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    stdout().print(scores_table(found))
    say(f"evaluation: {job.out / 'evaluation.html'}")
