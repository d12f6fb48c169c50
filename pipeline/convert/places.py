"""Where a conversion reads and writes: which layouts the places hold, and a destination that is whole or absent."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from upath import UPath

from data_schemas.errors import JobError, StoreError
from data_schemas.files import make_unfinished_folder, remove_abandoned, sync_folder
from data_schemas.locations import Location, location, resolve_path
from data_schemas.published_layouts import LAYOUT_NAMES, detect_layout
from data_schemas.published_layouts.detect import HDF5, TORCH_FOLDER, ZARR, describe_layouts
from data_schemas.stores.locks import WriterLock
from data_schemas.stores.open import BACKENDS, publish_store, require_outside_stores, store_exists

SUFFIXES = {ZARR: (".zarr",), TORCH_FOLDER: ("",)}
"""Suffixes of a destination; every other layout is an HDF5 file."""

_HDF5_SUFFIXES = tuple(suffix for suffix in BACKENDS if suffix != ".zarr")


def expand_place(place: str | os.PathLike[str] | UPath) -> Location:
    """A place as the user named it, with ``~`` resolved.

    Raises:
        StoreError: a link that leads back to itself, or an unknown home.
    """
    found = location(place)
    if not isinstance(found, Path):
        return found
    resolve_path(found)
    return found.expanduser()


def layout_of_source(src: Location, name: str | None) -> str:
    """The layout of what is converted.

    Args:
        src: where it is.
        name: what the user says it is; None: by content.

    Raises:
        StoreError: an unknown layout, nothing there, or a URL of something else than a store.
    """
    if isinstance(src, Path):
        return _check_layout(name) or detect_layout(src)
    if (_check_layout(name) or ZARR) != ZARR or src.suffix.lower() != ".zarr":
        raise StoreError(f"{src} is read from object storage", allowed="the URL of a .zarr store, or a local path")
    return ZARR


def layout_of_target(dst: Location, name: str | None) -> str:
    """The layout that is made.

    Args:
        dst: where.
        name: what the user asks for; None: by the suffix of ``dst``.

    Raises:
        StoreError: an unknown layout, or a suffix that does not go with it.
    """
    if not isinstance(dst, Path) and (name or ZARR) == ZARR and dst.suffix.lower() != ".zarr":
        raise StoreError(f"{dst} is written to object storage", allowed="a URL that ends in .zarr, or a local path")
    suffix = dst.suffix.lower()
    if _check_layout(name) is None:
        by_suffix = {"": TORCH_FOLDER, ".zarr": ZARR, **dict.fromkeys(_HDF5_SUFFIXES, HDF5)}
        if suffix not in by_suffix:
            raise StoreError(
                f"{dst} has suffix {suffix!r}, which names no layout",
                allowed=describe_layouts(),
                next_step="end it in .zarr or .h5, or say which layout with --to",
            )
        return by_suffix[suffix]
    assert name is not None
    allowed = SUFFIXES.get(name, _HDF5_SUFFIXES)
    if suffix not in allowed:
        endings = " or ".join(one or "no suffix" for one in allowed)
        raise StoreError(f"{dst} has suffix {suffix!r}, but layout {name} has {endings}", allowed=endings)
    return name


def check_places(src: Location, dst: Location, overwrite: bool) -> None:
    """Refuses a destination that must not be written.

    Raises:
        JobError: it lies inside the source, or the source inside it.
        StoreError: something is there that may not be replaced.
    """
    if not isinstance(dst, Path):
        if str(src) == str(dst):
            raise JobError(f"{dst} is source and destination", next_step="choose another destination")
        if not overwrite and store_exists(dst):
            raise StoreError(
                f"{dst} exists already", allowed="a new URL", next_step="choose another one or --overwrite"
            )
        return
    if isinstance(src, Path):
        _require_apart(src, dst)
    require_outside_stores(dst.parent)
    if not (dst.exists() or dst.is_symlink()):
        return
    if not overwrite:
        raise StoreError(f"{dst} exists already", allowed="a new path", next_step="choose another one or --overwrite")
    if dst.is_symlink():
        raise StoreError(f"{dst} is a link", allowed="a new path", next_step="give the path that it points to")
    if dst.is_dir() and next(dst.iterdir(), None) is None:
        return
    try:
        detect_layout(dst)
    except StoreError as error:
        raise StoreError(
            f"{dst} is neither a store nor a published layout, so it is not overwritten",
            next_step="choose another path",
        ) from error


def _require_apart(src: Path, dst: Path) -> None:
    source, target = resolve_path(src), resolve_path(dst)
    if source == target or target in source.parents or source in target.parents:
        raise JobError(f"{dst} and {src} lie inside each other", next_step="choose another destination")


@contextlib.contextmanager
def whole_or_absent(dst: Location, *, lock: bool, overwrite: bool = False) -> Iterator[Path]:
    """A path to write to; it becomes ``dst`` when the block ends well and vanishes when it does not.

    Args:
        dst: the destination. For a URL the path is in a temporary folder of this machine.
        lock: hold the writer lock of ``dst``.
        overwrite: replace a store at a URL; what is at a path was looked at before.
    """
    if not isinstance(dst, Path):
        with tempfile.TemporaryDirectory(prefix="splatspace-") as scratch:
            yield Path(scratch, dst.name)
            publish_store(Path(scratch, dst.name), dst, overwrite=overwrite)
        return
    dst.parent.mkdir(parents=True, exist_ok=True)
    # What is replaced may be a store that another process writes.
    lock = lock or (dst.exists() and dst.suffix.lower() in BACKENDS)
    held = WriterLock(resolve_path(dst)) if lock else None
    try:
        remove_abandoned(dst)
        with make_unfinished_folder(dst) as folder:
            partial = folder / dst.name
            yield partial
            # A journal of a store that stood here must not be replayed into the new one.
            shutil.rmtree(dst.with_name(dst.name + ".journal"), ignore_errors=True)
            if dst.exists():
                os.replace(dst, folder / ("replaced-" + dst.name))
            os.replace(partial, dst)
            sync_folder(dst.parent)
    finally:
        if held is not None:
            held.release()


def _check_layout(name: str | None) -> str | None:
    if name is not None and name not in LAYOUT_NAMES:
        raise StoreError(f"Unknown layout {name!r}", allowed=describe_layouts())
    return name
