"""Flow ``encode``: images to a store, with the PSNR report as an artifact.

The store is the only truth: what is left to do is read from its rows, so running again is resuming, and Prefect's
own cache and results stay off. One task is a shard of some thousands of images, never one image: a task run costs
Prefect tens of milliseconds, and a few hundred per run are what its small database bears.
"""

from __future__ import annotations

import threading
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from data_schemas.errors import JobError
from data_schemas.locations import Location
from data_schemas.stores.open import open_store
from flows.artifacts.report import harmless, publish_report
from flows.guards import PsnrFloor, require_inside_roots, require_quality
from flows.logs import follow_prefect
from flows.parameters import parameters_from
from flows.shard_runs import ShardRuns, ShardsFailed
from pipeline.documents import report_folder
from pipeline.encode.compute.local import IMAGES_PER_SHARD
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.records import EncodeSummary, list_outcomes
from pipeline.encode.run import encode as encode_images
from pipeline.report import ReportSummary, build_report
from pipeline.report.build import current_report

follow_prefect()


@flow(name="encode", flow_run_name="{dataset} to {out}", persist_result=False)
@parameters_from(EncodeJob)
def encode(
    dataset: str,
    out: str,
    *,
    min_psnr: Annotated[
        PsnrFloor | None,
        Field(
            description="Fail the run, after writing everything, where the PSNR of the mean error is below this, in dB."
        ),
    ] = None,
    min_psnr_p1: Annotated[
        PsnrFloor | None,
        Field(
            description="Fail the run, after writing everything, where the PSNR of the 1st percentile is below this, "
            "in dB."
        ),
    ] = None,
    images_per_task: Annotated[
        int, Field(ge=1, description="Fewest images of one task; a large set gets larger tasks, at most 200 in all.")
    ] = IMAGES_PER_SHARD,
    **options: Any,
) -> EncodeSummary:
    """Fits exactly K 2D Gaussians to every image of a data set and reports the PSNR of what was stored.

    Run it again with the same parameters and it continues: finished images are kept, failed ones are tried again.
    What is left out is as the preset of the data set says; paths are relative to the folder in which the flow runs.

    Returns:
        what was encoded, kept and failed.

    Raises:
        SplatSpaceError: the job cannot be run, a shard failed after its retries (all others are done by then), or
            the quality falls short.
    """
    job = resolve_job(dataset, out, **options)
    if job.gaussians == 0 and (min_psnr is not None or min_psnr_p1 is not None):
        raise JobError("min_psnr of a store of images only", allowed="gaussians of 1 or more, or no floor")
    require_inside_roots(dataset=dataset, out=out, data_dir=job.data_dir, report=str(report_folder(job.out)))
    stop = threading.Event()
    # With Prefect's tasks for shards; the first fit of refine = regressed is run in the same way.
    runs = ShardRuns(stop, images_per_task)
    try:
        summary = encode_images(job, should_stop=stop.is_set, run_shards=runs)
    except ShardsFailed as error:
        # Whatever is done is reported; a first fit is not what was asked for.
        if error.store.parent == job.out.parent:
            publish(error.store)
        raise
    tell_outcome(summary)
    built = publish(summary.store)
    html = None if built is None else built.html_path
    require_quality(
        None if built is None else built.report,
        min_psnr=min_psnr, min_psnr_p1=min_psnr_p1, store=summary.store, html_report=html,
    )  # fmt: skip
    return summary.model_copy(update={"report": html})


def tell_outcome(summary: EncodeSummary) -> None:
    """Says in the log what a run has done, or that there was nothing to do."""
    logger = get_run_logger()
    if not (summary.fitted or summary.reused or summary.failed):
        logger.info("nothing to do: all %s images are in %s, unchanged", f"{summary.images:,}", summary.store)
        return
    logger.info(
        "%s images in %.0f s: %s: %s",
        f"{summary.images:,}", summary.wall_seconds, list_outcomes(summary), summary.store,
    )  # fmt: skip


def publish(path: Location) -> ReportSummary | None:
    """Writes the report beside a store and keeps it as an artifact; what goes wrong is logged, not raised.

    Args:
        path: of the store.

    Returns:
        the report; None where it could not be made, or where the store holds images only.
    """
    with harmless("report"):
        folder = report_folder(path)
        with open_store(path) as store:
            if not store.header.gaussians:
                get_run_logger().info("report: none, the store holds images only")
                return None
            # A night without new images is over in seconds; its point in the history is published all the same.
            built = current_report(store, folder) or build_report(store, folder)
        publish_report(built, path)
        return built
    return None
