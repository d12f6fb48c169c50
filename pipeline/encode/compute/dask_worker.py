"""What runs inside a Dask worker: one session of one plan is kept open, and shards go through it one at a time.

The run holds the writer lock of the store; its workers write on the holder's behalf and ask who that is.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distributed import Status, Worker, get_worker

from data_schemas.errors import ComputeError, StoreLockedError
from data_schemas.locations import Location
from data_schemas.objects import read_object
from encoders.base import Encoder
from pipeline.encode.compute.local import EncoderFactory, SourceFactory
from pipeline.encode.inputs import encoder_for
from pipeline.encode.records import BlockSummary, EncodePlan
from pipeline.encode.session import EncodeSession, encode_in_order


def lock_holder(store: Location) -> str:
    """What the lock beside a store says of its holder; "" where it says nothing.

    A process that writes without the lock, for a run that holds it, compares this with what it was when the run
    began: once it differs, another run has taken over.
    """
    lock = store.with_name(store.name + ".lock")
    if not isinstance(lock, Path):
        return (read_object(lock) or b"").decode(errors="replace")
    try:
        return lock.read_text()
    except OSError:
        return ""


logger = logging.getLogger("splatspace.compute")


@dataclass(frozen=True)
class WorkerJob:
    """What a worker needs to know of a run; sent with each shard.

    Attributes:
        token: names the run.
        plan: without its blocks.
        holder: who holds the store's writer lock, as the lock says.
        source_factory: opens the data set; None opens the plan's.
        encoder_factory: makes the engine; None makes the job's.
    """

    token: str
    plan: EncodePlan
    holder: str
    source_factory: SourceFactory | None
    encoder_factory: EncoderFactory | None


class SessionCache:
    """The session of the plan that this process works for; another plan closes it."""

    def __init__(self) -> None:
        self.turn = threading.Lock()
        self._token = ""
        self._session: EncodeSession | None = None

    def session(self, job: WorkerJob, threads: int) -> EncodeSession:
        """The session of ``job``; hold ``turn`` while it is used."""
        if self._session is None or self._token != job.token:
            self.close()
            plan = job.plan
            encoder = None if job.encoder_factory is None else job.encoder_factory()
            if encoder is None:
                settings = plan.job.fit_settings(plan.header.height, plan.header.width)
                encoder = encoder_for(plan.job, settings, workers=threads)
            _require_settings(plan, encoder)
            source = None if job.source_factory is None else job.source_factory()
            self._session = EncodeSession(plan, source=source, encoder=encoder, exclusive=False)
            self._token = job.token
        return self._session

    def close(self, token: str | None = None) -> None:
        """Closes the session (of ``token`` only, where one is given)."""
        if self._session is not None and token in (None, self._token):
            session, self._session = self._session, None
            session.close()


_CACHE = SessionCache()
_STOPPED: set[str] = set()
_LIVE = frozenset({Status.init, Status.running, Status.paused})


def encode_shard(job: WorkerJob, blocks: Sequence[int]) -> BlockSummary:
    """Encodes one shard; what the client submits.

    Returns:
        The merged summary; ``stopped`` where the run was stopped, or where this worker is no longer wanted: its
        scheduler is gone, it is being closed, or nobody waits for this shard any more.
    """
    worker = get_worker()
    key = worker.get_current_task()

    def wanted() -> bool:
        return _is_wanted(worker, key)

    def may_write(summary: BlockSummary) -> bool:
        if lock_holder(job.plan.store) != job.holder:
            raise StoreLockedError(
                f"{job.plan.store} has been taken over by another run ({lock_holder(job.plan.store)})",
                allowed="the run that holds the store's lock",
                next_step="nothing: that run continues",
            )
        # Half a block must not replace the whole one of a worker that was given this shard instead.
        return wanted() or not summary.stopped

    with _CACHE.turn:
        try:
            session = _CACHE.session(job, worker.state.nthreads)
            summaries = encode_in_order(
                session,
                blocks,
                should_stop=lambda: job.token in _STOPPED or not wanted(),
                may_write=may_write,
            )
        except BaseException:
            _CACHE.close()
            raise
    return BlockSummary.merge(summaries)


def stop_run(token: str) -> None:
    """Stops the shards of a run on this worker; what they have finished is written."""
    _STOPPED.add(token)


def close_run(token: str) -> None:
    """Stops the shards of a run and closes its session, where no shard uses it any more."""
    _STOPPED.add(token)
    if _CACHE.turn.acquire(timeout=1):
        try:
            _CACHE.close(token)
        finally:
            _CACHE.turn.release()


def _is_wanted(worker: Worker, key: object) -> bool:
    """Whether the scheduler still waits for this task of this worker."""
    if worker.status not in _LIVE:
        return False
    task = worker.state.tasks.get(key)  # pyright: ignore[reportArgumentType]
    return task is not None and task.state in ("executing", "long-running")


def _require_settings(plan: EncodePlan, encoder: Encoder) -> None:
    """A worker of another version could fit with other constants, and the store would hold two kinds of rows."""
    settings = json.loads(json.dumps({**encoder.settings.as_dict(), "recipe": encoder.recipe()}))
    if (encoder.name, settings) != (plan.header.engine, plan.header.settings):
        raise ComputeError(
            f"A Dask worker would fit with other settings than {plan.store} has",
            allowed=f"engine {plan.header.engine} with {plan.header.settings}; got {encoder.name} with {settings}",
            next_step="install the same version of splatspace where the workers run",
        )
