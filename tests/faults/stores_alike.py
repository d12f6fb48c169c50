"""Whether two stores hold the same: every array, and every stored byte that is not the time or the number of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from data_schemas.records import RowState
from data_schemas.stores.open import open_store

ROOT_DOCUMENT = "zarr.json"
HEADER_OF_HDF5 = "metadata/header"


def stored_bytes(path: Path) -> dict[str, bytes]:
    """What is on the disk: files of a zarr store by name, compressed chunks of an HDF5 one by array and place.

    The header is left out: it holds the times and the number of the runs (see ``header_without_times``).
    """
    if path.suffix == ".zarr":
        return {
            file.relative_to(path).as_posix(): file.read_bytes()
            for file in path.rglob("*")
            if file.is_file() and file.relative_to(path).as_posix() != ROOT_DOCUMENT
        }
    found: dict[str, bytes] = {}
    with h5py.File(path, "r") as file:

        def collect(name: str, item: Any) -> None:
            if isinstance(item, h5py.Dataset) and item.chunks and name != HEADER_OF_HDF5:
                for number in range(item.id.get_num_chunks()):
                    place = item.id.get_chunk_info(number).chunk_offset
                    found[f"{name} {place}"] = item.id.read_direct_chunk(place)[1]

        file.visititems(collect)
    return found


def header_without_times(path: Path) -> dict[str, Any]:
    """The header without what two equal runs may differ in."""
    with open_store(path) as store:
        return store.header.model_dump(exclude={"created", "updated", "runs"})


def assert_alike(path: Path, expected: Path, *, images: int | None = None) -> None:
    """Fails where the two stores differ, where a row is missing or double, or where something was left beside them.

    Args:
        path: of the store that was disturbed.
        expected: of the one that was not.
        images: how many rows there have to be, all done.
    """
    with open_store(path) as store, open_store(expected) as wanted_store:
        got, wanted = store.read(store.arrays), wanted_store.read(wanted_store.arrays)
        assert store.verify_checksums() == []
    assert set(got) == set(wanted)
    for name, values in wanted.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name, strict=True)
    assert len(set(got["source_id"])) == len(got["source_id"]), "an image has two rows"
    if images is not None:
        assert len(got["state"]) == images
        assert (got["state"] == RowState.DONE).all()
    assert header_without_times(path) == header_without_times(expected)
    mine, theirs = stored_bytes(path), stored_bytes(expected)
    assert sorted(mine) == sorted(theirs)
    assert [name for name, data in theirs.items() if mine[name] != data] == []
    assert left_beside(path) == []


def left_beside(path: Path) -> list[str]:
    """Names of what an unfinished run would have left beside the store."""
    return sorted(
        entry.name for entry in path.parent.iterdir()
        if entry.name.startswith(f"{path.name}.") and entry.name != f"{path.name}.lock"
    )  # fmt: skip
