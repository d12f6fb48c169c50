"""The zarr store on an object store: the same objects with the same bytes, where nothing can be renamed.

Each object is replaced at once, a block is one object for each array. So ``state`` is what makes rows visible: a block
of which rows are replaced by others is first written with these rows EMPTY, then come the numbers, then ``state``
again. A kill leaves the old rows, the new ones, or rows that say EMPTY and are encoded again to the same bytes.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from upath import UPath
from zarr.abc.store import ByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, MemoryStore

from data_schemas.errors import StoreCorruptError, StoreError
from data_schemas.headers import SCHEMA_NAME
from data_schemas.objects import (
    explained_remote,
    has_objects,
    object_sizes,
    read_object,
    read_objects,
    remove_objects,
    sizes_one_by_one,
    write_object,
    write_objects,
)
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.stores.base import RowStore
from data_schemas.stores.contract import ARRAYS, block_range
from data_schemas.stores.locks import RemoteLock
from data_schemas.stores.zarr_documents import (
    ALWAYS_WRITTEN,
    DOCUMENT,
    StoreDocuments,
    array_over,
    checked_documents,
    group_attributes,
    group_files,
    native,
    parse_document,
    sealed,
    shard_path,
    write_order,
)

logger = logging.getLogger("splatspace.store")

_READS = 3
"""How often a block that appears while it is read is looked at again."""


class RemoteZarrStore(RowStore):
    """One row per image in a zarr v3 group on an object store (docs/scaling.md)."""

    path: UPath

    def __init__(self, path: UPath, *, writable: bool, lock: RemoteLock | None) -> None:
        """Opens a store; ``create_store`` and ``open_store`` are the way in.

        Raises:
            StoreError: damaged, newer, or not a SplatSpace store.
        """
        self._held = lock
        with explained_remote("reach", path):
            self._objects = FsspecStore.from_url(str(path), dict(path.storage_options), read_only=True)
        found = _documents(path, self._objects)
        self._store_id = found.store_id
        self._group = found.group
        self._documents = found.arrays
        super().__init__(path, found.header, found.rows, writable=writable, lock=lock)
        if lock is not None:
            remove_objects(_creating(path), [""])  # of a run that was killed after its last step

    @classmethod
    def create(cls, path: UPath, header: StoreHeader, lock: RemoteLock) -> Self:
        """Makes an empty store, replacing one that is there; the group's ``zarr.json`` comes last and makes it one."""
        replace_store(path, [group_files(header, uuid.uuid4().hex)])
        return cls(path, writable=True, lock=lock)

    @property
    def nbytes_stored(self) -> dict[str, int]:
        """Bytes in the object store by array (compressed, with checksums and metadata)."""
        found = object_sizes(self.path)
        if f"state/{DOCUMENT}" not in found:  # some web servers list nothing
            count = -(-self._rows // self._header.block_rows)
            keys = [shard_path(spec, block) for spec in self._specs.values() for block in range(count)]
            found = sizes_one_by_one(self.path, [*keys, *(f"{name}/{DOCUMENT}" for name in self._specs)])
        sizes = dict.fromkeys(self.arrays, 0)
        for key, size in found.items():
            name = key.partition("/")[0]
            if name in sizes:
                sizes[name] += size
        return sizes

    # Reading -----------------------------------------------------------------------------------------------------

    def _read_range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        for _ in range(_READS):
            watched = _WatchedObjects(self.path, self._objects)
            values = native(array_over(watched, name, self._documents[name])[start:stop])
            if not self._appeared(name, start, stop, watched.absent):
                return values
        raise StoreError(
            f"{self.path}: {name!r} changes while it is read",
            allowed="a store that is complete, or written by one run",
            next_step="wait for the writer to finish",
        )

    def _appeared(self, name: str, start: int, stop: int, absent: set[str]) -> bool:
        """Whether objects that zarr did not find are there now, so that it must look again.

        Raises:
            StoreCorruptError: one is lost; zarr answers with fill values, which look like numbers.
        """
        size = self._header.block_rows
        shards = {block: shard_path(self._specs[name], block) for block in range(start // size, -(-stop // size))}
        expected = [block for block, key in shards.items() if key in absent]
        if expected and name not in ALWAYS_WRITTEN:
            first = expected[0] * size
            states = self._read_range("state", first, min((expected[-1] + 1) * size, self._rows))
            expected = [block for block in expected if (states[block * size - first :][:size] != RowState.EMPTY).any()]
        if not expected:
            return False
        found = read_objects(self.path, [shards[block] for block in expected])
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
        files: dict[str, Buffer] = {}
        for name in self._specs:
            array = array_over(MemoryStore(files), name, self._documents[name])
            array[span.start : span.stop] = getattr(rows, name)
        self._require_right()
        withdrawn = self._without_replaced(block, rows)
        if withdrawn is not None:
            self._put(self._encoded("state", withdrawn, span))
        self._put(files)

    def _without_replaced(self, block: int, rows: RowBlock) -> NDArray[np.uint8] | None:
        """The states of a block with the rows EMPTY that are replaced by others; None where there are none."""
        span = block_range(block, self._header.block_rows, self._rows)
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
        states = np.concatenate([kept["state"], np.zeros(len(source_ids), np.uint8)])
        files: dict[str, Buffer] = {}
        for name, values in (("source_id", names), ("state", states)):
            array = array_over(MemoryStore(files), name, documents[name])
            for block in range(start // size, -(-total // size)):
                span = block_range(block, size, total)
                array[span.start : span.stop] = values[span.start - start : span.stop - start]
        self._require_right()
        self._put(files, {f"{name}/{DOCUMENT}": sealed(document) for name, document in documents.items()})
        self._documents = documents
        self._rows = total

    def _set_header(self, header: StoreHeader) -> None:
        group = {**self._group, "attributes": group_attributes(header, self._store_id)}
        self._require_right()
        self._put({}, {DOCUMENT: sealed(group)})
        self._group = group

    def _encoded(self, name: str, values: NDArray[Any], span: range) -> dict[str, Buffer]:
        files: dict[str, Buffer] = {}
        array_over(MemoryStore(files), name, self._documents[name])[span.start : span.stop] = values
        return files

    def _put(self, files: dict[str, Buffer], documents: dict[str, bytes] | None = None) -> None:
        objects = {key: data.to_bytes() for key, data in files.items()}
        write_objects(self.path, objects | (documents or {}), write_order)

    def _require_right(self) -> None:
        """What is about to be written must be ours to write, now, and not only when the store was opened."""
        if self._held is not None:
            self._held.require()
            return
        group = parse_document(read_object(self.path / DOCUMENT), self.path / DOCUMENT)
        if str(group.get("attributes", {}).get("store_id", "")) != self._store_id:
            raise StoreError(
                f"{self.path} was replaced while it was being written",
                allowed="the store that was opened",
                next_step="run the same command again",
            )

    def _commit(self) -> None:
        """Every object was durable when it was written; nothing is left to do."""

    def _close(self) -> None:
        """No object stays open."""


class _WatchedObjects(FsspecStore):
    """Objects for one reading by zarr: remembers which were not there, and reports the network's faults as such."""

    def __init__(self, place: UPath, objects: FsspecStore) -> None:
        super().__init__(objects.fs, read_only=True, path=objects.path)
        self._place = place
        self.absent: set[str] = set()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Reads an object or a part of one; None where there is none."""
        with explained_remote("read", self._place):
            value = await super().get(key, prototype, byte_range)
        if value is None or not len(value):
            self.absent.add(key)
        return value


def replace_store(path: UPath, portions: Iterable[Mapping[str, bytes]]) -> None:
    """Puts a store where nothing or another store is; for the holder of its lock. A kill leaves no store.

    Args:
        path: of the store.
        portions: its objects by key, in the order of ``write_order``: the group's ``zarr.json`` is the last one.
    """
    write_object(_creating(path), b"")
    # Without this one there is no store, so that the rest can go one by one.
    remove_objects(path, [DOCUMENT])
    remove_objects(path, object_sizes(path))
    for portion in portions:
        write_objects(path, portion, write_order)
    remove_objects(_creating(path), [""])


def store_place(path: UPath) -> str:
    """What is at a URL: ``store``, ``nothing``, ``unfinished`` (a creation that was killed), or ``strange``.

    Raises:
        StoreError: the place cannot be reached.
    """
    data = read_object(path / DOCUMENT)
    if data is not None:
        try:
            ours = parse_document(data, path).get("attributes", {}).get("schema") == SCHEMA_NAME
        except StoreError:
            ours = False
        if ours:
            return "store"
    if read_object(_creating(path)) is not None:
        return "unfinished"
    return "strange" if data is not None or has_objects(path) else "nothing"


def _creating(path: UPath) -> UPath:
    """The object that says: what is here is being made or replaced, and may be deleted."""
    return path.with_name(path.name + ".creating")


def _documents(path: UPath, objects: FsspecStore) -> StoreDocuments:
    # All at once: one by one, opening would take a dozen times the way to the store.
    keys = {name: f"{name}/{DOCUMENT}" if name else DOCUMENT for name in ("", *ARRAYS, "parameter")}
    found = read_objects(path, keys.values())
    return checked_documents(
        path,
        lambda name: (parse_document(found.get(keys[name]), path / keys[name]), path / keys[name]),
        lambda document: array_over(_WatchedObjects(path, objects), "parameter", document)[:],
    )


def _equal_rows(before: NDArray[Any], after: NDArray[Any]) -> NDArray[np.bool_]:
    """Bool [row]: whether the rows are the same, bit for bit."""
    if before.dtype == object:
        return np.asarray(before == after, bool)
    raw = [np.ascontiguousarray(values).reshape(len(values), -1).view(np.uint8) for values in (before, after)]
    return (raw[0] == raw[1]).all(axis=1)
