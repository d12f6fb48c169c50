"""Who holds the writer lock of a store, for those who write on the holder's behalf."""

from __future__ import annotations

from pathlib import Path

from data_schemas.locations import Location
from data_schemas.remote_objects import read_object


def lock_holder(store: Location) -> str:
    """What the lock beside a store says of its holder; "" where it says nothing.

    A process that writes without the lock, for a run that holds it, compares this with what it was when the run
    began: once it differs, another run has taken over.
    """
    lock = store.with_name(store.name + ".lock")
    if not isinstance(lock, Path):
        return (read_object(lock) or b"").decode(errors="replace")
    try:
        return lock.read_text()
    except OSError:
        return ""
