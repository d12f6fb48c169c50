"""The contract of what carries out a plan, its shards, and the one that computes in this process.

A shard is some blocks: what one task of a scheduler does. As many are under way as the compute allows.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from itertools import islice
from typing import Protocol

from encoders.base import Encoder
from encoders.engines import GPU_ENGINES
from pipeline.encode.finish import finish_run
from pipeline.encode.inputs import encoder_for
from pipeline.encode.job import LOCAL
from pipeline.encode.records import BlockSummary, EncodePlan, EncodeSummary
from pipeline.encode.session import BlockWatcher, EncodeSession, encode_in_order
from pipeline.sources.base import ImageSource

SourceFactory = Callable[[], ImageSource]
"""Opens the data set in the process that reads it; with Dask it is pickled."""

EncoderFactory = Callable[[], Encoder]
"""Makes the engine in the process that fits; with Dask it is pickled."""


class Compute(Protocol):
    """Carries out shards of one plan. Holds the store's writer lock for its whole life.

    Attributes:
        slots: shards that may be under way at once, from as many threads.
    """

    slots: int

    def encode(self, blocks: Sequence[int], *, watcher: BlockWatcher | None = None) -> BlockSummary:
        """Encodes one shard to its end; safe to repeat.

        Args:
            blocks: some of the plan's blocks; no two calls at once may share one.
            watcher: told how far it is.

        Returns:
            The merged summary; ``stopped`` where the run was stopped before the shard's end.

        Raises:
            SplatSpaceError: the shard failed; what it had finished is in the store.
        """
        ...

    def finish(self, summaries: Iterable[BlockSummary]) -> EncodeSummary:
        """Writes the record of the run into the store's header and commits.

        Args:
            summaries: of all shards, in any order.
        """
        ...


class LocalCompute:
    """Encodes shards one after the other with one open source, store and engine.

    Args:
        session: holds the store's writer lock.
        encoder: the session's, for its name and device.
        should_stop: polled.
    """

    slots = 1

    def __init__(self, session: EncodeSession, encoder: Encoder, should_stop: Callable[[], bool] | None) -> None:
        self._session = session
        self._encoder = encoder
        self._should_stop = should_stop
        self._turn = threading.Lock()

    def encode(self, blocks: Sequence[int], *, watcher: BlockWatcher | None = None) -> BlockSummary:
        """Encodes one shard; see :class:`pipeline.encode.compute.local.Compute`."""
        with self._turn:
            summaries = encode_in_order(self._session, blocks, watcher=watcher, should_stop=self._should_stop)
        return BlockSummary.merge(summaries)

    def finish(self, summaries: Iterable[BlockSummary]) -> EncodeSummary:
        """Records the run; see :class:`pipeline.encode.compute.local.Compute`."""
        return finish_run(self._session.store, self._session.plan, summaries, self._encoder)


@contextmanager
def open_local(
    plan: EncodePlan,
    *,
    should_stop: Callable[[], bool] | None,
    source_factory: SourceFactory | None,
    encoder_factory: EncoderFactory | None,
) -> Iterator[LocalCompute]:
    """Opens the session that all shards share; see :func:`pipeline.encode.compute.open_compute`."""
    source = None if source_factory is None else source_factory()
    job, header = plan.job, plan.header
    if encoder_factory is None:
        encoder = encoder_for(job, job.fit_settings(header.height, header.width), workers=job.workers)
    else:
        encoder = encoder_factory()
    with EncodeSession(plan, source=source, encoder=encoder) as session:
        yield LocalCompute(session, encoder, should_stop)


MOST_SHARDS = 200
"""Most shards of a run: a larger set gets larger shards."""

IMAGES_PER_SHARD = 4096
"""Fewest images of a shard: some seconds of work at least, against what a scheduler adds to each."""

BLOCKS_ON_A_CARD = 4
"""Blocks of a shard of an engine on a GPU, where there are enough: reading the next block and writing the
last one overlap the fit inside a shard only, and a GPU is quicker than either."""

CARDS = 8
"""Cards that are thought to share a run with Dask: each is to get some shards."""


def shards(
    blocks: Sequence[int],
    block_rows: int,
    images_per_shard: int = IMAGES_PER_SHARD,
    *,
    most: int = MOST_SHARDS,
    blocks_per_shard: int = 1,
) -> list[tuple[int, ...]]:
    """Groups neighbouring blocks.

    Args:
        blocks: numbers of the blocks that have work, ascending.
        block_rows: rows of a block.
        images_per_shard: fewest images of a shard, the last one aside.
        most: most shards.
        blocks_per_shard: fewest blocks of a shard, the last one aside.

    Returns:
        at most ``most`` groups that hold every block once, in order.
    """
    size = max(-(-images_per_shard // block_rows), -(-len(blocks) // most), blocks_per_shard)
    return [tuple(blocks[first : first + size]) for first in range(0, len(blocks), size)]


def blocks_per_shard(engine: str, compute: str, blocks: int) -> int:
    """Fewest blocks of a shard.

    Args:
        engine: its name.
        compute: where the run is computed (``pipeline.encode.job``).
        blocks: of the run.
    """
    if engine not in GPU_ENGINES:
        return 1
    return max(1, min(BLOCKS_ON_A_CARD, blocks // (2 if compute == LOCAL else 2 * CARDS)))


SHARDS_FOR_EACH_WORKER = 16
"""So many that the workers end at about the same time, and that progress shows."""


def balance_shards(plan: EncodePlan) -> list[tuple[int, ...]]:
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
    compute: Compute,
    groups: Iterable[Sequence[int]],
    watcher: BlockWatcher | None = None,
    *,
    keep: Callable[[BlockSummary], None] | None = None,
) -> list[BlockSummary]:
    """Encodes shards, ``compute.slots`` of them at a time; no more are looked at ahead.

    Args:
        compute: open.
        groups: blocks of each shard.
        watcher: told of progress, from one thread.
        keep: given each summary as soon as there is one, also of a run that fails later.

    Returns:
        The summary of each shard, in the order in which they ended; the last ones say so where the run was stopped.

    Raises:
        SplatSpaceError: a shard failed. Those under way are finished first, no other is begun.
    """
    summaries: list[BlockSummary] = []

    def ended(summary: BlockSummary) -> None:
        summaries.append(summary)
        if keep is not None:
            keep(summary)

    if compute.slots == 1:
        for shard in groups:
            ended(compute.encode(shard, watcher=watcher))
            if summaries[-1].stopped:
                break
        return summaries
    waiting = iter(groups)
    with ThreadPoolExecutor(compute.slots, "shard") as pool:
        under_way = {pool.submit(compute.encode, shard) for shard in islice(waiting, compute.slots)}
        while under_way:
            done, under_way = wait(under_way, return_when=FIRST_COMPLETED)
            for future in done:
                summary = future.result()
                ended(summary)
                if watcher is not None:
                    watcher.block_done(summary)
                if summary.stopped:
                    waiting = iter(())
                under_way |= {pool.submit(compute.encode, shard) for shard in islice(waiting, 1)}
    return summaries
