"""Flow ``encode``: images to a store, with the PSNR report as an artifact.

The store is the only truth: what is left to do is read from its rows, so running again is resuming, and Prefect's
own cache and results stay off. One task is a shard of some thousands of images, never one image: a task run costs
Prefect tens of milliseconds, and a few hundred per run are what its small database bears.

Shards as task runs: how many at once, how often, and what becomes of those that fail.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.task_runners import ThreadPoolTaskRunner
from pydantic import Field

from data_schemas.errors import JobError, SplatSpaceError, StoreLockedError, StoreMismatchError
from data_schemas.splats import ColourRange, SplatDtype, StartName
from data_schemas.stores.open import open_store
from encoders.base import MAX_GAUSSIANS, MAX_ROUNDS, MAX_STEPS
from flows.artifacts import ProgressArtifact, harmless, publish_report
from flows.guards import PathText, PsnrFloor, require_inside_roots, require_quality
from flows.stop import settling
from pipeline.documents import report_folder
from pipeline.encode.compute import Compute, check_compute, open_compute
from pipeline.encode.compute.local import IMAGES_PER_SHARD, blocks_per_shard, shards
from pipeline.encode.job import LOCAL, resolve_job
from pipeline.encode.plan import survey
from pipeline.encode.presets import EngineName, RefineName, Split
from pipeline.encode.records import BlockSummary, EncodePlan, EncodeSummary
from pipeline.encode.refine import with_regression
from pipeline.encode.rows import unfinished_rows
from pipeline.encode.session import BlockWatcher
from pipeline.report import ReportSummary, build_report
from pipeline.report.build import current_report
from pipeline.sources import MOST_SIZE

RETRY_DELAYS = (2.0, 20.0)
"""Seconds before the first and the second retry of a shard."""

MOST_FAILED_LOGGED = 20


@dataclass(frozen=True)
class FailedShard:
    """A shard that failed after its retries.

    Attributes:
        blocks: its blocks.
        error: what it failed of.
    """

    blocks: tuple[int, ...]
    error: BaseException


@dataclass
class ShardRuns:
    """What the task runs of one flow run share; opaque to Prefect, which would look into a collection.

    Attributes:
        compute: open.
        stop: set to end the run; polled by the fits and by what waits for a retry.
        watcher: told of progress.
        summaries: of the shards that ended, whole or stopped.
        failures: the shards that failed after their retries, in order.
    """

    compute: Compute
    stop: threading.Event
    watcher: BlockWatcher | None = None
    summaries: list[BlockSummary] = field(default_factory=list)
    failures: list[FailedShard] = field(default_factory=list)

    def encode(self, groups: Sequence[tuple[int, ...]]) -> None:
        """Encodes all shards, ``compute.slots`` at a time; one that fails does not keep the others from it.

        Interrupted, it stops the shards under way, waits for what they have finished and begins no other.

        Args:
            groups: blocks of each shard.
        """
        with ThreadPoolTaskRunner(max_workers=self.compute.slots) as runner, settling(self.stop, runner.cancel_all):
            under_way = [
                runner.submit(encode_shard, {"runs": self, "blocks": blocks, "first": blocks[0], "last": blocks[-1]})
                for blocks in groups
            ]
            for blocks, future in zip(groups, under_way, strict=True):
                try:
                    future.result()
                except Exception as error:  # whatever a shard failed of, the others are encoded before the run fails
                    self.failures.append(FailedShard(blocks, error))


def may_help_to_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed shard is worth another try: not where the job itself is wrong or another run has the store."""
    try:
        state.result()
    except (JobError, StoreMismatchError, StoreLockedError):
        return False
    except Exception:  # the question is only which kind it is; the task raises it itself
        return True
    return True


