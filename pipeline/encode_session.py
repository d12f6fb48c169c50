"""What a process holds while it encodes blocks of one store: the store, the source, the engine, the content index."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np

from data_schemas.errors import SourceError, StoreCorruptError
from data_schemas.records import RowBlock, RowState
from data_schemas.store import SplatStore, block_range
from data_schemas.stores import open_store
from encoders.base import Encoder
from pipeline.block_decision import BlockInput
from pipeline.block_work import BlockEncoder
from pipeline.content_index import ContentIndex
from pipeline.encode_records import BlockSummary, EncodePlan
from pipeline.job_encoder import encoder_for
from pipeline.job_source import source_of
from pipeline.row_matching import RowMatch, match_rows
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

        Rows whose stored bytes are damaged are started anew, so that encoding again repairs a store.
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

    def encode_block(self, block: int) -> BlockSummary:
        """Reads, fits and writes one block."""
        rows, summary = self.fit(self.read(block))
        if summary.written:
            self.write(block, rows)
        return summary

    def close(self) -> None:
        """Commits what was written and lets go of the store."""
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
