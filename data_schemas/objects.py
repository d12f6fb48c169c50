"""Whole objects of an object store: each is written at once or not at all, and errors say what to fix."""

from __future__ import annotations

import contextlib
import itertools
import logging
import mimetypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from fsspec import AbstractFileSystem
from upath import UPath

from data_schemas.errors import SplatSpaceError, StoreError
from data_schemas.locations import HUB_SCHEME, hide_secrets

logger = logging.getLogger("splatspace.store")

_CONTENT_TYPE_NAMES = {"s3": "ContentType", "s3a": "ContentType", "gs": "content_type", "gcs": "content_type"}
"""What the libraries call the type of an object."""


@contextlib.contextmanager
def wrap_remote_errors(action: str, place: UPath) -> Iterator[None]:
    """Turns whatever an object store's library raises into StoreError.

    Args:
        action: what was being done, as in "read".
        place: of the object or the store.

    Raises:
        StoreError: instead of any other error but those of this program.
    """
    try:
        yield
    except (SplatSpaceError, MemoryError):
        raise
    except Exception as error:
        # The libraries have no common class of errors; some are OSError, some are not.
        got = f"Could not {action} {place}: {type(error).__name__}: {hide_secrets(str(error))}".rstrip(": ")
        if isinstance(error, FileNotFoundError):
            raise StoreError(
                got, allowed="a bucket and an object that exist", next_step="check the URL and the endpoint"
            ) from error
        if isinstance(error, PermissionError) or "credential" in str(error).lower():
            raise StoreError(
                got,
                allowed="credentials with the right to read, and to write where that is asked",
                next_step="check the provider's environment variables or configuration files",
            ) from error
        if isinstance(error, NotImplementedError):
            raise StoreError(
                got, allowed="a store that can be written, such as s3:// or gs://", next_step="choose another place"
            ) from error
        raise StoreError(
            got, next_step="check the network and the endpoint, then run the same command again"
        ) from error


def read_objects(root: UPath, keys: Iterable[str]) -> dict[str, bytes]:
    """Reads several objects at once.

    Args:
        root: what the keys are below.
        keys: such as ``state/zarr.json``.

    Returns:
        Bytes by key; keys without an object are left out.
    """
    keys = list(keys)
    with wrap_remote_errors("read", root):
        answers = _system(root).cat_ranges([_path(root, key) for key in keys], None, None, on_error="return")
        found: dict[str, bytes] = {}
        for key, answer in zip(keys, answers, strict=True):
            if isinstance(answer, FileNotFoundError | IsADirectoryError | NotADirectoryError):
                continue
            if isinstance(answer, BaseException):
                raise answer
            found[key] = bytes(answer)
        return found


def write_objects(root: UPath, objects: Mapping[str, bytes], order: Callable[[str], tuple[int, str]]) -> None:
    """Replaces objects, those of one rank side by side, one rank after the other.

    Args:
        root: what the keys are below.
        objects: bytes by key.
        order: rank of a key, and its place within the rank.
    """
    _require_writable(root)
    system = _system(root)
    with wrap_remote_errors("write", root):
        for _, keys in itertools.groupby(sorted(objects, key=order), key=lambda key: order(key)[0]):
            system.pipe({_path(root, key): objects[key] for key in keys})


def read_object(place: UPath) -> bytes | None:
    """The bytes of one object, or None where there is none."""
    return read_objects(place, [""]).get("")


def write_object(place: UPath, data: bytes) -> None:
    """Replaces one object; a browser shows it as what its name ends in."""
    _require_writable(place)
    kind = mimetypes.guess_type(place.name)[0]
    named = _CONTENT_TYPE_NAMES.get(place.protocol)
    options: dict[str, Any] = {named: kind} if named and kind else {}
    with wrap_remote_errors("write", place):
        _system(place).pipe_file(place.path, data, **options)


def create_object(place: UPath, data: bytes) -> bool:
    """Writes an object unless there is one.

    Returns:
        Whether it was written. Exact where the store has conditional writes (S3, Google, memory); elsewhere two
        writers at the same instant may both be told so.
    """
    _require_writable(place)
    with wrap_remote_errors("write", place):
        try:
            _system(place).pipe_file(place.path, data, mode="create")
        except FileExistsError:
            return False
        except OSError as error:
            # Two conditional writes under way at once: S3 answers one of them so.
            if any(
                word in str(error) for word in ("PreconditionFailed", "ConditionalRequestConflict", "pre-condition")
            ):
                return False
            raise
    return True


def remove_objects(root: UPath, keys: Iterable[str]) -> None:
    """Deletes objects; those that are not there are left out."""
    _require_writable(root)
    system = _system(root)
    for batch in _batches([_path(root, key) for key in keys], 1000):
        with wrap_remote_errors("delete objects of", root):
            try:
                system.rm(batch)
            except FileNotFoundError:
                for path in batch:
                    with contextlib.suppress(FileNotFoundError):
                        system.rm_file(path)


def object_sizes(root: UPath) -> dict[str, int]:
    """Bytes of every object below ``root``, by key."""
    prefix = root.path.rstrip("/") + "/"
    with wrap_remote_errors("list", root):
        found: Any = _system(root).find(root.path, detail=True)
    sizes = {path.removeprefix(prefix): entry["size"] for path, entry in found.items() if path.startswith(prefix)}
    unknown = [key for key, size in sizes.items() if size is None]  # the list of a web server has names only
    return sizes | sizes_one_by_one(root, unknown)


def sizes_one_by_one(root: UPath, keys: Iterable[str]) -> dict[str, int]:
    """Bytes of objects whose keys are known, where the store cannot list them; absent ones are left out."""
    system = _system(root)
    found: dict[str, int] = {}
    with wrap_remote_errors("look at", root):
        for key in keys:
            with contextlib.suppress(FileNotFoundError):
                found[key] = int(system.info(_path(root, key))["size"] or 0)
    return found


def has_objects(root: UPath) -> bool:
    """Whether there is an object named ``root`` or any below it."""
    with wrap_remote_errors("look for", root):
        return bool(_system(root).exists(root.path))


def modification_time(place: UPath) -> datetime | None:
    """When an object was last written, by the clock of the store; None where the store does not say."""
    with wrap_remote_errors("look at", place):
        try:
            return _system(place).modified(place.path)
        except (NotImplementedError, IsADirectoryError):
            return None


def _require_writable(place: UPath) -> None:
    """Refuses the hub, where each file would be a commit of its own, and readers would see halves."""
    if place.protocol == HUB_SCHEME:
        raise StoreError(
            f"Could not write {place}: a repository of the hub takes whole commits, not files one by one",
            allowed="a place on this machine, or a store that can be written, such as s3:// or gs://",
            next_step="write it on this machine, then send it with splatspace push",
        )


def _system(place: UPath) -> AbstractFileSystem:
    with wrap_remote_errors("reach", place):
        return place.fs


def _path(root: UPath, key: str) -> str:
    return f"{root.path.rstrip('/')}/{key}" if key else root.path


def _batches(paths: list[str], size: int) -> Iterator[list[str]]:
    for first in range(0, len(paths), size):
        yield paths[first : first + size]
