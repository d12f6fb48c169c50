"""A store as a zarr v3 group: one shard file per array and block, so that blocks are written in parallel.

What is stored, and in which order, is decided here. Where the files are, and whether several of them can be replaced as
one, is known to a ``ZarrPlace``: a folder with a redo log beside it, or an object store, where nothing can be renamed.

Where each file is replaced by itself, ``state`` makes rows visible: a block of which rows are replaced by others is
first written with these rows EMPTY, then come the numbers, then ``state`` again. A kill leaves the old rows, the new
ones, or rows that say EMPTY and are encoded again to the same bytes.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.metadata import ArrayV3Metadata
from zarr.storage import MemoryStore, WrapperStore

from data_schemas.errors import StoreCorruptError, StoreError
from data_schemas.locations import Location
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.stores.arrays import ARRAYS
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.locks import HeldLock
from data_schemas.stores.selection import block_range
from data_schemas.stores.zarr_documents import (
    ALWAYS_WRITTEN,
    DOCUMENT,
    add_checksum,
    array_over,
    check_documents,
    document_key,
    group_attributes,
    group_files,
    is_ours,
    native,
    parse_document,
    shard_path,
)
from data_schemas.stores.zarr_folder import ZarrFolder
from data_schemas.stores.zarr_objects import ZarrObjects

_READS = 3
"""How often a block that appears while it is read is looked at again."""


class ZarrPlace(Protocol):
    """Where the files of one store are. Their names are paths below the store, such as ``state/c/0``."""

    @property
    def replaces_as_one(self) -> bool:
        """Whether ``replace`` happens wholly or not at all; else file by file, in the order of ``write_order``."""
        ...

    def create(self, files: Mapping[str, bytes]) -> None:
        """Puts a store here, in place of one that may be there; a kill at any instant leaves no half of one."""
        ...

    def recover(self) -> None:
        """Finishes or undoes what a killed writer left; for the holder of the lock."""
        ...

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Whole files by name, those left out that are not there; they are read in the order of ``names``."""
        ...

    def layers(self) -> Sequence[Store]:
        """What zarr reads from, as of now: a file in one of these hides those in the following ones."""
        ...

    def read_group(self) -> bytes | None:
        """The group's ``zarr.json``, where a program that knows no more than zarr finds it; None where it is gone."""
        ...

    def replace(self, files: Mapping[str, bytes], accept: Callable[[], object]) -> None:
        """Replaces files and makes them durable; ``accept`` is called as soon as they are what readers see."""
        ...

    def is_behind(self) -> bool:
        """Whether there are changes that only programs see that know more than zarr."""
        ...

    def catch_up(self) -> None:
        """Moves such changes to where all programs see them; for the holder of the lock."""
        ...

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Bytes of files by name, those left out that are not there."""
        ...


class ZarrStore(SplatStore):
    """One row per image in a zarr v3 group, in a folder or on an object store (docs/store-format.md)."""

    def __init__(self, path: Location, *, writable: bool, lock: HeldLock | None) -> None:
        """Opens a store; ``create_store`` and ``open_store`` are the way in.

        Raises:
            StoreError: damaged, newer, or not a SplatSpace store.
        """
        self._place = _place(path)
        if lock is not None:
            self._place.recover()
        # The length of ``state`` is read first: the other arrays may only have become longer since.
        documents = dict.fromkeys(document_key(name) for name in ("state", "", *ARRAYS, "parameter"))
        found = check_documents(
            path,
            self._place.read(documents),
            lambda document: array_over(
                _Layers(self._place.layers()), "parameter", ArrayV3Metadata.from_dict(document)
            )[:],
        )
        self._store_id = found.store_id
        self._group = found.group
        self._take_documents(found.arrays)
        super().__init__(path, found.header, found.rows, writable=writable, lock=lock)

    def _take_documents(self, documents: dict[str, dict[str, Any]]) -> None:
        self._documents = documents
        self._metadata = {name: ArrayV3Metadata.from_dict(document) for name, document in documents.items()}

    @classmethod
    def create(cls, path: Location, header: StoreHeader, lock: HeldLock) -> Self:
        """Makes an empty store at ``path``, replacing one that is there; it appears whole or not at all."""
        _place(path).create(group_files(header, uuid.uuid4().hex))
        return cls(path, writable=True, lock=lock)

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Whether a SplatSpace store (of any version) is in the folder ``path``."""
        try:
            return is_ours(ZarrFolder(path).read_group(), path)
        except OSError:
            return False

    @property
    def nbytes_stored(self) -> dict[str, int]:
        """Bytes stored by array (compressed, with checksums and metadata)."""
        blocks = range(-(-self._rows // self._header.block_rows))
        names = {
            name: [document_key(name), *(shard_path(spec, block) for block in blocks)]
            for name, spec in self._specs.items()
        }
        sizes = self._place.sizes([file for files in names.values() for file in files])
        return {name: sum(sizes.get(file, 0) for file in files) for name, files in names.items()}

    # Reading -----------------------------------------------------------------------------------------------------

    def _read_range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        for _ in range(_READS):
            layers = _Layers(self._place.layers())
            values = native(array_over(layers, name, self._metadata[name])[start:stop])
            if not self._appeared(name, start, stop, layers.absent):
                return values
        raise StoreError(
            f"{self.path}: {name!r} changes while it is read",
            allowed="a store that is complete, or written by one run",
            next_step="wait for the writer to finish",
        )

    def _appeared(self, name: str, start: int, stop: int, absent: set[str]) -> bool:
        """Whether files that zarr did not find are there now, so that it must look again.

        Raises:
            StoreCorruptError: one is lost; zarr answers with fill values, which look like numbers.
        """
        if not absent:
            return False
        size = self._header.block_rows
        shards = {block: shard_path(self._specs[name], block) for block in range(start // size, -(-stop // size))}
        expected = [block for block, file in shards.items() if file in absent]
        if expected and name not in ALWAYS_WRITTEN:
            first = expected[0] * size
            states = self._read_range("state", first, min((expected[-1] + 1) * size, self._rows))
            expected = [block for block in expected if (states[block * size - first :][:size] != RowState.EMPTY).any()]
        if not expected:
            return False
        found = self._place.read([shards[block] for block in expected])
        lost = [block for block in expected if not found.get(shards[block])]
        if lost:
            rows = [row for block in lost for row in block_range(block, size, self._rows) if start <= row < stop]
            raise self._corrupt(name, rows, f"shard {shards[lost[0]]} is missing or empty")
        return True

    def _fault(self, name: str, start: int, stop: int) -> Exception | None:
        fault = super()._fault(name, start, stop)
        if isinstance(fault, StoreError) and not isinstance(fault, StoreCorruptError):
            raise fault  # the network, not the bytes
        return fault

    # Writing -----------------------------------------------------------------------------------------------------

    def _write_block(self, block: int, rows: RowBlock) -> None:
        span = block_range(block, self._header.block_rows, self._rows)
        files: dict[str, bytes] = {}
        for name in self._specs:
            files |= _encoded(name, self._metadata[name], [(span, getattr(rows, name))])
        self._require_right()
        withdrawn = None if self._place.replaces_as_one else self._without_replaced(span, rows)
        if withdrawn is not None:
            self._replace(_encoded("state", self._metadata["state"], [(span, withdrawn)]))
        self._replace(files)

    def _without_replaced(self, span: range, rows: RowBlock) -> NDArray[np.uint8] | None:
        """The states of a block with the rows EMPTY that are replaced by others; None where there are none."""
        try:
            before = self._read_checked("state", span.start, span.stop)
        except StoreCorruptError:
            return np.full(len(span), RowState.EMPTY, np.uint8)
        empty = before == RowState.EMPTY
        if empty.all():
            return None
        same = np.ones(len(span), bool)
        for name in self._specs:
            try:
                same &= _equal_rows(self._read_checked(name, span.start, span.stop), getattr(rows, name))
            except StoreCorruptError:
                same[:] = False
        kept = empty | same
        return None if kept.all() else np.where(kept, before, np.uint8(RowState.EMPTY))

    def _append(self, source_ids: list[str]) -> None:
        size, first = self._header.block_rows, self._rows
        total = first + len(source_ids)
        documents = {
            name: {**document, "shape": [total, *document["shape"][1:]]} for name, document in self._documents.items()
        }
        start = first // size * size
        kept = self.read(ALWAYS_WRITTEN, slice(start, first))
        names = np.array([*kept["source_id"], *source_ids], dtype=object)
        states = np.concatenate([kept["state"], np.full(len(source_ids), RowState.EMPTY, np.uint8)])
        spans = [block_range(block, size, total) for block in range(start // size, -(-total // size))]
        files = {document_key(name): add_checksum(document) for name, document in documents.items()}
        for name, values in (("source_id", names), ("state", states)):
            parts = [(span, values[span.start - start : span.stop - start]) for span in spans]
            files |= _encoded(name, ArrayV3Metadata.from_dict(documents[name]), parts)

        def accept() -> None:
            self._take_documents(documents)
            self._rows = total

        self._require_right()
        self._replace(files, accept)

    def _set_header(self, header: StoreHeader) -> None:
        group = {**self._group, "attributes": group_attributes(header, self._store_id)}
        self._require_right()
        self._replace({DOCUMENT: add_checksum(group)})
        self._group = group

    def _replace(self, files: Mapping[str, bytes], accept: Callable[[], object] = lambda: None) -> None:
        try:
            self._place.replace(files, accept)
        except FileNotFoundError:
            self._require_same_store()
            raise

    def _require_right(self) -> None:
        """What is about to be written must be ours to write, now, and not only when the store was opened."""
        self._require_same_store()
        if self._lock is not None:
            self._lock.require()
            self._place.catch_up()

    def _require_same_store(self) -> None:
        """What a writer has must not enter a store that was made again since, nor leave a wreck where one was deleted.

        A shard writer may outlive its run, and a lock does not keep anybody from deleting a folder.
        """
        data = self._place.read_group()
        if data is None:
            raise StoreError(
                f"{self.path} was deleted while it was being written",
                allowed="a store that stays where it is until the run has ended",
                next_step="run the same command again: it makes the store again",
            )
        group = parse_document(data, self.path / DOCUMENT)
        if str(group.get("attributes", {}).get("store_id", "")) != self._store_id:
            raise StoreError(
                f"{self.path} was replaced while it was being written",
                allowed="the store that was opened",
                next_step="run the same command again",
            )

    def _commit(self) -> None:
        """Every change was made durable as it happened; those of killed shard writers are moved to where all look."""
        if self._lock is not None and self._place.is_behind():
            self._lock.require()
            self._place.catch_up()

    def _close(self) -> None:
        """No file stays open."""


class _Layers(WrapperStore[Store]):
    """The layers of a place for one reading by zarr; remembers which files were in none of them, or empty."""

    def __init__(self, layers: Sequence[Store]) -> None:
        super().__init__(layers[-1])
        self._layers = layers
        self.absent: set[str] = set()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Reads a file or a part of one; None where there is none."""
        value = None
        for layer in self._layers:
            # A change that has been moved into the store since is found there: the store is the last layer.
            with contextlib.suppress(FileNotFoundError):
                value = await layer.get(key, prototype, byte_range)
            if value is not None:
                break
        # Beyond the end of a file that was cut short there is nothing either, but that file is there.
        if value is None or (not len(value) and not isinstance(byte_range, RangeByteRequest)):
            self.absent.add(key)
            return None
        return value


def _place(path: Location) -> ZarrPlace:
    return ZarrFolder(path) if isinstance(path, Path) else ZarrObjects(path)


def _encoded(name: str, metadata: ArrayV3Metadata, parts: Iterable[tuple[range, NDArray[Any]]]) -> dict[str, bytes]:
    """The files of some whole blocks of an array, given the rows and the values of each."""
    files: dict[str, Buffer] = {}
    array = array_over(MemoryStore(files), name, metadata)
    for span, values in parts:
        array[span.start : span.stop] = values
    return {file: data.to_bytes() for file, data in files.items()}


def _equal_rows(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Bool [row]: whether the rows are the same, bit for bit."""
    if before.dtype == object:
        return np.asarray(before == after, bool)
    raw = [np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8) for values in (before, after)]
    return (raw[0] == raw[1]).all(axis=1)
