"""One process at a time in a folder of results: whoever comes second would overwrite what the first one writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from data_schemas.files import wrap_os_errors
from data_schemas.locations import resolve_path
from data_schemas.stores.locks import WriterLock


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, ``NAME.lock`` beside it as with stores; a killed process releases it.

    Where the work fails before anything is written, a folder that was made for it goes again, and the lock with it.

    Args:
        folder: that is written; it need not be there yet.

    Raises:
        StoreLockedError: another process writes it; the message names that process.
        StoreError: the place beside it cannot be written, or a link that leads back to itself.
    """
    place = resolve_path(folder)  # "." has no name to put a lock beside
    with wrap_os_errors("create", place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        there_before = place.exists()
    lock = WriterLock(place, next_step="wait for it to finish, or give another --out")
    try:
        yield
    except BaseException:
        if not there_before:
            # While it is held: whoever comes now is refused, and later ones make both again.
            with contextlib.suppress(OSError):  # a folder that is not empty stays, and its lock
                if place.exists():
                    place.rmdir()
                lock.path.unlink()
        raise
    finally:
        lock.release()
