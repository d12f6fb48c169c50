"""Several files replaced as one: prepared in a folder beside the store, made valid by one rename, then moved in."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_schemas.files import PARTIAL_SUFFIX, sync_file, sync_folder

_READY_SUFFIX = ".ready"


class RedoLog:
    """Changes to a folder that happen wholly or not at all.

    A change is a folder ``NAME.journal/TIME-TOKEN.partial`` that mirrors the paths of the files to be replaced. It
    takes effect when it is renamed to ``.ready``; from then on it wins over the files in the store, until each of its
    files has been moved into the store. After a kill the next writer deletes what is partial and finishes what is
    ready.

    Args:
        root: the folder of the store.
        order: sort key of a relative path (posix): the files that make others visible come last.
    """

    def __init__(self, root: Path, order: Callable[[str], Any]) -> None:
        self.root = root
        self.folder = root.with_name(root.name + ".journal")
        self._order = order

    def begin(self) -> Path:
        """A new, empty folder for one change; it sorts after every change that is there, whatever the clock says."""
        stamp = max([time.time_ns(), *(_stamp(name) + 1 for name in self._names())])
        change = self.folder / f"{stamp:020d}-{uuid.uuid4().hex[:12]}{PARTIAL_SUFFIX}"
        change.mkdir(parents=True)
        return change

    def discard(self, change: Path) -> None:
        """Forgets a change that did not take effect."""
        shutil.rmtree(change, ignore_errors=True)
        self._remove_if_empty()

    def seal(self, change: Path) -> Path:
        """Makes a change valid: after this returns it survives a kill and a power cut."""
        for folder, _, files in os.walk(change, topdown=False):
            for name in files:
                sync_file(Path(folder, name))
            sync_folder(Path(folder))
        ready = change.with_suffix(_READY_SUFFIX)
        os.rename(change, ready)
        sync_folder(self.folder)
        sync_folder(self.folder.parent)
        return ready

    def apply(self, ready: Path) -> None:
        """Moves the files of a valid change into the store. Repeating it after a kill finishes it.

        Two processes may apply one change at once: a worker that outlived its run, and the next run, which finishes
        what it finds. What the other has moved is where it belongs.

        Raises:
            FileNotFoundError: somebody has deleted the store.
        """
        moves = sorted(
            (path.relative_to(ready).as_posix() for path in ready.rglob("*") if path.is_file()), key=self._order
        )
        touched: set[Path] = set()
        for relative in moves:
            target = self.root / relative
            self._make_folder(target.parent)
            with contextlib.suppress(FileNotFoundError):
                os.replace(ready / relative, target)
            folder = target.parent
            while folder not in touched and folder != self.root.parent:
                touched.add(folder)
                folder = folder.parent
        for folder in touched:
            sync_folder(folder)
        shutil.rmtree(ready, ignore_errors=True)
        self._remove_if_empty()

    def ready(self) -> list[Path]:
        """Valid changes that are not wholly in the store yet, oldest first."""
        return [self.folder / name for name in sorted(self._names()) if name.endswith(_READY_SUFFIX)]

    def recover(self) -> int:
        """Finishes what is valid and deletes the rest; for the holder of the writer lock.

        Returns:
            How many changes were finished.
        """
        pending = self.ready()
        for change in pending:
            self.apply(change)
        if self.folder.is_dir():
            for leftover in self.folder.glob(f"*{PARTIAL_SUFFIX}"):
                shutil.rmtree(leftover, ignore_errors=True)
        self._remove_if_empty()
        return len(pending)

    def clear(self) -> None:
        """Forgets everything, valid or not (the store that it belonged to is gone)."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _make_folder(self, folder: Path) -> None:
        """Makes a folder inside the store, never the store itself: that would be a wreck in place of a deleted one."""
        if folder == self.root:
            folder.stat()
            return
        try:
            folder.mkdir(exist_ok=True)
        except FileNotFoundError:
            self._make_folder(folder.parent)
            folder.mkdir(exist_ok=True)

    def _names(self) -> list[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return []

    def _remove_if_empty(self) -> None:
        try:
            self.folder.rmdir()
        except OSError:  # not there, or another writer has a change in it: both are fine
            return


def _stamp(name: str) -> int:
    digits = name.partition("-")[0]
    return int(digits) if digits.isdecimal() else 0
