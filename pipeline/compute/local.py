"""A plan carried out in this process: one session, the engine on its threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from encoders.base import Encoder
from pipeline.block_pipeline import BlockWatcher, encode_in_order
from pipeline.compute.base import EncoderFactory, SourceFactory
from pipeline.encode_records import BlockSummary, EncodePlan, EncodeSummary
from pipeline.encode_session import EncodeSession
from pipeline.job_encoder import encoder_for
from pipeline.run_record import finish_run


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
        """Encodes one shard; see :class:`pipeline.compute.base.Compute`."""
        with self._turn:
            summaries = encode_in_order(self._session, blocks, watcher=watcher, should_stop=self._should_stop)
        return BlockSummary.merge(summaries)

    def finish(self, summaries: Iterable[BlockSummary]) -> EncodeSummary:
        """Records the run; see :class:`pipeline.compute.base.Compute`."""
        return finish_run(self._session.store, self._session.plan, summaries, self._encoder)


@contextmanager
def open_local(
    plan: EncodePlan,
    *,
    should_stop: Callable[[], bool] | None,
    source_factory: SourceFactory | None,
    encoder_factory: EncoderFactory | None,
) -> Iterator[LocalCompute]:
    """Opens the session that all shards share; see :func:`pipeline.compute.open_compute`."""
    source = None if source_factory is None else source_factory()
    job, header = plan.job, plan.header
    if encoder_factory is None:
        encoder = encoder_for(job, job.fit_settings(header.height, header.width), workers=job.workers)
    else:
        encoder = encoder_factory()
    with EncodeSession(plan, source=source, encoder=encoder) as session:
        yield LocalCompute(session, encoder, should_stop)
