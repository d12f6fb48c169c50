"""The contract on HDF5, and what is its own: the journal, the merge, one writer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from data_schemas.errors import StoreError
from data_schemas.stores.hdf5_layout import HEADER_PATH
from data_schemas.stores.open import create_store, open_store
from tests.data_schemas.stores.store_contract import StoreContract, full_disk
from tests.data_schemas.stores.store_examples import assert_same, content_of, example_header, example_rows, joined


class TestHdf5Store(StoreContract):
    suffix = ".h5"

    def tamper(self, path: Path, change: dict[str, Any]) -> None:
        with h5py.File(path, "r+") as opened:
            file: Any = opened
            content = {**json.loads(bytes(file[HEADER_PATH][()])), **change}
            del file[HEADER_PATH]
            file[HEADER_PATH] = np.frombuffer(json.dumps(content).encode(), np.uint8)
            for key, value in change.items():
                if key in file.attrs:
                    file.attrs[key] = value

    def remove_array(self, path: Path, name: str) -> None:
        with h5py.File(path, "r+") as file:
            del file[name]

    def damage_splats_chunk(self, path: Path, chunk: int) -> None:
        with h5py.File(path) as opened:
            file: Any = opened
            info = file["splats"].id.get_chunk_info_by_coord((chunk * 64, 0, 0))
        data = bytearray(path.read_bytes())
        data[info.byte_offset + info.size // 2] ^= 4
        path.write_bytes(data)

    def test_long_suffix(self, tmp_path: Path) -> None:
        create_store(tmp_path / "a.hdf5", example_header()).close()
        assert h5py.is_hdf5(tmp_path / "a.hdf5")

    def test_file_changes_only_at_commit(self, path: Path) -> None:
        header = example_header()
        rows = example_rows(header, 16, 1)
        with create_store(path, header) as store:
            before = path.read_bytes()
            store.append(list(rows.source_id))
            store.write_block(0, rows)
            assert path.read_bytes() == before
            assert {p.name for p in path.with_name("store.h5.journal").iterdir()} == {
                "appended.json",
                "block-00000000.h5",
            }
            store.commit()
            assert path.read_bytes() != before
            assert not path.with_name("store.h5.journal").exists()
            same = path.stat().st_mtime_ns
            store.commit()
            assert path.stat().st_mtime_ns == same

    def test_journal_of_a_stopped_run_is_read_and_then_merged(self, path: Path) -> None:
        header = example_header()
        rows = [example_rows(header, 16, 1), example_rows(header, 4, 2)]
        stopped = create_store(path, header)
        stopped.append([*rows[0].source_id, *rows[1].source_id])
        for number, block in enumerate(rows):
            stopped.write_block(number, block)
        stopped._close()
        assert stopped._lock is not None
        stopped._lock.release()
        with open_store(path) as store:
            assert_same(content_of(store), joined(rows))
        open_store(path, "a").close()
        assert not path.with_name("store.h5.journal").exists()
        with h5py.File(path) as opened:
            file: Any = opened
            assert file["splats"][:16].tobytes() == rows[0].splats.tobytes()

    def test_journal_of_another_store_is_refused(self, filled: tuple[Path, Any], tmp_path: Path) -> None:
        other = tmp_path / "other.h5"
        stopped = create_store(other, example_header())
        stopped.append(["a"])
        stopped.write_block(0, stopped.read_block(0))
        tmp_path.joinpath("other.h5.journal").rename(tmp_path / "store.h5.journal")
        with pytest.raises(StoreError, match=r"another store.*delete the folder"):
            open_store(filled[0])

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["block-00000001.h5", "appended.json", "header.json"])
    def test_damaged_journal(self, filled: tuple[Path, dict[str, np.ndarray]], name: str) -> None:
        path, wanted = filled
        header = example_header()
        stopped = open_store(path, "a")
        rows = example_rows(header, 16, 50)
        stopped.write_block(1, rows)
        stopped.append(["x"])
        stopped.set_header(example_header(seed=9))
        file = path.with_name("store.h5.journal") / name
        data = file.read_bytes()
        random = np.random.default_rng(1)
        wanted = {key: values.copy() for key, values in wanted.items()}
        for key in wanted:
            wanted[key][16:32] = getattr(rows, key)
        caught = 0
        places = np.unique(random.integers(0, len(data), 60))
        for place in places:
            damaged = bytearray(data)
            damaged[place] ^= 1 << int(random.integers(8))
            file.write_bytes(damaged)
            fault: StoreError | None = None
            got: dict[str, np.ndarray] = {}
            seed = 0
            try:
                with open_store(path) as store:
                    store.read_block(1)
                    got = store.read(store.arrays, slice(0, 40))
                    seed = store.header.seed
            except StoreError as error:
                fault = error
            if fault is None:
                assert_same(got, wanted)
                assert seed == 9
            else:
                caught += 1
                assert set(getattr(fault, "rows", ())) <= set(range(16, 32))
        assert caught > len(places) * (0.95 if name.endswith("json") else 0.3)

    @pytest.mark.slow
    @pytest.mark.parametrize("limit", [100, 3000, 12000, 20000])
    def test_full_disk_while_merging(self, filled: tuple[Path, dict[str, np.ndarray]], limit: int) -> None:
        path, wanted = filled
        before = path.read_bytes()
        assert len(before) > limit
        rows = example_rows(example_header(), 16, 5)
        store = open_store(path, "a")
        store.write_block(1, rows)
        with full_disk(limit), pytest.raises(StoreError, match="free some space"):
            store.commit()
        assert path.read_bytes() == before
        assert not list(path.parent.glob("*.partial"))
        with full_disk(limit), pytest.raises(StoreError, match="free some space"):
            store.close()
        with open_store(path) as store:
            assert store.read_block(1).label.tolist() == rows.label.tolist()
        open_store(path, "a").close()
        wanted = {key: values.copy() for key, values in wanted.items()}
        for key in wanted:
            wanted[key][16:32] = getattr(rows, key)
        with open_store(path) as store:
            assert_same(content_of(store), wanted)

    def test_lost_dimension_is_noticed(self, filled: tuple[Path, Any]) -> None:
        with h5py.File(filled[0], "r+") as opened:
            file: Any = opened
            file["psnr"].dims[0].detach_scale(file["image"])
        with pytest.raises(StoreError, match="'psnr' has dimensions"):
            open_store(filled[0])

    def test_no_writer_without_the_lock(self, filled: tuple[Path, Any]) -> None:
        with pytest.raises(StoreError, match=r"one writer.*\.zarr"):
            open_store(filled[0], "a", lock=False)
