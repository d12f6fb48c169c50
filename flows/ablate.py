"""Flow ``ablate``: one choice at a time around a base configuration, with the table and the image as an artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact

from data_schemas.errors import SplatSpaceError
from flows.artifacts.progress import ProgressBar
from flows.artifacts.report import artifact_key, escape, harmless, picture, places, small_sheet, table
from flows.guards import require_inside_roots
from flows.logs import follow_prefect
from flows.parameters import parameters_from
from flows.stop import run_stoppably
from pipeline.evaluate.ablate.job import AblateJob, resolve_ablate_job
from pipeline.evaluate.ablate.report import (
    ABLATION_HEADER,
    JSON_FILE,
    MARKDOWN_FILE,
    PICTURE_FILE,
    Ablation,
    ablation_cells,
    ablation_words,
)

follow_prefect()


@flow(name="ablate", flow_run_name="{store} to {out}", persist_result=False)
@parameters_from(AblateJob)
def ablate(store: str, out: str, *, axes: str | None = None, **options: Any) -> Path:
    """Trains and evaluates a base generator and others that differ from it in one choice; run again, it continues.

    Several axes stand behind one another: pack=1,2,4; objective; ema=no.

    Returns:
        path of ablation.md.

    Raises:
        SplatSpaceError: the job cannot be run, or a point failed (all others are done by then).
    """
    # Here, so that those who only serve or deploy the flow do not wait seconds for the packages of a training.
    from pipeline.evaluate.ablate.ablate import ablate as run_ablation

    require_inside_roots(store=store, out=out)
    parts = [part for part in (axes or "").split(";") if part.strip()]
    job = resolve_ablate_job(store, out, axes=parts, **options)
    with ProgressBar("ablation") as bar:

        def work(should_stop: Callable[[], bool]) -> Ablation:
            return run_ablation(job, progress=bar.show, should_stop=should_stop)

        found = run_stoppably(work)
    page = job.out / MARKDOWN_FILE
    get_run_logger().info("ablation: %s", page)
    publish_ablation(found, job)
    if found.failures:
        raise SplatSpaceError(
            f"{len(found.failures)} choices have failed trainings: "
            + "; ".join(f"{row.axis} {row.value}: {row.failure}" for row in found.failures),
            next_step=f"see {page}; run the same parameters again to try them again",
        )
    return page


def publish_ablation(found: Ablation, job: AblateJob) -> None:
    """Keeps an ablation under the key ``ablation-<set>``. Never raises.

    Args:
        found: the rows.
        job: for the places of its files.
    """
    key = artifact_key(found.source, "ablation")
    with harmless(f"artifact {key}"):
        sections = [
            f"# Ablation on {escape(found.source)}",
            escape(ablation_words(found)),
            *picture(small_sheet((job.out / PICTURE_FILE).read_bytes()), "FID by choice"),
            table(ABLATION_HEADER, [ablation_cells(row) for row in found.rows]),
            *places([(name, job.out / name) for name in (MARKDOWN_FILE, JSON_FILE, PICTURE_FILE)]),
        ]
        create_markdown_artifact("\n\n".join(sections) + "\n", key=key, description=ablation_described(found))


def ablation_described(found: Ablation) -> str:
    """An ablation in one line, for the page of its history."""
    measured = [(row.fid, f"{row.axis} {row.value}") for row in found.rows if row.fid is not None]
    lowest = f", lowest FID {min(measured)[0]:.2f} ({min(measured)[1]})" if measured else ""
    failed = f", {len(found.failures)} failed" if found.failures else ""
    number = "1 choice" if len(found.rows) == 1 else f"{len(found.rows)} choices"
    return f"{number}{lowest}{failed}"
