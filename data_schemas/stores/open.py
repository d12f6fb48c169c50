"""The way into a store: the suffix of the path decides the format.

with open_store("sprites.zarr") as store:
    rows = store.read(["splats", "psnr"], [0, 5, 7])
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

from upath import UPath

from data_schemas.errors import JobError, StoreError
from data_schemas.files import remove_leftovers, wrap_os_errors
from data_schemas.headers import check_header, header_to_json, require_identity
from data_schemas.hub import absent_on_hub, find_store
from data_schemas.locations import HUB_SCHEME, Location, location, resolve_path
from data_schemas.records import StoreHeader
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.hdf5_store import Hdf5Store
from data_schemas.stores.locks import HeldLock, RemoteLock, WriterLock
from data_schemas.stores.zarr_documents import write_order
from data_schemas.stores.zarr_objects import replace_store, store_place
from data_schemas.stores.zarr_store import ZarrStore

__all__ = [
    "BACKENDS",
    "create_store",
    "open_store",
    "publish_store",
    "require_identity",
    "require_new",
    "require_outside_stores",
    "store_exists",
    "verify_checksums",
]

BACKENDS: dict[str, type[ZarrStore] | type[Hdf5Store]] = {
    ".zarr": ZarrStore,
    ".h5": Hdf5Store,
    ".hdf5": Hdf5Store,
}
"""Suffix of the path to the class that reads and writes it."""

Held = TypeVar("Held", bound=HeldLock | None)

PORTION_BYTES, PORTION_FILES = 64 * 2**20, 256
"""How much of a store is read before it is uploaded."""


def create_store(path: str | os.PathLike[str] | UPath, header: StoreHeader, *, overwrite: bool = False) -> SplatStore:
    """Makes an empty store and opens it for writing.

    Args:
        path: ends in ``.zarr``, ``.h5`` or ``.hdf5``; missing parent folders are made. A URL ends in ``.zarr``.
        header: what the numbers will mean.
        overwrite: replace a SplatSpace store that is there (never anything else).

    Returns:
        The store, open for writing and locked.

    Raises:
        StoreError: another suffix, something is there already, or the place cannot be written.
        StoreLockedError: another process writes there.
    """
    place = location(path)
    backend = _backend(place)
    check_header(header)
    header_to_json(header)
    if not isinstance(place, Path):
        return _create_remote(place, header, overwrite=overwrite)
    path = resolve_path(place)
    require_outside_stores(path.parent)
    with wrap_os_errors("create", path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _held(WriterLock(path)) as lock:
        if path.exists() or path.is_symlink():
            _require_free(path, ours=backend.is_ours(path), overwrite=overwrite)
        with wrap_os_errors("create", path):
            remove_leftovers(path)
            return backend.create(path, header, lock)


def open_store(path: str | os.PathLike[str] | UPath, mode: Literal["r", "a"] = "r", *, lock: bool = True) -> SplatStore:
    """Opens a store that exists.

    Args:
        path: ends in ``.zarr``, ``.h5`` or ``.hdf5``; or a URL that ends in ``.zarr`` (docs/scaling.md), or that of a
            repository ``hf://datasets/USER/NAME`` with one such store (docs/hub.md).
        mode: ``r`` to read, ``a`` to write too; ``a`` also finishes what a killed run left.
        lock: hold the exclusive writer lock (mode ``a``). ``False`` is for parallel shard writers of one zarr store:
            each writes blocks that no other writes, with ``write_block`` only, while the process that holds the lock
            or created the store appends rows and sets the header.

    Returns:
        The store.

    Raises:
        HubError: a URL of the hub that names no repository.
        StoreError: missing, damaged, newer than this program, not a SplatSpace store, or another mode or suffix.
        StoreLockedError: mode ``a`` while another process writes.
    """
    place = location(path)
    if not isinstance(place, Path):
        place = find_store(place)
    backend = _backend(place)
    if mode not in ("r", "a"):
        raise StoreError(
            f"Mode {mode!r}", allowed="'r' to read, 'a' to read and write", next_step="create_store makes a new store"
        )
    if not isinstance(place, Path):
        return _open_remote(place, writable=mode == "a", lock=lock)
    path = resolve_path(place)
    if not path.exists():
        raise _absent(path)
    if mode == "a" and not lock and backend is not ZarrStore:
        raise StoreError(
            f"{path}: an HDF5 store has one writer",
            allowed="lock=True, or a .zarr store",
            next_step="use a .zarr path for parallel writers",
        )
    with _held(WriterLock(path) if mode == "a" and lock else None) as held, wrap_os_errors("open", path):
        if held is not None:
            remove_leftovers(path)
        return backend(path, writable=mode == "a", lock=held)


def verify_checksums(store: SplatStore) -> list[int]:
    """Reads every stored byte and collects the rows whose checksums differ.

    Returns:
        Sorted row numbers, empty where the store is sound.
    """
    return store.verify_checksums()


def store_exists(path: str | os.PathLike[str] | UPath) -> bool:
    """Whether something stands where a store is to be: a store, or what must not be replaced by one.

    Raises:
        StoreError: a URL that cannot be reached.
    """
    place = location(path)
    if isinstance(place, Path):
        return resolve_path(place).exists()
    return store_place(place) in ("store", "strange")


def require_new(path: str | os.PathLike[str] | UPath) -> None:
    """Refuses a place where no new store can be made.

    Raises:
        StoreError: another suffix than those of stores, or something is there already.
    """
    place = location(path)
    _backend(place)
    if store_exists(place):
        raise StoreError(
            f"{place} exists already", allowed="a new path", next_step="choose another one, or delete what is there"
        )


def require_outside_stores(place: Location) -> None:
    """Refuses a place for results that is a store or lies inside of one: a store holds its own files and no others.

    Args:
        place: a file or a folder that is going to be written; of a URL nothing is asked.

    Raises:
        JobError: a store is there, or above it.
        StoreError: a link that leads back to itself.
    """
    if not isinstance(place, Path):
        return
    path = resolve_path(place)
    for part in (path, *path.parents):
        backend = BACKENDS.get(part.suffix.lower())
        if backend is not None and part.exists() and backend.is_ours(part):
            raise JobError(
                f"--out {place}, which is {'a store' if part == path else f'inside of the store {part.name}'}",
                allowed="a place that no store is in the way of",
                next_step=f"give --out {part.with_name(part.stem + '-out')}, for example",
            )


def publish_store(local: Path, path: UPath, *, overwrite: bool = False) -> None:
    """Copies a whole local zarr store to a URL; it appears there when everything else is there.

    Args:
        local: a store that nobody writes and that has no journal.
        path: ends in ``.zarr``.
        overwrite: replace a SplatSpace store that is there (never anything else).

    Raises:
        StoreError: something is there already, or the place cannot be written.
        StoreLockedError: another process writes there.
    """
    names = sorted((file.relative_to(local).as_posix() for file in local.rglob("*") if file.is_file()), key=write_order)
    lock = _take_place(path, overwrite=overwrite)
    try:
        replace_store(path, _portions(local, names))
    finally:
        lock.release()


def _portions(local: Path, names: list[str]) -> Iterator[dict[str, bytes]]:
    """The files of a store, some at once: what is in memory is bounded."""
    portion: dict[str, bytes] = {}
    for name in names:
        portion[name] = (local / name).read_bytes()
        if sum(map(len, portion.values())) >= PORTION_BYTES or len(portion) >= PORTION_FILES:
            yield portion
            portion = {}
    yield portion


@contextlib.contextmanager
def _held(lock: Held) -> Iterator[Held]:
    """A lock (or none) that is released where what it was taken for fails."""
    try:
        yield lock
    except BaseException:
        if lock is not None:
            lock.release()
        raise


def _create_remote(path: UPath, header: StoreHeader, *, overwrite: bool) -> SplatStore:
    with _held(_take_place(path, overwrite=overwrite)) as lock:
        return ZarrStore.create(path, header, lock)


def _take_place(path: UPath, *, overwrite: bool) -> RemoteLock:
    """The lock of a URL where a new store may be put."""
    with _held(RemoteLock(path)) as lock:
        found = store_place(path)
        if found in ("store", "strange"):
            _require_free(path, ours=found == "store", overwrite=overwrite)
        return lock


def _open_remote(path: UPath, *, writable: bool, lock: bool) -> SplatStore:
    if store_place(path) in ("nothing", "unfinished"):
        raise _absent(path)
    with _held(RemoteLock(path) if writable and lock else None) as held:
        return ZarrStore(path, writable=writable, lock=held)


def _absent(path: Location) -> StoreError:
    if not isinstance(path, Path) and path.protocol == HUB_SCHEME:
        return absent_on_hub(str(path))
    return StoreError(
        f"{path} does not exist",
        allowed="a store made by 'splatspace encode'",
        next_step="check the path, or encode it first",
    )


def _require_free(path: Location, *, ours: bool, overwrite: bool) -> None:
    """Refuses to replace what is not ours, and what is ours unless that was asked for."""
    if not ours:
        raise StoreError(
            f"{path} exists and is not a SplatSpace store",
            allowed="a new path",
            next_step="choose another path; what is there is never deleted",
        )
    if not overwrite:
        raise StoreError(
            f"{path} exists already",
            allowed="a new path, or overwrite=True",
            next_step="open it with open_store(path, 'a') to continue it",
        )


def _backend(path: Location) -> type[ZarrStore] | type[Hdf5Store]:
    try:
        backend = BACKENDS[path.suffix.lower()]
    except KeyError:
        raise StoreError(
            f"{path} has suffix {path.suffix!r}",
            allowed=", ".join(BACKENDS),
            next_step=f"call it {path.stem}.zarr or {path.stem}.h5",
        ) from None
    if not isinstance(path, Path) and backend is not ZarrStore:
        raise StoreError(
            f"{path}: an HDF5 file cannot be written piece by piece on an object store",
            allowed="a URL that ends in .zarr",
            next_step=f"call it {path.stem}.zarr; splatspace convert makes an HDF5 file of it",
        )
    return backend
