"""A plan carried out by Dask workers: each shard is one future, its result one small summary."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from distributed import Client, KilledWorker

from data_schemas.errors import ComputeError
from data_schemas.locations import Location
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import open_store
from encoders.base import Encoder
from pipeline.encode.compute.dask_cluster import connect, count_workers, local_workers
from pipeline.encode.compute.dask_worker import WorkerJob, close_run, encode_shard, lock_holder, stop_run
from pipeline.encode.compute.local import EncoderFactory, SourceFactory
from pipeline.encode.finish import finish_run
from pipeline.encode.inputs import encoder_for
from pipeline.encode.job import DASK
from pipeline.encode.records import BlockSummary, EncodePlan, EncodeSummary
from pipeline.encode.session import BlockWatcher
from pipeline.sources import SOURCES

logger = logging.getLogger("splatspace.compute")

SHARDS_PER_WORKER = 2
"""Shards under way for each worker: one is encoded, one waits, so that the worker never does."""

STOP_SECONDS = 30.0
"""How long a stopped run waits for its workers to write what they have."""

WITHOUT_WORKERS_SECONDS = 120.0
"""How long a run waits for a worker after the last one has gone."""

RECONNECT_SECONDS = 30.0
"""How long a shard waits for a scheduler that was lost while another was encoded."""

Answer = TypeVar("Answer")

_LOOK_SECONDS = 0.2
_TELL_SECONDS = 1.0
_COUNT_SECONDS = 5.0


class DaskCompute:
    """Encodes shards on the workers of one client.

    Args:
        plan: of the run.
        store: open for writing, with its lock.
        job: what the workers are told.
        encoder: for its name and device.
        connect: makes the client, and another where that one has lost its scheduler.
        should_stop: polled.
    """

    def __init__(
        self,
        plan: EncodePlan,
        store: SplatStore,
        job: WorkerJob,
        encoder: Encoder,
        connect: Callable[[], Client],
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._plan, self._store, self._job, self._encoder = plan, store, job, encoder
        self._connect = connect
        self._client = connect()
        self.slots = SHARDS_PER_WORKER * max(1, count_workers(self._client))
        self._free = threading.BoundedSemaphore(self.slots)
        self._connecting = threading.Lock()
        self._should_stop = should_stop
        self._stopping = threading.Event()
        self._left_at = float("inf")
        self._closed = threading.Event()
        self._no_worker_since: float | None = None
        self._monitor = threading.Thread(target=self._watch, name="dask-monitor", daemon=True)
        self._monitor.start()

    def encode(self, blocks: Sequence[int], *, watcher: BlockWatcher | None = None) -> BlockSummary:
        """Encodes one shard; see :class:`pipeline.encode.compute.local.Compute`.

        A worker that dies or leaves is replaced by another, which keeps the blocks that were written; its summary
        counts them as kept.

        Raises:
            ComputeError: the scheduler is gone, no worker is left, or the shard killed several workers.
        """
        with self._free:
            while not self._stopping.is_set():
                summary = self._encode_once(tuple(blocks))
                # A worker that was sent away stops as if it had been asked to: another goes on.
                if not summary.stopped or self._stopping.is_set():
                    if watcher is not None:
                        watcher.block_done(summary)
                    return summary
                time.sleep(_LOOK_SECONDS)
        return BlockSummary(stopped=True)

    def finish(self, summaries: Iterable[BlockSummary]) -> EncodeSummary:
        """Records the run; see :class:`pipeline.encode.compute.local.Compute`."""
        return finish_run(self._store, self._plan, summaries, self._encoder)

    def close(self) -> None:
        """Stops what is under way, waits until nobody writes any more, and lets the workers close the store."""
        self._stop()
        for _ in range(self.slots):
            self._free.acquire(timeout=max(self._left_at - time.monotonic(), 0))
        self._closed.set()
        self._monitor.join()
        self._tell(close_run)

    def _stop(self) -> None:
        if not self._stopping.is_set():
            self._left_at = time.monotonic() + STOP_SECONDS
            self._stopping.set()

    def _encode_once(self, blocks: tuple[int, ...]) -> BlockSummary:
        client = self._connected()
        future = client.submit(encode_shard, self._job, blocks, pure=False, retries=0)
        try:
            while not self._is_given_up(client, blocks):
                try:
                    return future.result(timeout=_COUNT_SECONDS)
                except TimeoutError:
                    # Else it is under way, or once more: its worker may have died with the result it had just made.
                    if future.status == "error":
                        raise
            return BlockSummary(stopped=True)
        except CancelledError as error:
            raise self._lost() from error
        except KilledWorker as error:
            raise ComputeError(
                f"Blocks {blocks[0]} to {blocks[-1]}: every worker that tried them was killed",
                allowed="workers with enough memory",
                next_step="look at the workers' logs and run the same command again: what is done is kept",
            ) from error
        except ModuleNotFoundError as error:
            raise ComputeError(
                f"A Dask worker cannot import {error.name}",
                next_step="install this version of splatspace where the workers run",
            ) from error
        finally:
            with suppress(OSError, RuntimeError):
                future.release()

    def _is_given_up(self, client: Client, blocks: tuple[int, ...]) -> bool:
        """Whether the run is stopped and waits no longer for a shard that has not ended.

        Raises:
            ComputeError: the scheduler is gone, or has had no workers for long.
        """
        if client.status != "running":
            raise self._lost()
        now, since = time.monotonic(), self._no_worker_since
        if self._stopping.is_set():
            if now > self._left_at:
                logger.warning("blocks %d to %d did not stop in time and are left", blocks[0], blocks[-1])
            return since is not None or now > self._left_at
        if since is not None and now - since > WITHOUT_WORKERS_SECONDS:
            raise ComputeError(
                f"The Dask scheduler has had no workers for {now - since:.0f} seconds",
                next_step="start workers and run the same command again: what is done is kept",
            )
        return False

    def _connected(self) -> Client:
        """A client that its scheduler answers: one that was started again at the same address will do."""
        with self._connecting:
            deadline = time.monotonic() + RECONNECT_SECONDS
            while self._client.status not in ("running", "closed") and time.monotonic() < deadline:
                time.sleep(_LOOK_SECONDS)
            if self._client.status == "closed":
                self._client = self._connect()
            if self._client.status != "running":
                raise self._lost()
            return self._client

    def _lost(self) -> ComputeError:
        return ComputeError(
            f"The Dask scheduler at {self._plan.job.compute} is gone",
            next_step="start it and run the same command again: what is done is kept",
        )

    def _watch(self) -> None:
        """Asks whether to stop, tells the workers, and counts them."""
        told = counted = 0.0
        while not self._closed.wait(_LOOK_SECONDS):
            if self._should_stop is not None and not self._stopping.is_set() and self._should_stop():
                self._stop()
            now = time.monotonic()
            # Again and again: a worker may have been started since, with a shard of one that died.
            if self._stopping.is_set() and now - told >= _TELL_SECONDS:
                told = now
                self._tell(stop_run)
            if now - counted >= _COUNT_SECONDS:
                counted = now
                workers = self._ask(count_workers)
                if workers is not None:
                    self._no_worker_since = None if workers else self._no_worker_since or now

    def _tell(self, message: Callable[[str], None]) -> None:
        self._ask(lambda client: client.run(message, self._job.token, on_error="ignore"))

    def _ask(self, question: Callable[[Client], Answer]) -> Answer | None:
        """The answer of the scheduler; None where there is none: who waits for a shard notices that too."""
        if self._client.status == "running":
            with suppress(OSError, TimeoutError, RuntimeError):
                return question(self._client)
        return None


@contextmanager
def open_dask(
    plan: EncodePlan,
    *,
    should_stop: Callable[[], bool] | None,
    source_factory: SourceFactory | None,
    encoder_factory: EncoderFactory | None,
) -> Iterator[DaskCompute]:
    """Takes the store's lock and finds or starts workers; see :func:`pipeline.encode.compute.open_compute`."""
    job, header = plan.job, plan.header
    if encoder_factory is None:
        encoder = encoder_for(job, job.fit_settings(header.height, header.width), workers=1)
    else:
        encoder = encoder_factory()
    with open_store(plan.store, "a") as store, _connections(plan) as connect_again:
        told = WorkerJob(
            token=uuid.uuid4().hex,
            plan=_for_workers(plan),
            holder=lock_holder(plan.store),
            source_factory=source_factory,
            encoder_factory=encoder_factory,
        )
        with closing(DaskCompute(plan, store, told, encoder, connect_again, should_stop)) as compute:
            yield compute


