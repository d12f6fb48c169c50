"""All shards of a run, as many at once as the compute bears."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from pipeline.block_pipeline import BlockWatcher
from pipeline.compute.base import Compute
from pipeline.encode_records import BlockSummary, EncodePlan
from pipeline.shards import IMAGES_PER_SHARD, blocks_per_shard, shards

SHARDS_FOR_EACH_WORKER = 16
"""So many that the workers end at about the same time, and that progress shows."""


def balanced_shards(plan: EncodePlan) -> list[tuple[int, ...]]:
    """Shards for worker processes where no other scheduler counts them: small ones, since Dask bears millions."""
    images = -(-plan.images // (SHARDS_FOR_EACH_WORKER * plan.job.workers))
    return shards(
        plan.blocks,
        plan.header.block_rows,
        min(images, IMAGES_PER_SHARD),
        most=max(len(plan.blocks), 1),
        blocks_per_shard=blocks_per_shard(plan.header.engine, plan.job.compute, len(plan.blocks)),
    )


def encode_shards(
    compute: Compute, groups: Iterable[Sequence[int]], watcher: BlockWatcher | None = None
) -> list[BlockSummary]:
    """Encodes shards, ``compute.slots`` of them at a time; no more are looked at ahead.

    Args:
        compute: open.
        groups: blocks of each shard.
        watcher: told of progress, from one thread.

    Returns:
        The summary of each shard, in the order in which they ended; the last ones say so where the run was stopped.

    Raises:
        SplatSpaceError: a shard failed. Those under way are finished first, no other is begun.
    """
    summaries: list[BlockSummary] = []
    if compute.slots == 1:
        for shard in groups:
            summaries.append(compute.encode(shard, watcher=watcher))
            if summaries[-1].stopped:
                break
        return summaries
    waiting = iter(groups)
    with ThreadPoolExecutor(compute.slots, "shard") as pool:
        under_way: set[Future[BlockSummary]] = set()
        more = True
        while more or under_way:
            while more and len(under_way) < compute.slots:
                shard = next(waiting, None)
                more = shard is not None
                if shard is not None:
                    under_way.add(pool.submit(compute.encode, shard))
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                summary = future.result()
                summaries.append(summary)
                more = more and not summary.stopped
                if watcher is not None:
                    watcher.block_done(summary)
    return summaries
