"""A file for the HDF5 library that remembers a failed write instead of reporting it into the library.

The library cannot close a file whose last writes fail (it may end the process), so here a write after the first failure
is dropped, the caller asks for ``error`` and throws the file away.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any


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
