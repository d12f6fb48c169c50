"""What a process holds while it encodes: store, source, engine, index of contents; and blocks one after the other.

The next block is read and the last is written while this one is fitted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from data_schemas.errors import SourceError, StoreCorruptError
from data_schemas.records import RowBlock, RowState
from data_schemas.stores.contract import SplatStore, block_range
from data_schemas.stores.open import open_store
from encoders.base import Encoder
from pipeline.encode.block import BlockEncoder
from pipeline.encode.block_decision import BlockInput
from pipeline.encode.inputs import encoder_for, source_of
from pipeline.encode.records import BlockSummary, EncodePlan
from pipeline.encode.rows import ContentIndex, RowMatch, match_rows
from pipeline.sources.base import ImageSource, SourceImage

logger = logging.getLogger("splatspace.encode")


class EncodeSession:
    """Encodes blocks of a plan, one after the other; ``read``, ``fit`` and ``write`` may overlap in three threads.

    Args:
        plan: what ``plan_encode`` returned.
        source: read from it instead of opening the plan's data set.
        encoder: fit with it instead of the plan's engine.
        exclusive: hold the store's writer lock. False is for parallel writers of one zarr store, each with blocks
            of its own.

    Raises:
        SourceError: the data set changed since the plan was made.
        StoreError: the store cannot be opened for writing.
    """

    def __init__(
        self,
        plan: EncodePlan,
        *,
        source: ImageSource | None = None,
        encoder: Encoder | None = None,
        exclusive: bool = True,
    ) -> None:
        self.plan = plan
        job, header = plan.job, plan.header
        if source is None:
            source = source_of(job)
        self.source = source
        if encoder is None:
            encoder = encoder_for(job, job.fit_settings(header.height, header.width), workers=job.workers)
        self.store: SplatStore = open_store(plan.store, "a", lock=exclusive)
        try:
            self._lock = threading.RLock()
            self._unwritten: dict[int, RowBlock] = {}
            self._names = source.identifiers()
            self._match = self._match_rows()
            # Nothing is looked up where nothing was done before this run.
            self._contents = (
                ContentIndex.of_store(self.store, header.block_rows) if plan.done or plan.removed else ContentIndex()
            )
        except BaseException:
            self.store.close()
            raise
        self._block_encoder = BlockEncoder(header, encoder, job.workers, self._copy_of)

    def read(self, block: int) -> BlockInput:
        """Reads a block's rows and the source images that belong to them.

        Rows whose stored bytes are damaged are started again, so that encoding again repairs a store.
        """
        started = time.perf_counter()
        span = block_range(block, self.plan.header.block_rows, len(self.store))
        repaired = False
        with self._lock:
            try:
                rows = self.store.read_block(block)
            except StoreCorruptError as error:
                logger.warning("block %d is damaged and is encoded again: %s", block, error)
                repaired = True
                rows = RowBlock.empty(len(span), self.plan.header)
                rows.source_id[:] = self._names_of(span)
        indices = self._match.of(span.start, span.stop)
        wanted = np.flatnonzero((indices >= 0) & (indices < self.plan.images))
        images: list[SourceImage | None] = [None] * len(span)
        read = self.source.read([int(index) for index in indices[wanted]])
        for position, image in zip(wanted, read, strict=True):
            if image.identifier != rows.source_id[position]:
                raise self._changed_source(f"{image.identifier!r} where {rows.source_id[position]!r} was planned")
            images[position] = image
        return BlockInput(block, span.start, rows, images, repaired, started)

    def fit(
        self,
        block: BlockInput,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[BlockSummary], None] | None = None,
    ) -> tuple[RowBlock, BlockSummary]:
        """Brings a block up to date in memory; ``write`` must follow where ``summary.written`` says so."""
        rows, summary = self._block_encoder.run(block, should_stop=should_stop, on_progress=on_progress)
        if summary.written or block.repaired:
            with self._lock:
                self._unwritten[block.block] = rows
                for position in np.flatnonzero(rows.state == RowState.DONE):
                    self._contents.add(rows.content_hash[position].tobytes(), block.first_row + int(position))
            summary = summary.model_copy(update={"written": True})
        return rows, summary

    def write(self, block: int, rows: RowBlock) -> None:
        """Puts a block into the store, whole."""
        with self._lock:
            try:
                self.store.write_block(block, rows)
            finally:
                # Also where it failed; see ``forget_unwritten``.
                self._unwritten.pop(block, None)

    def forget_unwritten(self) -> None:
        """Lets go of blocks that were fitted and never written, since what came before them failed.

        On a full disk they would fill the memory, one block for each shard that is tried.
        """
        with self._lock:
            self._unwritten.clear()

    def close(self) -> None:
        """Commits what was written and releases the store."""
        with self._lock:
            self.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _match_rows(self) -> RowMatch:
        """Which image belongs to which row; names are compared only where the plan says that they differ in order."""
        if len(self._names) < self.plan.images:
            raise self._changed_source(f"{len(self._names)} of the {self.plan.images} images that were planned")
        if self.plan.aligned:
            return RowMatch(len(self.store), None)
        match = match_rows(self.store, self._names)
        found = sum(int(of_job.sum()) for _, of_job in match.portions(self.plan.images))
        if found != self.plan.images:
            raise self._changed_source(f"{found} of the {self.plan.images} images that were planned")
        return match

    def _changed_source(self, what: str) -> SourceError:
        return SourceError(
            f"{self.plan.job.dataset} has {what}",
            allowed="a data set that stays as it is while it is encoded",
            next_step="run the same command again",
        )

    def _names_of(self, span: range) -> list[str]:
        """The names that belong to the rows of a damaged block, from the source where the store has lost them."""
        try:
            return [str(name) for name in self.store.read(["source_id"], slice(span.start, span.stop))["source_id"]]
        except StoreCorruptError:
            if not self._match.aligned or span.stop > len(self._names):
                raise
            return list(self._names[span.start : span.stop])

    def _copy_of(self, digest: bytes) -> RowBlock | None:
        """A block of the one row that holds this content, or None."""
        with self._lock:
            for row in self._contents.candidates(digest):
                found = self._read_copy(row, digest)
                if found is not None:
                    return found
        return None

    def _read_copy(self, row: int, digest: bytes) -> RowBlock | None:
        size = self.plan.header.block_rows
        unwritten = self._unwritten.get(row // size)
        names = ("splats", "psnr", "ssim", "steps", "dead", "content_hash", "state")
        try:
            content = (
                {name: getattr(unwritten, name)[row % size : row % size + 1] for name in names}
                if unwritten is not None
                else self.store.read([name for name in names if name in self.store.arrays], [row])
            )
        except StoreCorruptError:
            return None  # fitted again instead
        # Hashes are remembered in part, and a row may have been given another image since.
        if content["state"][0] != RowState.DONE or content["content_hash"][0].tobytes() != digest:
            return None
        found = RowBlock.empty(1, self.plan.header)
        for name, values in content.items():
            setattr(found, name, values)
        return found


class BlockWatcher(Protocol):
    """Is told how far blocks are."""

    def within_block(self, summary: BlockSummary) -> None:
        """The block under way has come so far."""
        ...

    def block_done(self, summary: BlockSummary) -> None:
        """A block, or several, are done."""
        ...


def encode_in_order(
    session: EncodeSession,
    blocks: Sequence[int],
    *,
    watcher: BlockWatcher | None = None,
    should_stop: Callable[[], bool] | None = None,
    may_write: Callable[[BlockSummary], bool] | None = None,
) -> list[BlockSummary]:
    """Encodes blocks in order: one thread reads ahead by one block, one writes behind by one.

    Args:
        session: of this process.
        blocks: which blocks.
        watcher: told after each batch of the engine and each block.
        should_stop: polled; when it answers True, what is fitted is written and the rest is left.
        may_write: asked before a block is written; where it answers False, the block is left to another process.

    Returns:
        One summary for each block. Stopped, the list ends early, with a summary that says so.
    """
    summaries: list[BlockSummary] = []
    if not blocks:
        return summaries

    def settle(block: int, rows: RowBlock, summary: BlockSummary) -> BlockSummary:
        if summary.written:
            if may_write is not None and not may_write(summary):
                return BlockSummary(stopped=True)
            session.write(block, rows)
        return summary

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        reading: Future[BlockInput] = reader.submit(session.read, blocks[0])
        writing: Future[BlockSummary] | None = None
        stopped = False
        try:
            for number, block in enumerate(blocks):
                if should_stop is not None and should_stop():
                    stopped = True
                    break
                content = reading.result()
                if number + 1 < len(blocks):
                    reading = reader.submit(session.read, blocks[number + 1])
                on_progress = None if watcher is None else watcher.within_block
                rows, summary = session.fit(content, should_stop=should_stop, on_progress=on_progress)
                if writing is not None:
                    done, writing = writing, None
                    summaries.append(done.result())
                writing = writer.submit(settle, block, rows, summary)
                if watcher is not None:
                    watcher.block_done(summary)
                if summary.stopped:
                    break
        finally:
            reading.cancel()
            try:
                # A block that is on its way to the disk arrives, or its error is raised.
                if writing is not None:
                    summaries.append(writing.result())
            finally:
                session.forget_unwritten()
        if stopped:
            summaries.append(BlockSummary(stopped=True))
    return summaries
