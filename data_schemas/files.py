"""Files that are whole or absent: atomic replacement, sealed JSON, and operating system errors in words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from data_schemas.errors import StoreError
from data_schemas.locations import Location
from data_schemas.objects import write_object

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What ``flock`` answers on file systems without locks (NFS without its lock service, some FUSE mounts)."""

PARTIAL_SUFFIX = ".partial"
"""Ends the name of everything unfinished; it may be deleted when no writer is alive."""

_RANDOM_DIGITS = 12
_REMOVALS, _SECONDS_BETWEEN_REMOVALS = 20, 0.05

CACHE_VARIABLE = "SPLATSPACE_CACHE"


def partial_name(path: Path) -> Path:
    """A fresh name beside ``path`` for a file or folder that is still being made."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:_RANDOM_DIGITS]}{PARTIAL_SUFFIX}")


def remove_leftovers(path: Path) -> None:
    """Deletes what killed writers of ``path`` left unfinished beside it; for the holder of the writer lock."""
    for leftover in path.parent.iterdir():
        if leftover.name.startswith(f"{path.name}.") and leftover.name.endswith(PARTIAL_SUFFIX):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


@contextlib.contextmanager
def make_unfinished_folder(path: Path) -> Iterator[Path]:
    """A new folder beside ``path`` for something in the making; what is still in it when the block ends is deleted.

    Rename it, or what is in it, to ``path`` when it is whole. While the process lives no other takes it for a leftover.

    Args:
        path: what is made; its folder exists.

    Raises:
        OSError: the folder cannot be made.
    """
    folder = partial_name(path)
    folder.mkdir()
    held = _claim(folder)
    try:
        yield folder
    finally:
        remove_whole(folder)
        if held is not None:
            os.close(held)


def remove_whole(folder: Path) -> None:
    """Deletes a folder with all that is in it, also what a thread of an interrupted command still writes there."""
    for _ in range(_REMOVALS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(_SECONDS_BETWEEN_REMOVALS)


def remove_abandoned(path: Path) -> None:
    """Deletes what killed processes left unfinished beside ``path``; what a living one makes is left alone.

    For places that no writer lock guards, where :func:`remove_leftovers` would be too bold.
    """
    named = re.compile(rf"{re.escape(path.name)}\.[0-9a-f]{{{_RANDOM_DIGITS}}}{re.escape(PARTIAL_SUFFIX)}")
    with contextlib.suppress(OSError):
        for leftover in path.parent.iterdir():
            held = _claim(leftover) if named.fullmatch(leftover.name) else None
            if held is None:
                continue
            try:
                if leftover.is_dir():
                    shutil.rmtree(leftover, ignore_errors=True)
                else:
                    leftover.unlink(missing_ok=True)
            finally:
                os.close(held)


def _claim(partial: Path) -> int | None:
    """A descriptor that locks a file or folder until it is closed, or its process dies; None where another holds it.

    Also None where the system has no such locks: then nothing is ever taken for abandoned.
    """
    if fcntl is None:
        return None
    descriptor = None
    try:
        descriptor = os.open(partial, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        if descriptor is not None:
            os.close(descriptor)
        return None
    return descriptor


def cache_folder() -> Path:
    """Where downloads, compiled code and learned features are kept: ``$SPLATSPACE_CACHE``, else the user's cache."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else user_cache_path("splatspace")


def write_file(path: Location, data: bytes) -> None:
    """Replaces a file: after a kill or a power cut it is the old one or the new one.

    Args:
        path: the file; its folder exists. Or the URL of an object.
        data: the whole content.

    Raises:
        OSError: nothing was changed.
        StoreError: the same, of an object.
    """
    if not isinstance(path, Path):
        write_object(path, data)
        return
    partial, held = partial_name(path), None
    try:
        with partial.open("wb") as file:
            held = _claim(partial)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    finally:
        if held is not None:
            os.close(held)
    sync_folder(path.parent)


def save_file(path: Path, data: bytes) -> None:
    """Writes a file where somebody asked for one: missing folders are made, what killed writers left is removed.

    Raises:
        StoreError: the place cannot be written.
    """
    with wrap_os_errors("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        write_file(path, data)


def sync_file(path: Path) -> None:
    """Makes a file's content survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Makes the names in a folder survive a power cut (where the system can; Windows cannot open folders)."""
    if os.name == "nt":
        return
    sync_file(path)


@contextlib.contextmanager
def wrap_os_errors(action: str, path: Location) -> Iterator[None]:
    """Turns operating system errors into StoreError with the cause and the remedy.

    Args:
        action: what was being done, as in "write rows 0 to 63 of".
        path: the store.

    Raises:
        StoreError: instead of any OSError.
    """
    try:
        yield
    except OSError as error:
        got = f"Could not {action} {path}: {error.strerror or error}"
        if error.errno in _FULL:
            raise StoreError(
                f"{got}; what was there before is still there",
                allowed="free space on that disk",
                next_step="free some space and run the same command again",
            ) from error
        if error.errno == errno.ENOLCK or (action == "lock" and error.errno in NO_LOCKS):
            raise StoreError(
                f"{got}; that file system has no file locks, which a writer needs",
                allowed="a folder on a disk with file locks (reading needs none)",
                next_step="write the store on a local disk and copy it there when it is finished, or mount the place "
                "with locks (NFS: its lock service, or the mount option local_lock=flock)",
            ) from error
        if error.errno in _READ_ONLY:
            raise StoreError(
                f"{got}; the place is read-only",
                allowed="a folder that you may write",
                next_step="choose another path or change its permissions",
            ) from error
        raise StoreError(got, next_step="check the path and the disk") from error


def checksum(content: Any) -> str:
    """BLAKE2b-128 of the canonical JSON (sorted keys, no spaces, UTF-8) of ``content``."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return "blake2b:" + hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def seal(content: dict[str, Any]) -> bytes:
    """JSON that carries its own checksum."""
    return json.dumps({"checksum": checksum(content), "content": content}, ensure_ascii=False).encode("utf-8")


def unseal(data: bytes, path: Path) -> dict[str, Any]:
    """The content of sealed JSON.

    Raises:
        StoreError: not JSON, or the checksum differs.
    """
    try:
        document = json.loads(data)
        content = document["content"]
        intact = document["checksum"] == checksum(content) and isinstance(content, dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreError(
            f"{path} is not readable: {error}", next_step=f"delete {path.name}; what it held is made again"
        ) from error
    if not intact:
        raise StoreError(f"{path}: its checksum differs", next_step=f"delete {path.name}; what it held is made again")
    return content
