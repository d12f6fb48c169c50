"""Flow ``encode``: images to a store, with the PSNR report as an artifact.

The store is the only truth: what is left to do is read from its rows, so running again is resuming, and Prefect's
own cache and results stay off. One task is a shard of some thousands of images, never one image: a task run costs
Prefect tens of milliseconds, and a few hundred per run are what its small database bears.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from data_schemas.errors import JobError
from data_schemas.locations import Location
from data_schemas.splats import ColourRange, SplatDtype, StartName
from data_schemas.stores.open import open_store
from encoders.base import MAX_GAUSSIANS, MAX_ROUNDS, MAX_STEPS
from flows.artifacts.report import harmless, publish_report
from flows.guards import PathText, PsnrFloor, require_inside_roots, require_quality
from flows.logs import follow_prefect
from flows.shard_runs import ShardRuns, ShardsFailed
from pipeline.documents import report_folder
from pipeline.encode.compute.local import IMAGES_PER_SHARD
from pipeline.encode.job import resolve_job
from pipeline.encode.presets import EngineName, RefineName, Split
from pipeline.encode.records import EncodeSummary
from pipeline.encode.run import encode as encode_images
from pipeline.report import ReportSummary, build_report
from pipeline.report.build import current_report
from pipeline.sources import MOST_SIZE

follow_prefect()


@flow(name="encode", flow_run_name="{dataset} to {out}", persist_result=False)
def encode(
    dataset: PathText,
    out: PathText,
    data_dir: Path | None = None,
    split: Split | None = None,
    size: Annotated[int, Field(ge=1, le=MOST_SIZE)] | None = None,
    background: str | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    gaussians: Annotated[int, Field(ge=0, le=MAX_GAUSSIANS)] | None = None,
    steps: Annotated[int, Field(ge=0, le=MAX_STEPS)] | None = None,
    target_psnr: Annotated[float, Field(gt=0, le=120)] | None = None,
    rounds: Annotated[int, Field(ge=1, le=MAX_ROUNDS)] | None = None,
    colours: ColourRange | None = None,
    start: StartName | None = None,
    refine: RefineName = "none",
    codec: Literal["additive", "normalised", "over"] | None = None,
    dtype: SplatDtype | None = None,
    engine: EngineName = "auto",
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0,
    workers: Annotated[int, Field(ge=1, le=4096)] | None = None,
    compute: Annotated[str, Field(pattern=r"^(local|dask|(tcp|tls)://\S+:[0-9]+)$")] = "local",
    versions: bool = False,
    min_psnr: PsnrFloor | None = None,
    min_psnr_p1: PsnrFloor | None = None,
    images_per_task: Annotated[int, Field(ge=1)] = IMAGES_PER_SHARD,
) -> EncodeSummary:
    """Fits exactly K 2D Gaussians to every image of a data set and reports the PSNR of what was stored.

    Run it again with the same parameters and it continues: finished images are kept, failed ones are tried again.
    What is left out is as the preset of the data set says.

    Args:
        dataset: mnist, sprites, sprites64, cifar10, cats, demo, or the path of a folder, .zip, .npz or .npy.
        out: the store, ending in .zarr or .h5; relative to the folder in which the flow runs.
        data_dir: folder that holds the files of a named data set; without it they are downloaded once.
        split: part of the data set.
        size: resize the images to this many pixels a side.
        background: what transparent images are laid over: black, white, another name of a colour, or #rrggbb.
        limit: only the first images of the data set.
        gaussians: K, Gaussians per image; 0 stores the images only, for generators of pixels.
        steps: most optimiser steps per image, in the first round.
        target_psnr: stop an image at this PSNR, in dB.
        rounds: an image that misses target_psnr goes on, each round twice as long as the last.
        colours: bounded (each in 0 to 1) or signed.
        start: where Gaussians begin; generators learn best from transport.
        refine: regressed fits twice, the second time from starts that the pixels foretell.
        codec: how Gaussians make an image.
        dtype: type of the stored numbers.
        engine: what fits; auto takes the fastest that runs here.
        seed: seeds the adaptive start.
        workers: threads of the engine, or worker processes with compute = dask; without it, one per processor.
        compute: local (this process), dask (worker processes on this machine) or tcp://HOST:PORT of a scheduler.
        versions: where the store was made with other settings, leave it alone and write NAME.v2.zarr, NAME.v3.zarr ...
        min_psnr: fail the run, after writing everything, where the PSNR of the mean error is below this, in dB.
        min_psnr_p1: fail the run, after writing everything, where the PSNR of the 1st percentile is below this, in dB.
        images_per_task: fewest images of one task; a large set gets larger tasks, at most 200 in all.

    Returns:
        what was encoded, kept and failed.

    Raises:
        SplatSpaceError: the job cannot be run, a shard failed after its retries (all others are done by then), or
            the quality falls short.
    """
    job = resolve_job(
        dataset, out, data_dir=data_dir, split=split, size=size, background=background,
        limit=limit, gaussians=gaussians, steps=steps,
        target_psnr=target_psnr, rounds=rounds, colours=colours, start=start, refine=refine, codec=codec, dtype=dtype,
        engine=engine, seed=seed, workers=workers, compute=compute, versions=versions,
    )  # fmt: skip
    if job.gaussians == 0 and (min_psnr is not None or min_psnr_p1 is not None):
        raise JobError("min_psnr of a store of images only", allowed="gaussians of 1 or more, or no floor")
    require_inside_roots(dataset=dataset, out=out, data_dir=data_dir, report=str(report_folder(job.out)))
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
    counts = {
        "fitted": summary.fitted,
        "copied from identical images": summary.reused,
        "kept": summary.kept,
        "failed": len(summary.failed),
    }
    said = ", ".join(f"{number:,} {what}" for what, number in counts.items() if number)
    logger.info("%s images in %.0f s: %s: %s", f"{summary.images:,}", summary.wall_seconds, said, summary.store)


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
