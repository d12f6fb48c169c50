"""Writing HDF5 files on disks that may be full: the library itself cannot survive a failed write."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import h5py

from data_schemas.checked_file import CheckedFile


class NewHdf5File:
    """A new HDF5 file.

    Args:
        path: must not exist yet.

    Attributes:
        file: to write into, inside ``checked``.
    """

    def __init__(self, path: Path) -> None:
        self._target = CheckedFile(path)
        try:
            self.file = h5py.File(self._target, "w", libver=("earliest", "v110"))
        except BaseException:
            self._target.close()
            raise

    @contextlib.contextmanager
    def checked(self) -> Iterator[h5py.File]:
        """The file; on leaving, whatever went wrong with the disk is raised.

        Raises:
            OSError: a write failed.
        """
        try:
            yield self.file
        except Exception as error:
            # The library reports a failed write as it likes, often much later; the file knows the cause.
            if self._target.error is not None:
                raise self._target.error from error
            raise
        if self._target.error is not None:
            raise self._target.error

    def finish(self) -> None:
        """Completes the file.

        Raises:
            OSError: a write failed.
        """
        with self.checked() as file:
            file.close()
        self._target.finish()
        self._target.close()

    def abandon(self) -> None:
        """Closes the file as it is; safe to call after ``finish``."""
        with contextlib.suppress(Exception):
            self.file.close()
        self._target.close()