@task(
    name="encode-shard",
    task_run_name="blocks {first} to {last}",
    retries=len(RETRY_DELAYS),
    retry_condition_fn=may_help_to_retry,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def encode_shard(runs: ShardRuns, blocks: tuple[int, ...], first: int, last: int) -> None:
    """Encodes one shard. A retry is cheap: blocks that the failed try has written are kept.

    Args:
        runs: of the flow run.
        blocks: which blocks.
        first: the first of them, for the name of the task run.
        last: the last of them, for the name of the task run.
    """
    # Prefect's own wait before a retry sleeps through a cancellation.
    tried = int(task_run.run_count or 1) - 1
    if tried and runs.stop.wait(RETRY_DELAYS[min(tried, len(RETRY_DELAYS)) - 1]):
        return
    summary = runs.compute.encode(blocks, watcher=runs.watcher)
    runs.summaries.append(summary)
    logger = get_run_logger()
    logger.info(
        "blocks %d to %d: %d images, %d fitted, %d reused, %d kept, %d failed, %s%s",
        first, last, summary.images, summary.fitted, summary.reused, summary.kept, len(summary.failed),
        _psnr_words(summary.psnr), ", stopped" if summary.stopped else "",
    )  # fmt: skip
    for image in summary.failed[:MOST_FAILED_LOGGED]:
        logger.warning("row %d, %s, has no splats: %s", image.row, image.source_id, image.reason)
    if len(summary.failed) > MOST_FAILED_LOGGED:
        logger.warning("and %d more: report.json names them all", len(summary.failed) - MOST_FAILED_LOGGED)


def _psnr_words(psnr: float | None) -> str:
    if psnr is None:
        return "no PSNR"
    return "no error" if math.isinf(psnr) else f"{psnr:.2f} dB"


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
    logger = get_run_logger()
    job = resolve_job(
        dataset, out, data_dir=data_dir, split=split, size=size, background=background,
        limit=limit, gaussians=gaussians, steps=steps,
        target_psnr=target_psnr, rounds=rounds, colours=colours, start=start, refine=refine, codec=codec, dtype=dtype,
        engine=engine, seed=seed, workers=workers, compute=compute, versions=versions,
    )  # fmt: skip
    if job.gaussians == 0 and (min_psnr is not None or min_psnr_p1 is not None):
        raise JobError("min_psnr of a store of images only", allowed="gaussians of 1 or more, or no floor")
    require_inside_roots(dataset=dataset, out=out, data_dir=data_dir, report=str(report_folder(job.out)))
    check_compute(compute, job.out)
    ready = survey(with_regression(job))
    plan, source, encoder = ready.plan, ready.source, ready.encoder
    groups = shards(
        plan.blocks, plan.header.block_rows, images_per_task,
        blocks_per_shard=blocks_per_shard(plan.header.engine, compute, len(plan.blocks)),
    )  # fmt: skip
    if plan.engine_choice:
        logger.info("engine %s: %s", plan.header.engine, plan.engine_choice)
    logger.info("%s: %d blocks with work in %d tasks", plan.store, len(plan.blocks), len(groups))

    stop = threading.Event()
    local = compute == LOCAL  # Dask's workers open their own
    with (
        open_compute(
            plan,
            should_stop=stop.is_set,
            source_factory=(lambda: source) if local else None,
            encoder_factory=(lambda: encoder) if local else None,
        ) as opened,
        ProgressArtifact(plan) as progress,
    ):
        runs = ShardRuns(opened, stop, progress)
        try:
            runs.encode(groups)
        finally:
            # A run that was cancelled is recorded too: what it has cost counts in the report.
            summary = opened.finish(runs.summaries)
    built = publish(plan)
    html = None if built is None else built.html_path
    if runs.failures:
        raise _failed(plan, runs.failures, len(groups))
    require_quality(
        None if built is None else built.report,
        min_psnr=min_psnr, min_psnr_p1=min_psnr_p1, store=plan.store, html_report=html,
    )  # fmt: skip
    return summary.model_copy(update={"report": html})


def publish(plan: EncodePlan) -> ReportSummary | None:
    """Writes the report beside the store and keeps it as an artifact; what goes wrong is logged, not raised.

    Returns:
        the report; None where it could not be made, or where the store holds images only.
    """
    if not plan.header.gaussians:
        get_run_logger().info("report: none, the store holds images only")
        return None
    with harmless("report"):
        folder = report_folder(plan.store)
        with open_store(plan.store) as store:
            # A night without new images is over in seconds; its point in the history is published all the same.
            built = current_report(store, folder) or build_report(store, folder)
        publish_report(built, plan.store)
        return built
    return None


def _failed(plan: EncodePlan, failures: list[FailedShard], number: int) -> SplatSpaceError:
    """What a run says whose other shards are done: the shards, the images, the first cause."""
    size = plan.header.block_rows
    spans = [
        f"blocks {shard.blocks[0]} to {shard.blocks[-1]} "
        f"(rows {shard.blocks[0] * size} to {min((shard.blocks[-1] + 1) * size, plan.rows) - 1})"
        for shard in failures
    ]
    missing = "not known: the store cannot be read"
    with harmless("list of unfinished images"), open_store(plan.store) as store:
        rows = unfinished_rows(store, [block for shard in failures for block in shard.blocks])
        missing = f"{rows.count:,} ({rows})" if rows.count else "none"
    return SplatSpaceError(
        f"{len(failures)} of {number} shards failed after their retries: {', '.join(spans)}: {failures[0].error}"
        f" Images of theirs without splats: {missing}",
        next_step="mend the cause and run the same parameters again: what is done is kept",
    )
