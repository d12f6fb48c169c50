"""Flow ``encode``: images to a store, with the PSNR report as artifacts.

The store is the only truth: what is left to do is read from its rows, so running again is resuming, and Prefect's
own cache and results stay off. One task is a shard of some thousands of images, never one image: a task run costs
Prefect tens of milliseconds, and a few hundred per run are what its small database bears.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import Logger, LoggerAdapter
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from pydantic import Field

from data_schemas.errors import JobError, SplatSpaceError, StoreMismatchError
from data_schemas.splats import ColourRange, SplatDtype, StartName
from data_schemas.stores import open_store
from flows.artifacts import harmless, progress_reporter, publish_report
from pipeline.encode import (
    BlockSummary,
    EncodePlan,
    EncodeSummary,
    FailedImage,
    encode_blocks,
    finish_encode,
    plan_encode,
)
from pipeline.jobs import EngineName, resolve_job
from pipeline.presets import Split
from pipeline.report import build_report

IMAGES_PER_TASK = 4096
"""Fewest images of a task: some seconds of work, against tens of milliseconds that Prefect adds."""

MOST_TASKS = 200
"""Most tasks of a run: a larger set gets larger tasks."""

MOST_FAILED_LOGGED = 20

RETRY_DELAYS = [2.0, 20.0]
"""Seconds before the first and the second retry of a shard."""


def shards(blocks: Sequence[int], block_rows: int, images_per_task: int = IMAGES_PER_TASK) -> list[tuple[int, ...]]:
    """Groups neighbouring blocks into tasks.

    Args:
        blocks: numbers of the blocks that have work, ascending.
        block_rows: rows of a block.
        images_per_task: fewest images of a task, the last one aside.

    Returns:
        at most ``MOST_TASKS`` groups that hold every block once, in order.
    """
    size = max(-(-images_per_task // block_rows), -(-len(blocks) // MOST_TASKS), 1)
    return [tuple(blocks[first : first + size]) for first in range(0, len(blocks), size)]


def may_help_to_retry(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether a failed shard is worth another try: not where the job itself is wrong."""
    try:
        state.result()
    except (JobError, StoreMismatchError):
        return False
    except Exception:  # the question is only which kind it is; the task raises it itself
        return True
    return True


def warn_of_failed(logger: Logger | LoggerAdapter[Logger], failed: Sequence[FailedImage]) -> None:
    """Names the images without splats in the log; beyond ``MOST_FAILED_LOGGED`` it names the rest by their number."""
    for image in failed[:MOST_FAILED_LOGGED]:
        logger.warning("row %d, %s, has no splats: %s", image.row, image.source_id, image.reason)
    if len(failed) > MOST_FAILED_LOGGED:
        logger.warning("and %d more: report.json names them all", len(failed) - MOST_FAILED_LOGGED)


@task(
    name="encode-shard",
    task_run_name="blocks {first} to {last}",
    retries=2,
    retry_delay_seconds=RETRY_DELAYS,
    retry_condition_fn=may_help_to_retry,
    cache_policy=NO_CACHE,
    persist_result=False,
)
def encode_shard(plan: EncodePlan, blocks: tuple[int, ...], first: int, last: int) -> list[BlockSummary]:
    """Encodes some blocks of a store.

    A retry is cheap: rows that the failed try has finished are kept.

    Args:
        plan: what ``plan_encode`` returned.
        blocks: which blocks.
        first: the first of them, for the name of the task run.
        last: the last of them, for the name of the task run.
    """
    logger = get_run_logger()
    summaries = encode_blocks(plan, blocks)
    for block, summary in zip(blocks, summaries, strict=True):
        logger.info(
            "block %d: %d images, %d fitted, %d reused, %d kept, %d failed, %s",
            block, summary.images, summary.fitted, summary.reused, summary.kept, len(summary.failed),
            "no PSNR" if summary.psnr is None else f"{summary.psnr:.2f} dB",
        )  # fmt: skip
        warn_of_failed(logger, summary.failed)
    return summaries


