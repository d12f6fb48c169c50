"""One fit of a data set into a store: plan it, carry out its shards, record the run.

Where it is computed, and by whom the shards are run, changes no byte of the store. A flow hands in its own way to run
shards; everything else is the same for the command line, a flow, a first fit of ``--refine regressed`` and Dask.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from data_schemas.errors import SplatSpaceError, StoppedError
from encoders.base import Encoder
from pipeline.encode.compute import Compute, balance_shards, encode_shards, open_compute
from pipeline.encode.job import LOCAL, EncodeJob
from pipeline.encode.plan import survey
from pipeline.encode.records import BlockSummary, EncodePlan, EncodeProgress, EncodeSummary, ProgressMeter
from pipeline.sources.base import ImageSource
from pipeline.sources.download import Progress


class RunShards(Protocol):
    """Carries out a plan, shard by shard."""

    def __call__(self, compute: Compute, plan: EncodePlan, keep: Callable[[BlockSummary], None]) -> None:
        """Encodes all blocks of the plan.

        Args:
            compute: open; ``compute.slots`` shards may be under way at once.
            plan: what is to be done.
            keep: call it with the summary of each shard that ended, whole or stopped, from any thread: what it has cost
                is recorded, also where this call raises.

        Raises:
            Exception: whatever ends the run.
        """
        ...


def fit_store(
    job: EncodeJob,
    *,
    progress: Callable[[EncodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    source: ImageSource | None = None,
    encoder: Encoder | None = None,
    downloading: Progress | None = None,
    run_shards: RunShards | None = None,
) -> EncodeSummary:
    """Fits the images of a job into its store, or continues; a refined job has its regression already.

    Args:
        job: as resolved.
        progress: called after each batch of the engine and each block (with Dask after each shard), where
            ``run_shards`` is not given.
        should_stop: polled; when it answers True the run ends after writing what is whole.
        source: read from it instead of opening ``job.dataset``; with Dask it is pickled.
        encoder: fit with it instead of the job's engine; with Dask it is pickled.
        downloading: told of downloads.
        run_shards: carries out the plan instead of this process; it tells of progress itself.

    Returns:
        What was done.

    Raises:
        StoppedError: ``should_stop`` answered True; run again to continue.
        SplatSpaceError: see ``pipeline.encode.plan.plan_encode``; what was finished is in the store.
    """
    ready = survey(job, source=source, encoder=encoder, downloading=downloading)
    plan = ready.plan
    if job.compute == LOCAL:
        source, encoder = ready.source, ready.encoder
    summaries: list[BlockSummary] = []
    with open_compute(
        plan,
        should_stop=should_stop,
        source_factory=None if source is None else lambda: source,
        encoder_factory=None if encoder is None else lambda: encoder,
    ) as compute:
        try:
            (run_shards or _RunHere(progress))(compute, plan, summaries.append)
        except BaseException:
            # A run that failed or was cancelled is recorded too: what it has cost counts in the report.
            with suppress(SplatSpaceError):
                compute.finish(summaries)
            raise
        summary = compute.finish(summaries)
    done = BlockSummary.merge(summaries)
    if done.stopped:
        raise StoppedError(
            f"Stopped after {done.done + len(done.failed)} of {plan.images} images; {plan.store} keeps them",
            next_step="run the same command again to continue",
        )
    return summary


class _RunHere:
    """Runs shards from this thread; one shard where this process computes, many small ones for Dask's workers."""

    def __init__(self, progress: Callable[[EncodeProgress], None] | None) -> None:
        self._progress = progress

    def __call__(self, compute: Compute, plan: EncodePlan, keep: Callable[[BlockSummary], None]) -> None:
        groups = [plan.blocks] if plan.job.compute == LOCAL else balance_shards(plan)
        encode_shards(compute, groups, ProgressMeter(plan, self._progress), keep=keep)
