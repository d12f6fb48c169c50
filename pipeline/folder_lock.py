"""One process at a time in a folder of results: whoever comes second would overwrite what the first one writes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_schemas.files import explained
from data_schemas.locations import resolved
from data_schemas.stores.locks import WriterLock


@contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, ``NAME.lock`` beside it as with stores; a killed process lets go of it.

    Args:
        folder: that is written; it need not be there yet.

    Raises:
        StoreLockedError: another process writes it; the message names that process.
        StoreError: the place beside it cannot be written, or a link that leads back to itself.
    """
    place = resolved(folder)  # "." has no name to put a lock beside
    with explained("create", place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
    lock = WriterLock(place, next_step="wait for it to finish, or give another --out")
    try:
        yield
    finally:
        lock.release()
