"""Shards as task runs: how many at once, how often, and what becomes of those that fail."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.task_runners import ThreadPoolTaskRunner

from data_schemas.errors import JobError, SplatSpaceError, StoreLockedError, StoreMismatchError
from data_schemas.stores.open import open_store
from flows.artifacts.progress import ProgressArtifact
from flows.artifacts.report import harmless
from flows.stop import settling
from pipeline.encode.compute import Compute
from pipeline.encode.compute.local import IMAGES_PER_SHARD, blocks_per_shard, shards
from pipeline.encode.records import BlockSummary, EncodePlan, list_outcomes
from pipeline.encode.rows import find_unfinished_rows
from pipeline.encode.session import BlockWatcher
from pipeline.format import format_psnr, list_parts

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


class ShardsFailed(SplatSpaceError):
    """Some shards of a run failed after their retries; all others are done.

    Args:
        plan: of the run.
        failures: the shards.
        number: shards of the run.

    Attributes:
        store: path of the store.
    """

    def __init__(self, plan: EncodePlan, failures: list[FailedShard], number: int) -> None:
        self.store = plan.store
        size = plan.header.block_rows
        spans = [
            f"blocks {shard.blocks[0]} to {shard.blocks[-1]} "
            f"(rows {shard.blocks[0] * size} to {min((shard.blocks[-1] + 1) * size, plan.rows) - 1})"
            for shard in failures
        ]
        missing = "not known: the store cannot be read"
        with harmless("list of unfinished images"), open_store(plan.store) as store:
            rows = find_unfinished_rows(store, [block for shard in failures for block in shard.blocks])
            missing = f"{rows.count:,} ({rows})" if rows.count else "none"
        super().__init__(
            f"{len(failures)} of {number} shards failed after their retries: {', '.join(spans)}: {failures[0].error}"
            f" Images of theirs without splats: {missing}",
            next_step="fix the cause and run the same parameters again: what is done is kept",
        )


class ShardRuns:
    """Carries out plans by task runs of Prefect; a ``RunShards`` of ``pipeline.encode.fit``.

    Interrupted, it stops the shards under way, waits for what they have finished and begins no other.

    Args:
        stop: set to end the run; polled by the fits and by what waits for a retry.
        images_per_task: fewest images of one task.

    Attributes:
        stop: as given.
    """

    def __init__(self, stop: threading.Event, images_per_task: int = IMAGES_PER_SHARD) -> None:
        self.stop = stop
        self._images_per_task = images_per_task

    def __call__(self, compute: Compute, plan: EncodePlan, keep: Callable[[BlockSummary], None]) -> None:
        """Encodes all shards, ``compute.slots`` at a time; one that fails does not keep the others from it.

        Args:
            compute: open.
            plan: what is to be done.
            keep: given the summary of each shard that ended, whole or stopped.

        Raises:
            ShardsFailed: some failed after their retries; all others are done by then.
        """
        logger = get_run_logger()
        groups = shards(
            plan.blocks, plan.header.block_rows, self._images_per_task,
            blocks_per_shard=blocks_per_shard(plan.header.engine, plan.job.compute, len(plan.blocks)),
        )  # fmt: skip
        if not plan.pending:
            logger.info("%s: no image is new; whether one has changed is looked up", plan.store)
        shared = "1 task" if len(groups) == 1 else f"{len(groups):,} tasks"
        logger.info("%s: %d blocks to go through in %s", plan.store, len(plan.blocks), shared)
        failures: list[FailedShard] = []
        with (
            ProgressArtifact(plan) as progress,
            ThreadPoolTaskRunner(max_workers=compute.slots) as runner,
            settling(self.stop, runner.cancel_all),
        ):
            run = ShardRun(compute, self.stop, progress, keep)
            under_way = [
                runner.submit(encode_shard, {"run": run, "blocks": blocks, "first": blocks[0], "last": blocks[-1]})
                for blocks in groups
            ]
            for blocks, future in zip(groups, under_way, strict=True):
                try:
                    future.result()
                except Exception as error:  # whatever a shard failed of, the others are encoded before the run fails
                    failures.append(FailedShard(blocks, error))
        if failures:
            raise ShardsFailed(plan, failures, len(groups))


@dataclass
class ShardRun:
    """What the task runs of one plan share; opaque to Prefect, which would look into a collection.

    Attributes:
        compute: open.
        stop: polled by what waits for a retry.
        watcher: told of progress.
        keep: given the summary of each shard that ended.
    """

    compute: Compute
    stop: threading.Event
    watcher: BlockWatcher
    keep: Callable[[BlockSummary], None]


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
def encode_shard(run: ShardRun, blocks: tuple[int, ...], first: int, last: int) -> None:
    """Encodes one shard. A retry is cheap: blocks that the failed try has written are kept.

    Args:
        run: of the plan.
        blocks: which blocks.
        first: the first of them, for the name of the task run.
        last: the last of them, for the name of the task run.
    """
    # Prefect's own wait before a retry sleeps through a cancellation.
    tried = int(task_run.run_count or 1) - 1
    if tried and run.stop.wait(RETRY_DELAYS[min(tried, len(RETRY_DELAYS)) - 1]):
        return
    summary = run.compute.encode(blocks, watcher=run.watcher)
    run.keep(summary)
    logger = get_run_logger()
    quality = format_psnr(summary.psnr, none="no PSNR", infinite="no error")
    words = list_parts(list_outcomes(summary), quality, "stopped" if summary.stopped else "")
    logger.info("blocks %d to %d: %s images: %s", first, last, f"{summary.images:,}", words)
    for image in summary.failed[:MOST_FAILED_LOGGED]:
        logger.warning("row %d, %s, has no splats: %s", image.row, image.source_id, image.reason)
    if len(summary.failed) > MOST_FAILED_LOGGED:
        logger.warning("and %d more: report.json names them all", len(summary.failed) - MOST_FAILED_LOGGED)
