"""A store as a map-style data set of torch.

dataset = SplatDataset("sprites.zarr", features=True)
sampler = ShardShuffleSampler(dataset, batch_size=64, num_workers=2)
for batch in DataLoader(dataset, sampler=sampler, batch_size=None, num_workers=2):
    network(batch["features"])
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset, default_collate, get_worker_info
from upath import UPath

from data_schemas.errors import JobError, StoreError
from data_schemas.locations import location
from data_schemas.records import RowState, StoreHeader
from data_schemas.splats import Layout
from data_schemas.stores.contract import blocks
from data_schemas.stores.open import open_store
from models.features.splats import SplatRepresentation
from pipeline.dataset.promises import SlotOrder, require_fitting, require_promised, slot_anchors
from pipeline.dataset.shard_shuffle import SHARE_OF_MEMORY, ShardBatch
from pipeline.dataset.stored_rows import HeldRows, RecentRows, StoredRows
from pipeline.encode.rows import UnfinishedRows, find_unfinished_rows

logger = logging.getLogger("splatspace.dataset")

DEFAULT_MEMORY = 2048
"""MiB that a data set holds where nothing else was asked for."""

MEBIBYTE = 2**20
PORTION_ROWS = 1024


SplatItem = dict[str, Any]
"""One image, or a batch of them with a first axis more (label and row are then int64 tensors).