@flow(name="encode", flow_run_name="{dataset} to {out}", persist_result=False)
def encode(
    dataset: str,
    out: Path,
    data_dir: Path | None = None,
    split: Split | None = None,
    size: Annotated[int, Field(ge=1)] | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    gaussians: Annotated[int, Field(ge=1)] | None = None,
    steps: Annotated[int, Field(ge=0)] | None = None,
    target_psnr: Annotated[float, Field(gt=0, le=120)] | None = None,
    colours: ColourRange | None = None,
    start: StartName | None = None,
    codec: Literal["additive", "normalised"] | None = None,
    dtype: SplatDtype | None = None,
    engine: EngineName = "auto",
    seed: Annotated[int, Field(ge=0)] = 0,
    workers: Annotated[int, Field(ge=1)] | None = None,
    images_per_task: Annotated[int, Field(ge=1)] = IMAGES_PER_TASK,
) -> EncodeSummary:
    """Fits exactly K 2D Gaussians to every image of a data set and reports the PSNR of what was stored.

    Run it again with the same parameters and it continues: finished images are kept, failed ones are tried again.
    What is left out is as the preset of the data set says.

    Args:
        dataset: mnist, sprites, sprites64, cifar10, cats, demo, or the path of a folder, .zip, .npz or .npy.
        out: the store, ending in .zarr or .h5; relative to the folder in which the flow runs.
        data_dir: folder that holds the data set's files; without it they are downloaded once.
        split: part of the data set.
        size: resize the images to this many pixels a side.
        limit: only the first images of the data set.
        gaussians: K, Gaussians per image.
        steps: most optimiser steps per image.
        target_psnr: stop an image at this PSNR, in dB.
        colours: bounded (each in 0 to 1) or signed.
        start: where Gaussians begin.
        codec: how Gaussians make an image.
        dtype: type of the stored numbers.
        engine: what fits; auto takes the fastest that runs here.
        seed: seeds the adaptive start.
        workers: threads of the engine; without it, every processor.
        images_per_task: fewest images of one task.

    Returns:
        what was encoded, kept and failed.

    Raises:
        SplatSpaceError: the job cannot be run, or a shard failed after its retries (all others are done by then).
    """
    logger = get_run_logger()
    job = resolve_job(
        dataset, out, data_dir=data_dir, split=split, size=size, limit=limit, gaussians=gaussians, steps=steps,
        target_psnr=target_psnr, colours=colours, start=start, codec=codec, dtype=dtype, engine=engine, seed=seed,
        workers=workers,
    )  # fmt: skip
    plan = plan_encode(job)
    groups = shards(plan.blocks, plan.header.block_rows, images_per_task)
    logger.info("%s: %d blocks with work in %d tasks", job.out, len(plan.blocks), len(groups))
    show_progress = progress_reporter(len(groups), f"shards of {job.out.name}")

    summaries: list[BlockSummary] = []
    failures: list[str] = []
    for finished, blocks in enumerate(groups, 1):
        # One at a time: the engine uses every core itself, and an HDF5 store has one writer.
        try:
            summaries += encode_shard(plan, blocks, blocks[0], blocks[-1])
        except Exception as error:  # whatever a shard failed of, the others are encoded before the run fails
            failures.append(f"blocks {blocks[0]} to {blocks[-1]}: {error}")
        show_progress(finished)

    summary = finish_encode(plan, summaries)
    summary = summary.model_copy(update={"report": publish(dataset, job.out)})
    if failures:
        raise SplatSpaceError(
            f"{len(failures)} of {len(groups)} shards failed after their retries; {failures[0]}",
            next_step="mend the cause and run the same parameters again: what is done is kept",
        )
    return summary


def publish(dataset: str, store_path: Path) -> Path | None:
    """Writes the report beside the store and keeps its figures as artifacts; what goes wrong is logged, not raised.

    Returns:
        path of ``report.html``, or None where the report could not be made.
    """
    folder = store_path.with_name(store_path.stem + "-report")
    with harmless("report"), open_store(store_path) as store:
        summary = build_report(store, folder)
        publish_report(
            dataset, summary.report, store=store_path, html_report=summary.html_path, panel=summary.panel_path
        )
        return summary.html_path
    return None
