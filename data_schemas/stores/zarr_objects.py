"""The objects of a zarr store on an object store: each is replaced at once, by itself, and nothing can be renamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from upath import UPath
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, WrapperStore

from data_schemas.objects import (
    has_objects,
    object_sizes,
    read_object,
    read_objects,
    remove_objects,
    sizes_one_by_one,
    wrap_remote_errors,
    write_object,
    write_objects,
)
from data_schemas.stores.zarr_documents import DOCUMENT, is_ours, write_order


class ZarrObjects:
    """The place of a store on an object store (see ``ZarrPlace``).

    Args:
        path: URL of the store.

    Raises:
        StoreError: the place cannot be reached.
    """

    replaces_as_one = False

    def __init__(self, path: UPath) -> None:
        self._path = path
        with wrap_remote_errors("reach", path):
            objects = FsspecStore.from_url(str(path), dict(path.storage_options), read_only=True)
        self._store = _Objects(objects, path)

    def create(self, files: Mapping[str, bytes]) -> None:
        """Writes the store, the group's ``zarr.json`` last: with it the rest becomes one."""
        replace_store(self._path, [files])

    def recover(self) -> None:
        """Takes away the mark of a creation that was killed after its last step."""
        remove_objects(_creating(self._path), [""])

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Whole objects, all at once: one by one, opening would take a dozen times the way to the store."""
        return read_objects(self._path, names)

    def layers(self) -> Sequence[Store]:
        """The objects."""
        return [self._store]

    def read_group(self) -> bytes | None:
        """The group's ``zarr.json``."""
        return read_object(self._path / DOCUMENT)

    def replace(self, files: Mapping[str, bytes], accept: Callable[[], object]) -> None:
        """Writes objects, one rank of ``write_order`` after the other."""
        write_objects(self._path, files, write_order)
        accept()

    def is_behind(self) -> bool:
        """False: an object is what all programs see."""
        return False

    def catch_up(self) -> None:
        """Nothing is ever behind."""

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Bytes of the objects, from one list of them where there is one."""
        found = object_sizes(self._path)
        # Some web servers list nothing.
        return found if f"state/{DOCUMENT}" in found else sizes_one_by_one(self._path, names)


class _Objects(WrapperStore[FsspecStore]):
    """Objects that zarr reads; the network's faults are told as such."""

    def __init__(self, store: FsspecStore, place: UPath) -> None:
        super().__init__(store)
        self._place = place

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Reads an object or a part of one; None where there is none."""
        with wrap_remote_errors("read", self._place):
            return await self._store.get(key, prototype, byte_range)


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
    if is_ours(data, path):
        return "store"
    if read_object(_creating(path)) is not None:
        return "unfinished"
    return "strange" if data is not None or has_objects(path) else "nothing"


def _creating(path: UPath) -> UPath:
    """The object that says: what is here is being made or replaced, and may be deleted."""
    return path.with_name(path.name + ".creating")