- ``splats``: float32 [gaussian, parameter], in the columns of ``dataset.layout``.
- ``features``: float32 [gaussian, feature], normalised; where they were asked for.
- ``image``: float32 [channel, y, x] in [0, 1], the source pixels; where the store has them.
- ``label``: class number of the data set, -1 where there is none.
- ``row``: of the store.
"""


class SplatDataset(Dataset[Any]):
    """The finished rows of a store.

    ``dataset[i]`` is one image, ``dataset[[3, 1]]`` and ``dataset[:64]`` are batches (tensors with a first axis more).
    A set that fits into ``memory`` is read whole when it is opened, and forked workers share it. Of a larger one each
    process holds what it read last; :class:`~pipeline.dataset.shard_shuffle.ShardShuffleSampler` shuffles it so that
    every shard is read once an epoch. Picklable; each process opens the store for itself. In a process in which a
    Prefect flow has run, forked workers end with exit code 1: give the ``DataLoader``
    ``multiprocessing_context="spawn"`` or ``"forkserver"`` there.

    Rows count that are done when the data set is opened: a store that is being written can be learned from, and rows
    that are finished later need another opening. Those that are not done are counted in ``unfinished`` and named in a
    warning.

    Args:
        store: path or URL of a zarr or HDF5 store.
        image: whether items have the source image; None: where the store holds them.
        features: True: items have normalised features with the statistics of this store, as generators learn from; a
            representation (of a loaded run, say): features of that one.
        transform: called with each item; what it returns is the item.
        order: which Gaussian has which index. ``stored``: as in the store. ``anchors``: every image is brought into
            the order of the anchors (least squared distance), for stores without slot identity. ``none``: as stored,
            but the index means nothing, so that no statistic of the features depends on it (for set models).
        gaussians: K that the caller relies on; None takes any.
        layout: name of the layout that the caller relies on; None takes any.
        memory: most MiB of stored rows in memory, over all workers of a ``DataLoader``.

    Attributes:
        header: of the store.
        rows: int64 [position], row numbers in the store.
        labels: int64 [position], -1 where there is none.
        unfinished: rows that are not done, counted and named.
        in_memory: whether all rows are.
        representation: between splats and features, None without features; ``representation.decode`` is the way back.

    Raises:
        JobError: an option that is none, or an order that would change the images.
        StoreError: the store cannot be opened, or has no finished row.
        StoreCorruptError: bytes that do not match their checksums, splats that are not finite.
        StoreMismatchError: another K or layout than was relied on, or no splats or images where these are asked for.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | UPath,
        *,
        image: bool | None = None,
        features: bool | SplatRepresentation = False,
        transform: Callable[[SplatItem], Any] | None = None,
        order: SlotOrder = "stored",
        gaussians: int | None = None,
        layout: str | None = None,
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        if isinstance(memory, bool) or not isinstance(memory, int) or memory < 0:
            raise JobError(f"memory={memory!r}", allowed="MiB, a whole number from 0 on")
        self.transform = transform
        self._closed = False
        with open_store(store, "r") as opened:
            self.header: StoreHeader = opened.header
            require_promised(opened, gaussians, layout, image)
            small = opened.read(["state", "label"])
            self.unfinished: UnfinishedRows = find_unfinished_rows(opened, blocks(len(opened), self.header.block_rows))
            place = opened.path
        finished = small["state"] == RowState.DONE
        self.rows: NDArray[np.int64] = np.flatnonzero(finished).astype(np.int64)
        self.labels = torch.from_numpy(small["label"][self.rows].astype(np.int64))
        if not len(self.rows):
            raise StoreError(
                f"{place} has no finished row" + (f"; not done: {self.unfinished}" if self.unfinished.count else ""),
                allowed="one or more",
                next_step="encode images into it, and open it again",
            )
        if self.unfinished.count:
            logger.warning("%s: %d rows are not done and not used: %s", place, self.unfinished.count, self.unfinished)
        anchors = slot_anchors(self.header, order)
        images = self.header.images if image is None else image
        self._stored = StoredRows(
            location(store), self.header, finished, images=images, anchors=anchors if order == "anchors" else None
        )
        self._most_bytes = memory * MEBIBYTE
        self.in_memory: bool = len(self.rows) * self._stored.row_bytes <= self._most_bytes
        self._source: HeldRows | RecentRows | None = self._whole() if self.in_memory else None
        self._process = os.getpid()
        self.representation: SplatRepresentation | None = None
        if isinstance(features, SplatRepresentation):
            self.representation = require_fitting(features, self.header)
        elif features:
            self.representation = self._fitted(anchors)

    @property
    def layout(self) -> Layout:
        """The columns of ``splats``."""
        return self.header.splat_layout

    @property
    def label_names(self) -> tuple[str, ...]:
        """What labels are called, by label; empty where they have no names."""
        return self.header.source.label_names

    @property
    def shards(self) -> list[NDArray[np.int64]]:
        """Positions of the rows of each shard (block of the store) that has any, in order."""
        numbers = self.rows // self.header.block_rows
        return np.split(np.arange(len(self.rows)), np.flatnonzero(np.diff(numbers)) + 1)

    def rows_in_memory(self, workers: int = 0) -> int:
        """Rows of how many a process holds shards at once.

        Args:
            workers: of the ``DataLoader``, which share the memory.
        """
        return max(1, int(self._most_bytes * SHARE_OF_MEMORY / max(1, workers) / self._stored.row_bytes))

    def __len__(self) -> int:
        """Finished rows."""
        return len(self.rows)

    def __iter__(self) -> Iterator[Any]:
        """Items in order, read in portions."""
        for portion in self._portions():
            yield from self.__getitems__(portion)

    @overload
    def __getitem__(self, index: int) -> Any: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int]) -> Any: ...

    def __getitem__(self, index: int | slice | Sequence[int]) -> Any:
        """One item, or a batch of them.

        Args:
            index: a position, negative ones from the end; or a slice or several positions for a batch.

        Returns:
            A ``SplatItem``, or what ``transform`` makes of it.

        Raises:
            IndexError: there is no such position.
            StoreError: see :class:`SplatDataset`; or the data set is closed.
        """
        if isinstance(index, slice):
            index = range(*index.indices(len(self)))
        elif isinstance(index, int | np.integer):
            return self.__getitems__([int(index)])[0]
        if self.transform is not None:
            return default_collate(self.__getitems__(index))
        return self._batch(index)

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Several items at once, which ``DataLoader`` asks for: each shard is looked at once."""
        batch = self._batch(indices)
        items: list[Any] = [{} for _ in indices]
        for name, values in batch.items():
            column = values.tolist() if name in ("label", "row") else values.unbind()
            for item, value in zip(items, column, strict=True):
                item[name] = value
        return items if self.transform is None else [self.transform(item) for item in items]

    def close(self) -> None:
        """Lets go of the store and of what is in memory. Safe to call twice."""
        self._closed, self._source = True, None
        self._stored.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but rows in memory: the process that gets it reads them again."""
        return {**self.__dict__, "_source": None}

    def __repr__(self) -> str:
        header = self.header
        held = "in memory" if self.in_memory else f"{len(self.shards)} shards"
        return f"<SplatDataset {len(self)} rows {header.codec} {header.layout} K={header.gaussians}, {held}>"

    def _portions(self) -> Iterator[ShardBatch]:
        """All positions in order, so many at once that a portion and what it is made of are small beside a network."""
        for shard in self.shards:
            for start in range(0, len(shard), PORTION_ROWS):
                yield ShardBatch(shard[start : start + PORTION_ROWS].tolist())

    def _whole(self) -> HeldRows:
        return HeldRows(self._stored, self.rows, floats=len(self.rows) * self._stored.float_bytes <= self._most_bytes)

    def _held(self) -> HeldRows | RecentRows:
        """Where rows are taken from in this process."""
        if self._closed:
            raise StoreError("The data set is closed", next_step="open it again with SplatDataset")
        if self._source is not None and (self.in_memory or self._process == os.getpid()):
            return self._source
        if self.in_memory:
            self._source = self._whole()
        else:
            worker = get_worker_info()
            share = self._most_bytes // (1 if worker is None else worker.num_workers)
            self._source = RecentRows(self._stored, self.rows, share)
        self._process = os.getpid()
        return self._source

    def _batch(self, indices: Sequence[int]) -> SplatItem:
        total = len(self)
        index = np.asarray(indices, np.int64)
        if len(index) and not -total <= index.min() <= index.max() < total:
            wrong = next(number for number in index.tolist() if not -total <= number < total)
            raise IndexError(f"Position {wrong} of a data set of {total} rows. Allowed: 0 to {total - 1}.")
        index = index % total
        portion = self._held().take(index, shards=isinstance(indices, ShardBatch)).floats()
        batch: SplatItem = {"splats": portion.splats}
        if self.representation is not None:
            batch["features"] = self.representation.encode(portion.splats)
        if portion.image is not None:
            batch["image"] = portion.image
        batch["label"] = self.labels.index_select(0, torch.from_numpy(index))
        batch["row"] = torch.from_numpy(self.rows[index])
        return batch

    def _fitted(self, anchors: NDArray[np.float32] | None) -> SplatRepresentation:
        header = self.header
        made = SplatRepresentation(
            layout=header.layout, gaussians=header.gaussians, anchors=anchors, colours=header.colours
        )
        portions = (self._held().take(np.array(portion), shards=True).splats for portion in self._portions())
        return made.fit(splats.float() for splats in portions)
