"""A store as an HDF5 file: one writer, and a file that is only ever replaced whole."""

from __future__ import annotations

import contextlib
import logging
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.files import partial_name, sync_folder, write_file
from data_schemas.headers import SCHEMA_NAME, header_from_json, header_to_json
from data_schemas.records import RowBlock, StoreHeader
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.hdf5_file import CheckedFile, open_unlocked
from data_schemas.stores.hdf5_journal import Hdf5Journal
from data_schemas.stores.hdf5_layout import (
    FORMAT,
    create_store_file,
    decode_text,
    encode_text,
    read_header,
    require_arrays,
    require_dimensions,
    store_id_of,
    text_width,
)
from data_schemas.stores.locks import WriterLock
from data_schemas.stores.selection import block_range, blocks

logger = logging.getLogger("splatspace.store")


class Hdf5Store(SplatStore):
    """One row per image in an HDF5 file with a journal folder beside it (docs/store-format.md)."""

    path: Path

    def __init__(self, path: Path, *, writable: bool, lock: WriterLock | None) -> None:
        """Opens a store; ``create_store`` and ``open_store`` are the way in.

        Raises:
            StoreError: damaged, newer, or not a SplatSpace store.
        """
        self._journal = Hdf5Journal(path)
        self._load(path)
        super().__init__(path, self._loaded_header, self._loaded_rows, writable=writable, lock=lock)
        if not writable:
            return
        if self._journal.is_empty():
            self._journal.clear()
            return
        logger.info("%s: merging what a stopped run left in %s", path.name, self._journal.folder.name)
        try:
            self._commit()
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def create(cls, path: Path, header: StoreHeader, lock: WriterLock) -> Self:
        """Makes an empty store at ``path``, replacing one that is there; it appears whole or not at all."""
        with h5py.File("store", "w", driver="core", backing_store=False, libver=FORMAT) as file:
            create_store_file(file, header, uuid.uuid4().hex, 0, {})
            file.flush()
            image = file.id.get_file_image()
        Hdf5Journal(path).clear()
        write_file(path, image)
        return cls(path, writable=True, lock=lock)

    @classmethod
    def is_ours(cls, path: Path) -> bool:
        """Whether a SplatSpace store (of any version) is at ``path``."""
        try:
            with open_unlocked(path) as file:
                schema = file.attrs.get("schema")
                return schema is not None and schema in (SCHEMA_NAME, SCHEMA_NAME.encode())
        except (OSError, RuntimeError, ValueError):
            return False

    @property
    def nbytes_stored(self) -> dict[str, int]:
        """Bytes on disk by array (compressed, with checksums), the journal included."""
        total = {name: int(self._arrays[name].id.get_storage_size()) for name in self.arrays}
        for block in self._blocks:
            with self._opened(block) as file:
                for name in self.arrays:
                    total[name] += int(file[name].id.get_storage_size())
        return total

    # Opening -----------------------------------------------------------------------------------------------------

    def _load(self, path: Path) -> None:
        # The journal is listed before the file is opened: were it the other way round, a merge in between would hide
        # finished rows. This way a merge makes a listed file vanish, which reading notices (see _read_range).
        self._blocks = self._journal.blocks()
        try:
            self._file = open_unlocked(path)
        except OSError as error:
            if error.errno is not None:
                raise
            raise StoreError(
                f"{path} is not an HDF5 file, or is cut short or damaged ({error})",
                next_step="restore the store from a copy",
            ) from error
        try:
            with _damage_explained(path):
                header = read_header(self._file, path)
                self._arrays = require_arrays(self._file, header, path)
                require_dimensions(self._file, header, path)
                self._store_id = store_id_of(self._file)
            self._base_rows = int(self._arrays["state"].shape[0])
            changed = self._journal.read_json("header.json", self._store_id)
            appended = self._journal.read_json("appended.json", self._store_id)
            self._first_appended = self._base_rows if appended is None else int(appended["first"])
            self._appended: list[str] = [] if appended is None else list(appended["source_id"])
            self._loaded_header = header if changed is None else header_from_json(changed["header"], path)
            self._loaded_rows = max(self._base_rows, self._first_appended + len(self._appended))
        except BaseException:
            self._file.close()
            raise

    def _reload(self) -> None:
        self._file.close()
        self._load(self.path)
        self._header = self._loaded_header

    # Reading -----------------------------------------------------------------------------------------------------

    def _read_range(self, name: str, start: int, stop: int) -> NDArray[Any]:
        try:
            return self._read_overlaid(name, start, stop)
        except FileNotFoundError:
            # A writer has merged its journal since this store was opened; the new file holds everything.
            self._reload()
            return self._read_overlaid(name, start, stop)

    def _read_overlaid(self, name: str, start: int, stop: int) -> NDArray[Any]:
        spec, size = self._specs[name], self._header.block_rows
        out = np.full((stop - start, *spec.tail), spec.fill, dtype=object if spec.is_text else spec.dtype)
        if name == "source_id":
            first = max(start, self._base_rows, self._first_appended)
            names = self._appended[first - self._first_appended : max(0, stop - self._first_appended)]
            out[first - start : first - start + len(names)] = names
        journalled = [b for b in range(start // size, -(-stop // size)) if b in self._blocks]
        at = start
        for block in [*journalled, None]:
            low = stop if block is None else max(start, block * size)
            high = min(low, self._base_rows)
            if at < high:
                out[at - start : high - start] = _rows_of(self._arrays[name], at, high)
            if block is None:
                break
            with self._opened(block) as file:
                array = file[name]
                end = min(stop, block * size + array.shape[0])
                if low < end:
                    out[low - start : end - start] = _rows_of(array, low - block * size, end - block * size)
            at = min(stop, (block + 1) * size)
        return out

    @contextlib.contextmanager
    def _opened(self, block: int) -> Iterator[Any]:
        file = self._journal.open_block(self._blocks[block], block, self._store_id)
        try:
            yield file
        finally:
            file.close()

    # Writing -----------------------------------------------------------------------------------------------------

    def _write_block(self, block: int, rows: RowBlock) -> None:
        self._require_lock()
        self._blocks[block] = self._journal.write_block(block, rows, self._header, self._store_id)

    def _append(self, source_ids: list[str]) -> None:
        self._require_lock()
        everything = [*self._appended, *source_ids]
        self._journal.write_json(
            "appended.json", {"store_id": self._store_id, "first": self._first_appended, "source_id": everything}
        )
        self._appended = everything
        self._rows += len(source_ids)

    def _set_header(self, header: StoreHeader) -> None:
        self._require_lock()
        self._journal.write_json("header.json", {"store_id": self._store_id, "header": header_to_json(header)})

    def _commit(self) -> None:
        if self._journal.is_empty():
            return
        self._require_lock()
        partial = partial_name(self.path)
        try:
            target = CheckedFile(partial)
            try:
                with h5py.File(target, "w", libver=FORMAT) as merged:
                    self._merge(merged, target)
                target.finish()
            except OSError as error:
                raise (target.error or error) from None
            finally:
                target.close()
            os.replace(partial, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(self.path.parent)
        self._journal.clear()
        self._reload()

    def _require_lock(self) -> None:
        if self._lock is not None:
            self._lock.require()

    def _merge(self, merged: h5py.File, target: CheckedFile) -> None:
        """Streams every block into a new file; compressed chunks are copied as they are."""
        widths = {name: text_width(spec, self._arrays[name]) for name, spec in self._specs.items()}
        widths["source_id"] = max([widths["source_id"], *(len(name.encode("utf-8")) for name in self._appended)])
        for block in self._blocks:
            with self._opened(block) as file:
                widths = {name: max(width, text_width(self._specs[name], file[name])) for name, width in widths.items()}
        arrays = create_store_file(merged, self._header, self._store_id, self._rows, widths)
        for block in blocks(self._rows, self._header.block_rows):
            span = block_range(block, self._header.block_rows, self._rows)
            with contextlib.ExitStack() as stack:
                source: Any = stack.enter_context(self._opened(block)) if block in self._blocks else self._arrays
                first = span.start if block not in self._blocks else 0
                for name, array in arrays.items():
                    if self._specs[name].is_text:
                        text = self._read_checked(name, span.start, span.stop)
                        array[span.start : span.stop] = encode_text(text, widths[name])
                    elif block in self._blocks or span.start < self._base_rows:
                        _copy_chunks(source[name], first, array, span)
            if target.error is not None:
                raise target.error

    def _close(self) -> None:
        self._file.close()


def _copy_chunks(source: h5py.Dataset, first: int, target: h5py.Dataset, span: range) -> None:
    """Copies the chunks of one block, compressed and with their checksums; absent ones stay absent (fill values)."""
    if source.chunks is None or source.chunks != target.chunks:
        stop = min(first + len(span), source.shape[0])
        target[span.start : span.start + stop - first] = source[first:stop]
        return
    tail = (0,) * (target.ndim - 1)
    for row in range(0, min(len(span), source.shape[0] - first), source.chunks[0]):
        place = (first + row, *tail)
        if source.id.get_chunk_info_by_coord(place).byte_offset is not None:
            mask, chunk = source.id.read_direct_chunk(place)
            target.id.write_direct_chunk((span.start + row, *tail), chunk, mask)


def _rows_of(array: h5py.Dataset, start: int, stop: int) -> NDArray[Any]:
    values = array[start:stop]
    return decode_text(values) if values.dtype.kind == "S" else values


@contextlib.contextmanager
def _damage_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except (KeyError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {error}", next_step="restore the store from a copy") from error
