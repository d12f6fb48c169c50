"""One writer per store or folder: a file lock that a killed process releases by itself.

One writer per store on an object store: a lock object that is created once and renewed while its holder lives.

Object stores have no lock that ends with its process. So the object is written again every minute; one that was not
for a quarter of an hour, by the store's own clock, may be taken, and so may one whose process is known to be dead.
Before each change the holder looks whether the lock is still its own.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import socket
import threading
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from filelock import FileLock, Timeout
from upath import UPath

from data_schemas.errors import StoreError, StoreLockedError
from data_schemas.files import wrap_os_errors
from data_schemas.objects import create_object, modification_time, read_object, remove_objects, write_object

logger = logging.getLogger("splatspace.store")

LEASE_SECONDS = 15 * 60.0
"""A lock that was not renewed for so long may be taken."""

RENEWED_SECONDS = 60.0
"""How often a holder renews its lock."""

SETTLE_SECONDS = 2.0
"""How long one who took an abandoned lock waits for others who may have taken it at the same instant."""


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
        with wrap_os_errors("lock", store):
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
            StoreLockedError: the file was deleted, and perhaps made again.
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


class RemoteLock:
    """The exclusive right to write one store, held from creation to ``release``.

    The lock is the object ``NAME.lock`` beside the store.

    Args:
        store: URL of the store.

    Raises:
        StoreLockedError: another writer holds it; the message names process and host, and how to remove the lock.
        StoreError: the place cannot be written.
    """

    def __init__(self, store: UPath) -> None:
        self.path = store.with_name(store.name + ".lock")
        self._store = store
        self._token = uuid.uuid4().hex
        self._content = json.dumps(
            {
                "pid": os.getpid(),
                "host": socket.gethostname(),
                "since": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": _machine(),
                "started": _process_start(os.getpid()),
                "token": self._token,
            }
        ).encode()
        self._acquire()
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, name=f"lock of {store.name}", daemon=True)
        self._renewing.start()

    def require(self) -> None:
        """Makes sure that the lock is still held.

        Raises:
            StoreLockedError: another writer has taken it, or somebody has deleted it.
        """
        held = self._read()
        if held is None or held.get("token") != self._token:
            by = "deleted" if held is None else f"taken over by {_holder(held)}"
            raise StoreLockedError(
                f"The lock of {self._store} was {by} while it was being written",
                allowed="one writer at a time",
                next_step="let the other writer finish, then run the same command again",
            )

    def release(self) -> None:
        """Lets the next writer in. Safe to call twice."""
        if self._released.is_set():
            return
        self._released.set()
        self._renewing.join(timeout=RENEWED_SECONDS)
        try:
            held = self._read()
            if held is not None and held.get("token") == self._token:
                remove_objects(self.path, [""])
        except StoreError as error:
            logger.warning("the lock %s stays until its lease ends: %s", self.path, error)

    def _acquire(self) -> None:
        taken = False
        # Looked at first: some stores ignore the condition of a conditional write, and would replace a lock.
        while read_object(self.path) is not None or not create_object(self.path, self._content):
            if read_object(self.path) is None:
                continue  # release since
            held = self._read() or {}
            if held.get("token") == self._token:
                break  # written, but the answer was lost on its way and the library asked again
            if taken or not self._is_abandoned(held):
                raise StoreLockedError(
                    f"{self._store} is being written by {_holder(held)}",
                    allowed="one writer at a time",
                    next_step=f"wait for it to finish; if it is dead, its lock lapses {LEASE_SECONDS / 60:.0f} minutes "
                    f"after it died, or delete the object {self.path}",
                )
            logger.warning("%s: the lock of %s is abandoned and is taken", self._store.name, _holder(held))
            remove_objects(self.path, [""])
            taken = True
        if taken:
            time.sleep(SETTLE_SECONDS)
        self.require()

    def _is_abandoned(self, held: dict[str, Any]) -> bool:
        pid = held.get("pid")
        if isinstance(pid, int) and held.get("machine") and held.get("machine") == _machine():
            started = _process_start(pid)
            if started is None or started != held.get("started"):
                return True
        # Both times are the store's own: the clocks of the writers may say what they like.
        probe = self.path.with_name(f"{self.path.name}.{self._token}.probe")
        write_object(probe, b"")
        try:
            now, renewed = modification_time(probe), modification_time(self.path)
        except StoreError:
            return False  # release in this moment; the next try will tell
        finally:
            remove_objects(probe, [""])
        return now is not None and renewed is not None and (now - renewed).total_seconds() > LEASE_SECONDS

    def _renew(self) -> None:
        while not self._released.wait(RENEWED_SECONDS):
            try:
                held = self._read()
                if held is None or held.get("token") != self._token:
                    logger.warning("the lock %s is no longer ours", self.path)
                    return
                if not self._released.is_set():
                    write_object(self.path, self._content)
            except StoreError as error:
                logger.warning("the lock %s could not be renewed: %s", self.path, error)

    def _read(self) -> dict[str, Any] | None:
        """What the lock says; None where there is none or it is not readable."""
        data = read_object(self.path)
        with contextlib.suppress(ValueError):
            content = json.loads(data or b"")
            return content if isinstance(content, dict) else None
        return None


def _holder(held: dict[str, Any]) -> str:
    if "pid" not in held:
        return "another process"
    return f"process {held['pid']} on {held.get('host')} (since {held.get('since')})"


def _machine() -> str:
    """Names this boot of this machine (or container); "" where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
        processes = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    return hashlib.blake2b(f"{socket.gethostname()} {boot} {processes}".encode(), digest_size=8).hexdigest()


def _process_start(pid: int) -> int | None:
    """When a process of this machine began, in clock ticks since boot; None where there is no such process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
