"""Who holds the writer lock of a store, for those who write on the holder's behalf."""

from __future__ import annotations

from pathlib import Path


def lock_holder(store: Path) -> str:
    """What the lock beside a store says of its holder; "" where it says nothing.

    A process that writes without the lock, for a run that holds it, compares this with what it was when the run
    began: once it differs, another run has taken over.
    """
    try:
        return store.with_name(store.name + ".lock").read_text()
    except OSError:
        return ""
