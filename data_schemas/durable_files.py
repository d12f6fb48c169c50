"""Files that are whole or absent: atomic replacement, sealed JSON, and operating system errors in words."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_schemas.errors import StoreError
from data_schemas.locations import Location
from data_schemas.remote_objects import write_object

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_READ_ONLY = {errno.EROFS, errno.EACCES, errno.EPERM}

NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What ``flock`` answers on file systems without locks (NFS without its lock service, some FUSE mounts)."""

PARTIAL_SUFFIX = ".partial"
"""Ends the name of everything unfinished; it may be deleted when no writer is alive."""


def partial_name(path: Path) -> Path:
    """A fresh name beside ``path`` for a file or folder that is still being made."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:12]}{PARTIAL_SUFFIX}")


def remove_leftovers(path: Path) -> None:
    """Deletes what killed writers of ``path`` left unfinished beside it; for the holder of the writer lock."""
    for leftover in path.parent.iterdir():
        if leftover.name.startswith(f"{path.name}.") and leftover.name.endswith(PARTIAL_SUFFIX):
            if leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
            else:
                leftover.unlink(missing_ok=True)


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
    partial = partial_name(path)
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


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
def explained(action: str, path: Location) -> Iterator[None]:
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
