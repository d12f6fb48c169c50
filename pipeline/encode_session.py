"""What a process holds while it encodes blocks of one store: the store, the source, the engine, the content index."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import SourceError, StoreCorruptError
from data_schemas.records import CONTENT_HASH_BYTES, RowBlock, RowState
from data_schemas.store import SplatStore, block_range, blocks
from data_schemas.stores import open_store
from encoders.base import Encoder
from encoders.engines import create_encoder
from pipeline.block_decision import BlockInput
from pipeline.block_work import BlockEncoder
from pipeline.encode_records import BlockSummary, EncodePlan
from pipeline.sources import open_source
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
            source = open_source(
                job.dataset, data_dir=job.data_dir, split=job.split, size=job.size, download=job.download
            )
        self.source = source
        if encoder is None:
            encoder = create_encoder(job.engine, job.fit_settings(header.height, header.width), workers=job.workers)
        self.store: SplatStore = open_store(plan.store, "a", lock=exclusive)
        try:
            self._lock = threading.RLock()
            self._unwritten: dict[int, RowBlock] = {}
            self._source_index, self._source_ids = self._match_rows()
            self._row_with_content = self._index_content()
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
                rows.source_id[:] = self._source_ids[span.start : span.stop]
        indices = self._source_index[span.start : span.stop]
        wanted = np.flatnonzero(indices >= 0)
        images: list[SourceImage | None] = [None] * len(span)
        read = self.source.read([int(index) for index in indices[wanted]])
        for position, image in zip(wanted, read, strict=True):
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
                    self._row_with_content.setdefault(
                        rows.content_hash[position].tobytes(), block.first_row + int(position)
                    )
            summary = summary.model_copy(update={"written": True})
        return rows, summary

    def write(self, block: int, rows: RowBlock) -> None:
        """Puts a block into the store, whole."""
        with self._lock:
            self.store.write_block(block, rows)
            self._unwritten.pop(block, None)

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

    def _match_rows(self) -> tuple[NDArray[np.int64], NDArray[np.object_]]:
        """int64 [row]: index in the source of each row's image, -1 for rows outside the job; and their names."""
        names = list(self.source.identifiers())[: self.plan.images]
        index_of = {name: index for index, name in enumerate(names)}
        source_ids = self.store.read(["source_id"])["source_id"]
        indices = np.array([index_of.get(str(name), -1) for name in source_ids], np.int64)
        found = int((indices >= 0).sum())
        if found != self.plan.images:
            raise SourceError(
                f"{self.plan.job.dataset} has {found} of the {self.plan.images} images that were planned",
                allowed="a data set that stays as it is while it is encoded",
                next_step="run the same command again",
            )
        return indices, source_ids

    def _index_content(self) -> dict[bytes, int]:
        """Content hash of every done row to its row number; damaged blocks are left out."""
        index: dict[bytes, int] = {}
        size = self.plan.header.block_rows
        for block in blocks(len(self.store), size):
            span = block_range(block, size, len(self.store))
            try:
                content = self.store.read(["state", "content_hash"], slice(span.start, span.stop))
            except StoreCorruptError:
                continue  # the block is reported and encoded again when its turn comes
            for position in np.flatnonzero(content["state"] == RowState.DONE):
                index.setdefault(content["content_hash"][position].tobytes(), span.start + int(position))
        index.pop(bytes(CONTENT_HASH_BYTES), None)  # rows that were imported without their images
        return index

    def _copy_of(self, digest: bytes) -> RowBlock | None:
        """A block of the one row that holds this content, or None."""
        with self._lock:
            row = self._row_with_content.get(digest)
            if row is None:
                return None
            size = self.plan.header.block_rows
            unwritten = self._unwritten.get(row // size)
            names = ("splats", "psnr", "ssim", "steps", "dead", "content_hash", "state")
            try:
                content = (
                    {name: getattr(unwritten, name)[row % size : row % size + 1] for name in names}
                    if unwritten is not None
                    else self.store.read(names, [row])
                )
            except StoreCorruptError:
                return None  # fitted again instead
            # A row may have been given another image since the index was made.
            if content["state"][0] != RowState.DONE or content["content_hash"][0].tobytes() != digest:
                return None
            found = RowBlock.empty(1, self.plan.header)
            for name in names:
                setattr(found, name, content[name])
            return found
