"""Stored rows as tensors: opened in each process that reads, whole shards at once, held in bounded memory."""

from __future__ import annotations

import os
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.errors import StoreError, StoreMismatchError
from data_schemas.locations import Location, location
from data_schemas.records import RowState, StoreHeader
from data_schemas.stores.arrays import array_specs
from data_schemas.stores.contract import SplatStore, block_range
from data_schemas.stores.open import open_store
from data_schemas.stores.selection import spans
from pipeline.finite_splats import require_finite


@dataclass(frozen=True)
class Portion:
    """Rows as they are stored, or as training takes them.

    Attributes:
        splats: float16 or float32 [row, gaussian, parameter].
        image: uint8, or float32 in [0, 1], [row, channel, y, x]; None where images are not read.
    """

    splats: Tensor
    image: Tensor | None

    @property
    def nbytes(self) -> int:
        """Of both."""
        return self.splats.nbytes + (0 if self.image is None else self.image.nbytes)

    def floats(self) -> Portion:
        """As float32; itself where it is."""
        image = self.image
        if image is not None and image.dtype == torch.uint8:
            image = image.float().div_(255)
        return Portion(self.splats.float(), image)

    def take(self, rows: Tensor) -> Portion:
        """Copies of rows by number, int64 [row]."""
        # Not by indexing, which takes ten times as long for 8 bits.
        image = self.image
        return Portion(self.splats.index_select(0, rows), None if image is None else image.index_select(0, rows))

    def part(self, rows: slice) -> Portion:
        """A copy of some rows, which keeps none of the others in memory."""
        return Portion(self.splats[rows].clone(), None if self.image is None else self.image[rows].clone())


