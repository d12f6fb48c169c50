"""Where a plan is carried out: in this process, or by Dask workers.

    with open_compute(plan) as compute:
        summaries = [compute.encode(shard) for shard in shards(plan.blocks, plan.header.block_rows)]
        summary = compute.finish(summaries)

Shards of images are the unit: workers write their blocks themselves and hand back small summaries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pipeline.encode.compute.local import (
    Compute,
    EncoderFactory,
    SourceFactory,
    balance_shards,
    encode_shards,
    open_local,
)
from pipeline.encode.job import LOCAL, check_compute
from pipeline.encode.records import EncodePlan

__all__ = [
    "Compute",
    "EncoderFactory",
    "SourceFactory",
    "balance_shards",
    "check_compute",
    "encode_shards",
    "open_compute",
]


@contextmanager
def open_compute(
    plan: EncodePlan,
    *,
    should_stop: Callable[[], bool] | None = None,
    source_factory: SourceFactory | None = None,
    encoder_factory: EncoderFactory | None = None,
) -> Iterator[Compute]:
    """Opens what ``plan.job.compute`` names, and holds the store's writer lock until it is closed.

    Args:
        plan: what ``plan_encode`` returned.
        should_stop: polled, with Dask by this process, which tells the workers; what is fitted by then is written.
        source_factory: opens the data set instead of the plan's; runs in each process that encodes.
        encoder_factory: makes the engine instead of the job's; runs in each process that encodes.

    Raises:
        JobError: see :func:`check_compute`.
        StoreLockedError: another run writes this store.
        ComputeError: no workers, or workers of another version.
    """
    if check_compute(plan.job.compute, plan.store) == LOCAL:
        with open_local(
            plan, should_stop=should_stop, source_factory=source_factory, encoder_factory=encoder_factory
        ) as compute:
            yield compute
        return
    # Dask takes a second to import.
    from pipeline.encode.compute.dask_client import open_dask

    with open_dask(
        plan, should_stop=should_stop, source_factory=source_factory, encoder_factory=encoder_factory
    ) as compute:
        yield compute
