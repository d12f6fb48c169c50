"""Opening HDF5 files for reading without file locks, which some file systems do not have.

Nobody writes into a store's file, it is only ever replaced, so a lock would protect nothing. Files of other programs
are opened with the library's lock where there are locks: it tells that a program is writing them.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py

from data_schemas.durable_files import NO_LOCKS

_OPEN_OTHERWISE = "locking flag values don't match"


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
