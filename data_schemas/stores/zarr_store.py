"""A store as a zarr v3 group: one shard file per array and block, so that blocks are written in parallel."""

from __future__ import annotations

import logging
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from zarr.storage import LocalStore

from data_schemas.errors import StoreError
from data_schemas.files import partial_name, sync_folder
from data_schemas.headers import SCHEMA_NAME
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.stores.base import RowStore
from data_schemas.stores.contract import block_range
from data_schemas.stores.locks import WriterLock
from data_schemas.stores.redo_log import RedoLog
from data_schemas.stores.zarr_documents import (
    ALWAYS_WRITTEN,
    DOCUMENT,
    array_over,
    checked_documents,
    group_attributes,
    make_group,
    native,
    read_document,
    sealed,
    shard_path,
    write_order,
)

logger = logging.getLogger("splatspace.store")


class ZarrStore(RowStore):
    """One row per image in a zarr v3 group (docs/store-format.md)."""

    path: Path

    def __init__(self, path: Path, *, writable: bool, lock: WriterLock | None) -> None:
        """Opens a store; ``create_store`` and ``open_store`` are the way in.

        Raises:
            StoreError: damaged, newer, or not a SplatSpace store.
        """
        self._log = RedoLog(path, write_order)
        if lock is not None:
            finished = self._log.recover()
            if finished:
                logger.info("%s: finished %d changes of a stopped run", path.name, finished)
        # A valid change that is not in place yet wins over the files in the store, here as in every read.
        self._pending = self._log.ready()
        found = checked_documents(
            path,
            lambda name: self._document(path, name),
            lambda document: self._array_in(path, "parameter", document)[:],
        )
        self._store_id = found.store_id
        self._documents: dict[str, dict[str, Any]] = {"": found.group, **found.arrays}
        self._live = {name: self._array_in(path, name, document) for name, document in found.arrays.items()}
        super().__init__(path, found.header, found.rows, writable=writable, lock=lock)

    @classmethod
    def create(cls, path: Path, header: StoreHeader, lock: WriterLock) -> Self:
        """Makes an empty store at ``path``, replacing one that is there; it appears whole or not at all."""
        partial = partial_name(path)
        partial.mkdir()
        try:
            make_group(partial, header, uuid.uuid4().hex)
            log = RedoLog(path, write_order)
            if path.exists():
                # Finished, not forgotten: after a kill before the renaming the old store is still a whole one.
                log.recover()
                old = partial_name(path)
                os.rename(path, old)
                os.rename(partial, path)
                shutil.rmtree(old)
            else:
                log.clear()
                os.rename(partial, path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        sync_folder(path.parent)
        return cls(path, writable=True, lock=lock)

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Whether a SplatSpace store (of any version) is at ``path``."""
        try:
            return read_document(path / DOCUMENT).get("attributes", {}).get("schema") == SCHEMA_NAME
        except (StoreError, OSError):
            return False

    @property
    def nbytes_stored(self) -> dict[str, int]:
        """Bytes on disk by array (compressed, with checksums and metadata)."""
        return {
            name: sum(file.stat().st_size for file in (self.path / name).rglob("*") if file.is_file())
            for name in self.arrays
        }

    # Reading -----------------------------------------------------------------------------------------------------

    def _read_range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        size = self._header.block_rows
        self._pending = self._log.ready()
        # Blocks that a valid change still holds are read from there; everything between them in one piece.
        staged = [b for b in range(start // size, -(-stop // size)) if self._staged(name, b)] if self._pending else []
        if not staged:
            return self._read_live(name, start, stop)
        parts: list[NDArray[Any]] = []
        at = start
        for block in staged:
            low, high = max(start, block * size), min(stop, (block + 1) * size)
            if at < low:
                parts.append(self._read_live(name, at, low))
            parts.append(self._read_staged(name, block, low, high))
            at = high
        if at < stop:
            parts.append(self._read_live(name, at, stop))
        return np.concatenate(parts)

    def _read_live(self, name: str, start: int, stop: int) -> NDArray[Any]:
        self._require_shards(name, start, stop)
        return native(self._live[name][start:stop])

    def _read_staged(self, name: str, block: int, start: int, stop: int) -> NDArray[Any]:
        folder = self._staged(name, block)
        if folder is not None:
            values = native(self._array_in(folder, name, self._documents[name])[start:stop])
            if self._shard(folder, name, block).is_file():  # still there, so it was there while it was read
                return values
        return self._read_live(name, start, stop)

    def _require_shards(self, name: str, start: int, stop: int) -> None:
        """Finds shards that vanished: zarr would answer with fill values, which look like numbers."""
        size = self._header.block_rows
        for block in range(start // size, -(-stop // size)):
            shard = self._shard(self.path, name, block)
            try:
                stored = shard.stat().st_size
            except FileNotFoundError:
                stored = -1
            if stored > 0:
                continue
            span = block_range(block, size, self._rows)
            expected = stored == 0 or name in ALWAYS_WRITTEN
            if expected or (self._read_range("state", span.start, span.stop) != RowState.EMPTY).any():
                rows = [row for row in span if start <= row < stop]
                raise self._corrupt(name, rows, f"shard {shard.relative_to(self.path)} is missing or empty")

    def _staged(self, name: str, block: int) -> Path | None:
        for change in reversed(self._pending):
            if self._shard(change, name, block).is_file():
                return change
        return None

    def _shard(self, folder: Path, name: str, block: int) -> Path:
        return folder / shard_path(self._specs[name], block)

    def _document(self, path: Path, name: str) -> tuple[dict[str, Any], Path]:
        for change in reversed(self._pending):
            where = change / name / DOCUMENT
            if where.is_file():
                try:
                    return read_document(where), where
                except StoreError:
                    if where.is_file():
                        raise
                    break  # it has moved into the store since
        where = path / name / DOCUMENT
        return read_document(where), where

    @staticmethod
    def _array_in(folder: Path, name: str, document: dict[str, Any]) -> Any:
        return array_over(LocalStore(folder), name, document)

    # Writing -----------------------------------------------------------------------------------------------------

    def _write_block(self, block: int, rows: RowBlock) -> None:
        span = block_range(block, self._header.block_rows, self._rows)

        def fill(change: Path) -> None:
            for name in self._specs:
                array = self._array_in(change, name, self._documents[name])
                array[span.start : span.stop] = getattr(rows, name)

        self._change(fill)

    def _append(self, source_ids: list[str]) -> None:
        size, first = self._header.block_rows, self._rows
        total = first + len(source_ids)
        documents = {
            name: {**document, "shape": [total, *document["shape"][1:]]}
            for name, document in self._documents.items()
            if name
        }
        start = first // size * size
        kept = self.read(ALWAYS_WRITTEN, slice(start, first))
        names = np.array([*kept["source_id"], *source_ids], dtype=object)
        states = np.concatenate([kept["state"], np.zeros(len(source_ids), np.uint8)])

        def fill(change: Path) -> None:
            for name, document in documents.items():
                (change / name).mkdir()
                (change / name / DOCUMENT).write_bytes(sealed(document))
            for name, values in (("source_id", names), ("state", states)):
                array = self._array_in(change, name, documents[name])
                for block in range(start // size, -(-total // size)):
                    span = block_range(block, size, total)
                    array[span.start : span.stop] = values[span.start - start : span.stop - start]

        def accept() -> None:
            self._documents.update(documents)
            self._live = {name: self._array_in(self.path, name, documents[name]) for name in self._specs}
            self._rows = total

        self._change(fill, accept)

    def _set_header(self, header: StoreHeader) -> None:
        group = {**self._documents[""], "attributes": group_attributes(header, self._store_id)}
        self._change(lambda change: (change / DOCUMENT).write_bytes(sealed(group)))
        self._documents[""] = group

    def _change(self, fill: Callable[[Path], object], accept: Callable[[], None] | None = None) -> None:
        """Prepares files with ``fill``, makes them valid, and moves them in; nothing happens unless all succeeds."""
        self._require_same_store()
        if self._lock is not None:
            self._lock.require()
            for ready in self._log.ready():
                self._log.apply(ready)
        change = self._log.begin()
        try:
            fill(change)
            ready = self._log.seal(change)
        except BaseException:
            self._log.discard(change)
            raise
        if accept is not None:
            accept()
        try:
            self._log.apply(ready)
        except FileNotFoundError:
            self._require_same_store()
            raise

    def _require_same_store(self) -> None:
        """What a writer has must not enter a store that was made anew since, nor leave a wreck where one was deleted.

        A shard writer may outlive its run, and a lock does not keep anybody from deleting a folder.
        """
        if not (self.path / DOCUMENT).exists():
            raise StoreError(
                f"{self.path} was deleted while it was being written",
                allowed="a store that stays where it is until the run has ended",
                next_step="run the same command again: it makes the store anew",
            )
        group, _ = self._document(self.path, "")
        found = str(group.get("attributes", {}).get("store_id", ""))
        if found != self._store_id:
            raise StoreError(
                f"{self.path} was replaced while it was being written",
                allowed="the store that was opened",
                next_step="run the same command again",
            )

    def _commit(self) -> None:
        """Every change was made durable as it happened; those of killed shard writers are moved to where all look."""
        if self._lock is not None and (self.path / DOCUMENT).exists():
            self._lock.require()
            for ready in self._log.ready():
                self._log.apply(ready)

    def _close(self) -> None:
        self._live = {}
