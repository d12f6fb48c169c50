"""A file for the HDF5 library that remembers a failed write instead of reporting it into the library.

The library cannot close a file whose last writes fail (it may end the process), so here a write after the first failure
is dropped, the caller asks for ``error`` and throws the file away.

Opening HDF5 files for reading without file locks, which some file systems do not have.

Nobody writes into a store's file, it is only ever replaced, so a lock would protect nothing. Files of other programs
are opened with the library's lock where there are locks: it tells that a program is writing them.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import h5py

from data_schemas.files import NO_LOCKS

_OPEN_OTHERWISE = "locking flag values don't match"


class CheckedFile(io.RawIOBase):
    """A new binary file whose write errors are kept in ``error``.

    Args:
        path: must not exist yet.

    Attributes:
        error: the first failed write, or None.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("x+b", buffering=0)
        self.error: OSError | None = None

    def readable(self) -> bool:
        """True."""
        return True

    def writable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads from the current place."""
        return self._file.readinto(buffer) or 0

    def write(self, data: Any) -> int:
        """Writes all of ``data``, or keeps the error and drops it."""
        view = memoryview(data).cast("B")
        if self.error is None:
            try:
                at = 0
                while at < len(view):
                    at += self._file.write(view[at:]) or 0
            except OSError as error:
                self.error = error
        return len(view)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves the current place."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The current place."""
        return self._file.tell()

    def truncate(self, size: int | None = None) -> int:
        """Sets the length, or keeps the error."""
        size = self._file.tell() if size is None else size
        if self.error is None:
            try:
                return self._file.truncate(size)
            except OSError as error:
                self.error = error
        return size

    def flush(self) -> None:
        """Nothing is buffered here."""

    def finish(self) -> None:
        """Makes the content survive a power cut.

        Raises:
            OSError: this or an earlier write failed; the file is worthless.
        """
        if self.error is not None:
            raise self.error
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()


def open_unlocked(path: str | os.PathLike[str]) -> h5py.File:
    """Opens a file for reading without a lock.

    Raises:
        OSError: not an HDF5 file, cut short, or not readable.
    """
    try:
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        if _OPEN_OTHERWISE not in str(error):
            raise
        # The library opens a file once in a process. Where this process has it open with a lock (xarray does so), that
        # opening is shared, and no further lock is taken.
        return h5py.File(path, "r")


def open_locked_if_possible(path: Path) -> h5py.File:
    """Opens a file for reading with the library's shared lock, or without where the file system has no locks.

    Raises:
        OSError: not an HDF5 file, cut short, not readable, or open for writing in another program.
    """
    try:
        return h5py.File(path, "r")
    except OSError as error:
        if error.errno not in NO_LOCKS and _OPEN_OTHERWISE not in str(error):
            raise
        return h5py.File(path, "r", locking=False)
