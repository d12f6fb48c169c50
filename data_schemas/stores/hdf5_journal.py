"""What one writer has finished since the HDF5 file was last replaced: one small file per block, whole or absent."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import h5py

from data_schemas.errors import StoreError
from data_schemas.files import PARTIAL_SUFFIX, seal, sync_folder, unseal, write_file
from data_schemas.records import RowBlock, StoreHeader
from data_schemas.stores.hdf5_file import open_unlocked
from data_schemas.stores.hdf5_layout import FORMAT, block_of, create_arrays, encode_text, mark_block, store_id_of

_BLOCK_NAME = re.compile(r"block-(\d{8,})\.h5")


class Hdf5Journal:
    """The folder ``NAME.h5.journal``.

    ``block-00000003.h5`` holds the rows of block 3 in the datasets of the store, ``appended.json`` the names of rows
    added, ``header.json`` a changed header; the JSON files carry their own checksum.

    Args:
        path: of the store.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path.with_name(path.name + ".journal")

    def blocks(self) -> dict[int, Path]:
        """Block number to its file."""
        found: dict[int, Path] = {}
        for file in self._files():
            match = _BLOCK_NAME.fullmatch(file.name)
            if match:
                found[int(match[1])] = file
        return dict(sorted(found.items()))

    def is_empty(self) -> bool:
        """Whether there is nothing to merge."""
        return not any(not file.name.endswith(PARTIAL_SUFFIX) for file in self._files())

    def read_json(self, name: str, store_id: str) -> dict[str, Any] | None:
        """The content of ``header.json`` or ``appended.json``, None where there is none.

        Raises:
            StoreError: damaged, or of another store.
        """
        path = self.folder / name
        try:
            content = unseal(path.read_bytes(), path)
        except FileNotFoundError:
            return None
        self._require_same_store(str(content.get("store_id")), store_id, path)
        return content

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        """Replaces ``header.json`` or ``appended.json``."""
        self._make_folder()
        write_file(self.folder / name, seal(content))

    def write_block(self, block: int, rows: RowBlock, header: StoreHeader, store_id: str) -> Path:
        """Replaces the file of one block."""
        text = {name: encode_text(getattr(rows, name)) for name in ("source_id", "failure")}
        # Built in memory, so that a full disk is met by one plain write that can be undone.
        with h5py.File("block", "w", driver="core", backing_store=False, libver=FORMAT) as file:
            mark_block(file, store_id, block)
            arrays = create_arrays(file, header, len(rows), {name: v.dtype.itemsize for name, v in text.items()})
            for name, array in arrays.items():
                array[...] = text[name] if name in text else getattr(rows, name)
            file.flush()
            image = file.id.get_file_image()
        self._make_folder()
        path = self.folder / f"block-{block:08d}.h5"
        write_file(path, image)
        return path

    def open_block(self, path: Path, block: int, store_id: str) -> h5py.File:
        """Opens the file of one block for reading.

        Raises:
            FileNotFoundError: it was merged meanwhile.
            StoreError: of another store or block.
            OSError: damaged.
        """
        file = open_unlocked(path)
        try:
            self._require_same_store(store_id_of(file), store_id, path)
            if block_of(file) != block:
                raise StoreError(
                    f"{path} holds block {block_of(file)}",
                    allowed=f"block {block}",
                    next_step=f"delete {path.name}; its rows are then encoded again",
                )
        except BaseException:
            file.close()
            raise
        return file

    def clear(self) -> None:
        """Forgets everything (it is in the store file now, or its store is gone)."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _files(self) -> list[Path]:
        try:
            return list(self.folder.iterdir())
        except FileNotFoundError:
            return []

    def _make_folder(self) -> None:
        if not self.folder.is_dir():
            self.folder.mkdir(exist_ok=True)
            sync_folder(self.folder.parent)

    @staticmethod
    def _require_same_store(got: str, wanted: str, path: Path) -> None:
        if got != wanted:
            raise StoreError(
                f"{path} belongs to another store",
                allowed="the journal of this store",
                next_step=f"delete the folder {path.parent}",
            )