@contextmanager
def _connections(plan: EncodePlan) -> Iterator[Callable[[], Client]]:
    """What connects to the workers of a plan, as often as it is called; all of it is closed at the end."""
    with ExitStack() as stack:
        if plan.job.compute == DASK:
            own = stack.enter_context(local_workers(plan))
            yield lambda: own
            return

        def connect_again() -> Client:
            client = connect(plan.job.compute)
            stack.callback(_close, client)
            return client

        yield connect_again


def _close(client: Client) -> None:
    with suppress(OSError, TimeoutError, RuntimeError):
        client.close(timeout=_COUNT_SECONDS)


def _for_workers(plan: EncodePlan) -> EncodePlan:
    """The plan as workers need it: paths that do not depend on where they run, and nothing that grows with the set."""
    job = plan.job
    update: dict[str, object] = {"out": _absolute(job.out)}
    if job.data_dir is not None:
        update["data_dir"] = _absolute(job.data_dir)
    if job.dataset not in SOURCES and Path(job.dataset).exists():
        update["dataset"] = str(_absolute(Path(job.dataset).expanduser()))
    return plan.model_copy(
        update={
            "job": job.model_copy(update=update),
            "store": _absolute(plan.store),
            "header": plan.header.model_copy(update={"runs": ()}),
            "blocks": (),
        }
    )


def _absolute(path: Location) -> Location:
    return path.expanduser().absolute() if isinstance(path, Path) else path
