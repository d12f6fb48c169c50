"""``splatspace ablate``: what each choice of a generator is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import TaskProgressColumn

from pipeline.cli.job_options import options_from
from pipeline.cli.progress_bar import work_progress
from pipeline.cli.terminal import print_json, say, stdout, stop_on_signal, warn
from pipeline.evaluate.ablate.job import AblateJob, resolve_ablate_job

ABLATE_EXAMPLES = (
    "splatspace ablate --store mnist.zarr --out ablation --limit 4000 --steps 2000",
    "splatspace ablate --store mnist.zarr --out ablation --axis pack=1,2,4 --axis objective --seeds 3",
    "splatspace evaluate RUN --store mnist.zarr --ablation ablation",
)


@options_from(AblateJob)
def ablate(
    store: str,
    out: Path,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print ablation.json instead of the table.")] = False,
    **options: Any,
) -> None:
    """Changes one choice at a time around a base configuration; each point is trained and evaluated.

    Stores with another K or another start are made from the images of the base store.
    """
    from pipeline.evaluate.ablate.ablate import ablate as run
    from pipeline.evaluate.ablate.report import MARKDOWN_FILE, ablation_table, ablation_words

    job = resolve_ablate_job(store, out, **options)
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
