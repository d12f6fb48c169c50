"""The contract of a store: one row per image, whole blocks visible at once.

    store = open_store("sprites.zarr")
    rows = store.read(["splats", "psnr"], slice(0, 100))

The suffix of the path decides the format: ``.zarr`` or ``.h5``/``.hdf5``. docs/store-format.md is the
specification for other programs. What all kinds share is here: choosing rows, checking blocks, naming rows with bad
bytes, locking.
"""

from __future__ import annotations

import errno
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreCorruptError, StoreError
from data_schemas.files import wrap_os_errors
from data_schemas.headers import check_header, require_same_shapes
from data_schemas.locations import Location
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.stores.arrays import ARRAYS, ArraySpec, array_specs, check_block, check_source_ids
from data_schemas.stores.locks import HeldLock
from data_schemas.stores.selection import block_range, block_span, blocks, chunk_groups, row_numbers, spans

__all__ = ["ARRAYS", "SplatStore", "block_range", "blocks"]

logger = logging.getLogger("splatspace.store")

_COUNTED_AT_ONCE = 2**20


class SplatStore(ABC):
    """One row per image. Rows are written in blocks of ``header.block_rows`` and become visible at once.

    A backend supplies ranges of rows, this class does the rest.

    Args:
        path: of the store, resolved.
        header: as read from it.
        rows: how many rows it has.
        writable: whether blocks may be written.
        lock: the writer lock, or None for readers and for shard writers without the lock.
    """

    def __init__(
        self, path: Location, header: StoreHeader, rows: int, *, writable: bool, lock: HeldLock | None
    ) -> None:
        self.path = path
        self._header = header
        self._rows = rows
        self._writable = writable
        self._lock = lock
        self._closed = False
        self._specs = array_specs(header)

    # What a backend supplies -------------------------------------------------------------------------------------

    @abstractmethod
    def _read_range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        """Rows ``start`` to ``stop`` of one array (text as object); any exception means that bytes are bad."""

    @abstractmethod
    def _append(self, source_ids: list[str]) -> None:
        """Adds EMPTY rows, all or none."""

    @abstractmethod
    def _write_block(self, block: int, rows: RowBlock) -> None:
        """Replaces a checked block, all or nothing."""

    @abstractmethod
    def _set_header(self, header: StoreHeader) -> None:
        """Replaces the attributes."""

    @abstractmethod
    def _commit(self) -> None:
        """Makes everything written so far durable and readable by other programs."""

    @abstractmethod
    def _close(self) -> None:
        """Lets go of open files."""

    @property
    @abstractmethod
    def nbytes_stored(self) -> dict[str, int]:
        """Bytes on disk by array (compressed, with checksums)."""

    # Reading -----------------------------------------------------------------------------------------------------

    @property
    def header(self) -> StoreHeader:
        """What the numbers mean and how they were made."""
        return self._header

    def __len__(self) -> int:
        """Rows, done or not."""
        return self._rows

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that this store has (``image`` and ``splats`` are optional)."""
        return tuple(self._specs)

    def read(self, names: Sequence[str], rows: slice | Sequence[int] = slice(None)) -> dict[str, NDArray[Any]]:
        """Reads rows of some arrays; only the chunks that hold them are decoded.

        Args:
            names: which of ``arrays``; text comes as object arrays of str.
            rows: a slice, or row numbers in any order (negative ones count from the end).

        Returns:
            Name to array, rows on the first axis in the order asked for.

        Raises:
            StoreError: an array or a row that the store does not have, or the store is closed.
            StoreCorruptError: a checksum differs; ``rows`` names the rows that cannot be trusted.
        """
        self._require_open()
        names = [names] if isinstance(names, str) else list(names)
        for name in names:
            if name not in self._specs:
                raise StoreError(
                    f"{self.path} has no array {name!r}",
                    allowed=", ".join(self._specs),
                    next_step="it holds images only: encode them again with --gaussians 1 or more"
                    if name == "splats"
                    else "",
                )
        numbers = row_numbers(rows, self._rows, self.path)
        return {name: self._read_rows(self._specs[name], numbers) for name in names}

    def read_block(self, block: int) -> RowBlock:
        """The rows of one block, done or not.

        Raises:
            StoreError: there is no such block.
            StoreCorruptError: a checksum differs.
        """
        span = block_span(block, self._header.block_rows, self._rows, self.path)
        content: dict[str, Any] = {"image": None, **self.read(self.arrays, slice(span.start, span.stop))}
        if "splats" not in content:
            content["splats"] = RowBlock.empty(len(span), self._header).splats
        return RowBlock(**{name: content[name] for name in ARRAYS})

    def finished_rows(self) -> NDArray[np.int64]:
        """Numbers of the rows that are done, ascending: int64 [row].

        Raises:
            StoreCorruptError: a checksum of the states differs.
        """
        return np.flatnonzero(self.read(["state"])["state"] == RowState.DONE).astype(np.int64)

    def count_rows(self) -> dict[RowState, int]:
        """How many rows are in each state.

        Raises:
            StoreCorruptError: a checksum of the states differs.
        """
        counts = dict.fromkeys(RowState, 0)
        # One byte a row is a gigabyte for the largest stores.
        for first in range(0, len(self), _COUNTED_AT_ONCE):
            states = self.read(["state"], slice(first, first + _COUNTED_AT_ONCE))["state"]
            for state in RowState:
                counts[state] += int(np.count_nonzero(states == state))
        return counts

    def verify_checksums(self) -> list[int]:
        """Reads every stored byte and collects the rows whose checksums differ, instead of stopping at the first.

        Returns:
            Sorted row numbers, empty where the store is sound.
        """
        self._require_open()
        bad: set[int] = set()
        for name in self._specs:
            bad.update(self._bad_rows(name, 0, self._rows))
        return sorted(bad)

    # Writing -----------------------------------------------------------------------------------------------------

    def append(self, source_ids: Sequence[str]) -> range:
        """Adds rows in state EMPTY and returns their numbers. All or nothing under a kill at any instant.

        Raises:
            StoreError: opened for reading or without the lock, a name that cannot be stored, or a full disk.
        """
        self._require_exclusive("append rows to")
        source_ids = list(source_ids)
        check_source_ids(source_ids)
        added = range(self._rows, self._rows + len(source_ids))
        if source_ids:
            with wrap_os_errors("append rows to", self.path):
                self._append(source_ids)
            logger.debug("%s: %d rows added", self.path.name, len(source_ids))
        return added

    def write_block(self, block: int, rows: RowBlock) -> None:
        """Replaces all rows of one block; a kill at any instant leaves the old rows or the new ones.

        Raises:
            StoreError: the rows do not fit the header, the disk is full, or the store is read-only; what was
                there is still there.
        """
        self._require_writable()
        span = block_span(block, self._header.block_rows, self._rows, self.path)
        checked = check_block(rows, self._header, len(span))
        with wrap_os_errors(f"write rows {span.start} to {span.stop - 1} of", self.path):
            self._write_block(block, checked)

    def set_header(self, header: StoreHeader) -> None:
        """Replaces the attributes (atomically).

        Raises:
            StoreMismatchError: the new header would change the shape of a stored array.
            StoreError: opened for reading or without the lock, or a full disk.
        """
        self._require_exclusive("change the header of")
        check_header(header)
        require_same_shapes(self._header, header)
        with wrap_os_errors("write the header of", self.path):
            self._set_header(header)
        self._header = header

    def commit(self) -> None:
        """Makes everything written so far durable and readable by other programs.

        Raises:
            StoreError: the disk is full; nothing that was written is lost, a later commit can finish.
        """
        self._require_writable()
        with wrap_os_errors("commit", self.path):
            self._commit()

    def close(self) -> None:
        """Commits if writable, and releases the file and its lock. Safe to call twice."""
        if self._closed:
            return
        try:
            if self._writable:
                self.commit()
        finally:
            self._closed = True
            try:
                self._close()
            finally:
                if self._lock is not None:
                    self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.path} {self._rows} rows {self._header.codec} K={self._header.gaussians}>"

    # Chunks ---------------------------------------------------------------------------------------------

    def _read_rows(self, spec: ArraySpec, numbers: range | NDArray[np.intp]) -> NDArray[Any]:
        if isinstance(numbers, range):
            return self._read_checked(spec.name, numbers.start, max(numbers.start, numbers.stop))
        out = np.empty((len(numbers), *spec.tail), dtype=object if spec.is_text else spec.dtype)
        for group in chunk_groups(numbers, spec.chunk_rows):
            wanted = numbers[group]
            first = int(wanted[0])
            out[group] = self._read_checked(spec.name, first, int(wanted[-1]) + 1)[wanted - first]
        return out

    def _read_checked(self, name: str, start: int, stop: int) -> NDArray[Any]:
        if start >= stop:
            spec = self._specs[name]
            return np.empty((0, *spec.tail), dtype=object if spec.is_text else spec.dtype)
        try:
            return self._read_range(name, start, stop)
        except (StoreError, MemoryError):
            raise
        except Exception as error:
            # The backends' libraries raise many types for bad bytes; only the system's own refusals are not that.
            if isinstance(error, OSError) and error.errno not in (None, errno.EIO, errno.EINVAL):
                with wrap_os_errors(f"read {name!r} of", self.path):
                    raise
            raise self._corrupt(name, self._bad_rows(name, start, stop) or list(range(start, stop)), error) from error

    def _bad_rows(self, name: str, start: int, stop: int) -> list[int]:
        """Rows between ``start`` and ``stop`` (widened to whole chunks) whose chunks cannot be read."""
        size, block = self._specs[name].chunk_rows, self._header.block_rows
        bad: list[int] = []
        for first in range(start // block * block, stop, block):
            if self._fault(name, first, min(first + block, self._rows)) is None:
                continue
            for low in range(max(first, start // size * size), min(first + block, stop), size):
                high = min(low + size, self._rows)
                fault = self._fault(name, low, high)
                if fault is not None:
                    logger.debug("%s: %s rows %d to %d: %s", self.path.name, name, low, high - 1, fault)
                    bad.extend(range(low, high))
        return bad

    def _fault(self, name: str, start: int, stop: int) -> Exception | None:
        try:
            self._read_range(name, start, stop)
        except MemoryError:
            raise
        except Exception as error:
            return error
        return None

    def _corrupt(self, name: str, rows: Sequence[int], cause: object) -> StoreCorruptError:
        return StoreCorruptError(
            f"{self.path}: array {name!r} has bad bytes in rows {spans(rows)} ({cause})",
            rows=rows,
            allowed="stored bytes that match their checksums",
            next_step=f"run 'splatspace verify {self.path}', then restore a copy or encode these rows again",
        )

    # Rights ------------------------------------------------------------------------------------------------------

    def _require_open(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path} is closed", next_step="open it again with open_store")

    def _require_writable(self) -> None:
        self._require_open()
        if not self._writable:
            raise StoreError(
                f"{self.path} is open for reading",
                allowed="open_store(path, 'a') to write",
                next_step="open it with mode 'a'",
            )

    def _require_exclusive(self, action: str) -> None:
        self._require_writable()
        if self._lock is None:
            raise StoreError(
                f"Cannot {action} {self.path} without its lock",
                allowed="write_block only, after open_store(..., lock=False)",
                next_step="let the process that opened it with the lock do this",
            )