class StoredRows:
    """Reads rows of a store that were finished when it was looked at first.

    The store is opened by the process that reads: a worker that was forked or that got this object by pickle opens its
    own. Neither the library of HDF5 nor the clients of object stores may be used on both sides of a fork.

    Args:
        place: of the store.
        header: as found when it was looked at first.
        finished: bool [row] of that time, all rows of the store.
        images: whether source images are read.
        anchors: float32 [gaussian, 2]; every image is brought into their order. None leaves the stored order.
    """

    def __init__(
        self,
        place: Location,
        header: StoreHeader,
        finished: NDArray[np.bool_],
        *,
        images: bool,
        anchors: NDArray[np.float32] | None,
    ) -> None:
        self.header = header
        self.finished = finished
        self._place, self._anchors = place, anchors
        self._names = ["state", "splats", *(["image"] if images else [])]
        self._store: SplatStore | None = None
        self._process = 0

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open store, which belongs to this process."""
        return {**vars(self), "_store": None}

    @property
    def row_bytes(self) -> int:
        """What a row takes in memory as it is stored."""
        specs = array_specs(self.header)
        return sum(int(np.prod(specs[name].tail)) * np.dtype(specs[name].dtype).itemsize for name in self._names[1:])

    @property
    def float_bytes(self) -> int:
        """What a row takes in memory as float32."""
        specs = array_specs(self.header)
        return 4 * sum(int(np.prod(specs[name].tail)) for name in self._names[1:])

    @property
    def chunk_rows(self) -> int:
        """Rows that are stored, and therefore read, together."""
        specs = array_specs(self.header)
        return max(specs[name].chunk_rows for name in self._names[1:])

    def read(self, start: int, stop: int) -> Portion:
        """Rows from ``start`` to ``stop``; what those hold that are not finished means nothing.

        Raises:
            StoreError: the store is gone or cannot be reached, or rows that were finished are no longer.
            StoreCorruptError: a shard is missing, bytes that do not match their checksums, numbers that are not finite.
            StoreMismatchError: another store stands there now.
        """
        store = self._opened()
        content = store.read(self._names, slice(start, stop))
        finished = self.finished[start:stop]
        lost = start + np.flatnonzero(finished & (content["state"] != RowState.DONE))
        if len(lost):
            raise StoreError(
                f"{store.path}: rows {spans(lost.tolist())} were finished when the data set was opened and are not now",
                allowed="rows that stay as they are while they are read",
                next_step="wait for the run that writes the store, then open it again",
            )
        splats = content["splats"]
        if not np.isfinite(splats).all():
            require_finite(splats[finished], start + np.flatnonzero(finished), store)
        if self._anchors is not None:
            # Inside: it brings the linear algebra of a training, which only this order needs.
            from pipeline.train.rows import order_by_anchors

            splats = splats.copy()
            splats[finished] = order_by_anchors(splats[finished], self.header.splat_layout, self._anchors)
        image = content.get("image")
        if image is not None:
            image = torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))
        return Portion(torch.from_numpy(np.ascontiguousarray(splats)), image)

    def close(self) -> None:
        """Lets go of the store in this process; reading opens it again."""
        if self._store is not None and self._process == os.getpid():
            self._store.close()
        self._store = None

    def _opened(self) -> SplatStore:
        if self._store is not None and self._process == os.getpid():
            return self._store
        store = open_store(_anew(self._place), "r")
        same = store.header.identity() == self.header.identity() and store.header.created == self.header.created
        if not same or len(store) < len(self.finished):
            store.close()
            raise StoreMismatchError(
                f"{self._place} was replaced by another store since the data set was opened",
                allowed="the store that was opened",
                next_step="open the data set again",
            )
        self._store, self._process = store, os.getpid()
        return store


def _anew(place: Location) -> Location:
    """The same place without the connections that a parent process may have made."""
    options = getattr(place, "storage_options", None)
    return location(str(place)) if options is None else location(type(place)(str(place), **options))


class HeldRows:
    """All finished rows of a store, in memory.

    Args:
        stored: where they come from; closed when all are read.
        rows: int64 [position], ascending.
        floats: hold them as float32, which costs two to four times the memory and spares each batch the conversion.
    """

    def __init__(self, stored: StoredRows, rows: NDArray[np.int64], *, floats: bool) -> None:
        header = stored.header
        dtype = torch.float32 if floats else getattr(torch, header.dtype)
        splats = torch.empty((len(rows), header.gaussians, header.splat_layout.width), dtype=dtype)
        image: Tensor | None = None
        for block in np.unique(rows // header.block_rows).tolist():
            span = block_range(block, header.block_rows, len(stored.finished))
            first, last = np.searchsorted(rows, [span.start, span.stop]).tolist()
            inside = torch.from_numpy(rows[first:last] - span.start)
            portion = stored.read(span.start, span.stop).take(inside)
            portion = portion.floats() if floats else portion
            splats[first:last] = portion.splats
            if portion.image is not None:
                if image is None:
                    image = torch.empty((len(rows), *portion.image.shape[1:]), dtype=portion.image.dtype)
                image[first:last] = portion.image
        stored.close()
        self._all = Portion(splats, image)

    def take(self, positions: NDArray[np.int64], *, shards: bool) -> Portion:
        """Rows by position; whether their shards are wanted whole makes no difference here."""
        return self._all.take(torch.from_numpy(positions))


class RecentRows:
    """Rows of a store that is larger than the memory: those that were read last are held.

    Args:
        stored: where they come from.
        rows: int64 [position], ascending.
        most_bytes: held at most, once a batch is put together.
    """

    def __init__(self, stored: StoredRows, rows: NDArray[np.int64], most_bytes: int) -> None:
        self._stored, self._rows, self._most_bytes = stored, rows, most_bytes
        self._size = stored.chunk_rows
        self._whole = stored.header.block_rows * stored.row_bytes <= most_bytes
        self._held: OrderedDict[int, Portion] = OrderedDict()
        self._bytes = 0

    def take(self, positions: NDArray[np.int64], *, shards: bool) -> Portion:
        """Rows by position.

        Args:
            positions: int64, which.
            shards: read the whole shard of every row, since its other rows are wanted soon, where one fits into the
                memory; else its chunk.
        """
        if not len(positions):
            return self._stored.read(0, 0)
        rows = self._rows[positions]
        chunks = rows // self._size
        parts: list[Portion] = []
        order = np.argsort(chunks, kind="stable")
        sorted_rows = rows[order]
        for group in np.split(np.arange(len(order)), np.flatnonzero(np.diff(chunks[order])) + 1):
            chunk = int(sorted_rows[group[0]]) // self._size
            held = self._chunk(chunk, shards)
            inside = torch.from_numpy(sorted_rows[group] - chunk * self._size)
            parts.append(held.take(inside))
        while self._bytes > self._most_bytes and len(self._held) > 1:
            self._bytes -= self._held.popitem(last=False)[1].nbytes
        back = torch.from_numpy(np.argsort(order, kind="stable"))
        images = [part.image for part in parts if part.image is not None]
        joined = Portion(torch.cat([part.splats for part in parts]), torch.cat(images) if images else None)
        return joined.take(back)

    def _chunk(self, chunk: int, shards: bool) -> Portion:
        if chunk in self._held:
            self._held.move_to_end(chunk)
            return self._held[chunk]
        total, size = len(self._stored.finished), self._size
        span = range(chunk * size, min((chunk + 1) * size, total))
        if shards and self._whole:
            span = block_range(span.start // self._stored.header.block_rows, self._stored.header.block_rows, total)
        read = self._stored.read(span.start, span.stop)
        for start in range(0, len(span), size):
            number = (span.start + start) // size
            if number not in self._held:
                self._held[number] = read.part(slice(start, start + size))
                self._bytes += self._held[number].nbytes
        self._held.move_to_end(chunk)
        return self._held[chunk]
