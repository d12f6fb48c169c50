"""The files of a zarr store in a folder: several are replaced as one, by way of a redo log beside it."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from zarr.abc.store import Store
from zarr.storage import LocalStore

from data_schemas.files import partial_name, sync_folder
from data_schemas.stores.redo_log import RedoLog
from data_schemas.stores.zarr_documents import DOCUMENT, write_order

logger = logging.getLogger("splatspace.store")


class ZarrFolder:
    """The place of a local store (see ``ZarrPlace``): a valid change that is not moved in yet hides what it replaces.

    Args:
        path: of the store.
    """

    replaces_as_one = True

    def __init__(self, path: Path) -> None:
        self._path = path
        self._log = RedoLog(path, write_order)
        self._store = LocalStore(path, read_only=True)

    def create(self, files: Mapping[str, bytes]) -> None:
        """Writes the store beside its place and renames it."""
        partial = partial_name(self._path)
        partial.mkdir()
        try:
            _write_files(partial, files)
            if self._path.exists():
                # Finished, not forgotten: after a kill before the renaming the old store is still a whole one.
                self._log.recover()
                old = partial_name(self._path)
                os.rename(self._path, old)
                os.rename(partial, self._path)
                shutil.rmtree(old)
            else:
                self._log.clear()
                os.rename(partial, self._path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(self._path.parent)

    def recover(self) -> None:
        """Finishes the valid changes of a killed writer and deletes the others."""
        finished = self._log.recover()
        if finished:
            logger.info("%s: finished %d changes of a stopped run", self._path.name, finished)

    def read(self, names: Iterable[str]) -> dict[str, bytes]:
        """Whole files, the newest of each."""
        folders = [*reversed(self._log.ready()), self._path]
        found: dict[str, bytes] = {}
        for name in names:
            for folder in folders:
                # What is moved into the store meanwhile is found there: the store comes last.
                with contextlib.suppress(FileNotFoundError):
                    found[name] = (folder / name).read_bytes()
                    break
        return found

    def layers(self) -> Sequence[Store]:
        """The changes, newest first, and the store."""
        return [*(LocalStore(change, read_only=True) for change in reversed(self._log.ready())), self._store]

    def read_group(self) -> bytes | None:
        """The group's ``zarr.json`` in the store itself."""
        try:
            return (self._path / DOCUMENT).read_bytes()
        except FileNotFoundError:
            return None

    def replace(self, files: Mapping[str, bytes], accept: Callable[[], object]) -> None:
        """Writes a change, makes it valid, and moves it in; nothing happens unless it becomes valid.

        Raises:
            FileNotFoundError: somebody has deleted the store.
        """
        change = self._log.begin()
        try:
            _write_files(change, files)
            ready = self._log.seal(change)
        except BaseException:
            self._log.discard(change)
            raise
        accept()
        self._log.apply(ready)

    def is_behind(self) -> bool:
        """Whether a valid change is not in the store yet."""
        return bool(self._log.ready()) and (self._path / DOCUMENT).exists()

    def catch_up(self) -> None:
        """Moves what killed shard writers have left into the store."""
        for ready in self._log.ready():
            self._log.apply(ready)

    def sizes(self, names: Sequence[str]) -> dict[str, int]:
        """Bytes of the files in the store itself."""
        found: dict[str, int] = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found[name] = (self._path / name).stat().st_size
        return found


def _write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
