"""Shards as task runs: how many at once, how often, and what becomes of those that fail."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import Task, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import task_run
from prefect.task_runners import ThreadPoolTaskRunner

from data_schemas.errors import JobError, StoreLockedError, StoreMismatchError
from flows.stop import settling
from pipeline.block_pipeline import BlockWatcher
from pipeline.compute import Compute
from pipeline.encode_records import BlockSummary

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
