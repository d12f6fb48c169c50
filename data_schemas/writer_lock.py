"""One writer per store or folder: a file lock that a killed process lets go of by itself."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from data_schemas.durable_files import explained
from data_schemas.errors import StoreLockedError


class HeldLock(Protocol):
    """The exclusive right to write one store."""

    def require(self) -> None:
        """Makes sure that it is still held.

        Raises:
            StoreLockedError: it is not.
        """
        ...

    def release(self) -> None:
        """Lets the next writer in. Safe to call twice."""
        ...


class WriterLock:
    """The exclusive right to write one store, held from creation to ``release``.

    The lock is ``NAME.lock`` beside the store (the file stays; only the lock on it matters).

    Args:
        store: path of the store, or of a folder that one process fills at a time.
        next_step: what somebody can do who finds it held.

    Raises:
        StoreLockedError: another writer holds it; the message names process and host.
        StoreError: the folder cannot be written.
    """

    def __init__(self, store: Path, *, next_step: str = "wait for it to finish, or open the store for reading") -> None:
        self.path = store.with_name(store.name + ".lock")
        self._lock = FileLock(self.path, timeout=0, thread_local=False)
        with explained("lock", store):
            try:
                self._lock.acquire()
            except Timeout as error:
                raise StoreLockedError(
                    f"{store} is being written by {self._holder()}",
                    allowed="one writer at a time",
                    next_step=next_step,
                ) from error
        # Who holds it is a courtesy to the next one; on systems with mandatory locks it cannot be written.
        with contextlib.suppress(OSError):
            now = datetime.now(UTC).isoformat(timespec="seconds")
            self.path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now}))
        self._identity = self._identity_now()

    def require(self) -> None:
        """Makes sure that the locked file is still the one beside the store.

        Whoever deletes it (with the folder of the store, say) lets another writer in, and this one must not write on.

        Raises:
            StoreLockedError: the file was deleted, and perhaps made anew.
        """
        if self._identity_now() != self._identity:
            raise StoreLockedError(
                f"{self.path} was deleted while the store was being written",
                allowed="one writer at a time, so a lock that stays where it is",
                next_step="run the same command again: what is done is kept",
            )

    def release(self) -> None:
        """Lets the next writer in. Safe to call twice."""
        self._lock.release()

    def _identity_now(self) -> tuple[int, int] | None:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return None
        return status.st_dev, status.st_ino

    def _holder(self) -> str:
        try:
            holder = json.loads(self.path.read_text())
            return f"process {int(holder['pid'])} on {holder['host']} (since {holder['since']})"
        except (OSError, ValueError, KeyError, TypeError):
            return "another process"
