"""The contract on zarr, and what is its own: shards, parallel writers, the redo log."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from data_schemas.errors import StoreCorruptError, StoreError
from data_schemas.records import RowState
from data_schemas.stores.open import create_store, open_store, verify_checksums
from data_schemas.stores.redo_log import RedoLog
from data_schemas.stores.zarr_documents import add_checksum
from data_schemas.stores.zarr_folder import ZarrFolder
from tests.data_schemas.stores.store_contract import StoreContract
from tests.data_schemas.stores.store_examples import assert_same, content_of, example_header, example_rows, joined


def write_one_block(path: str, block: int) -> None:
    with open_store(path, "a", lock=False) as store:
        store.write_block(block, example_rows(store.header, 16, block))


class TestZarrStore(StoreContract):
    suffix = ".zarr"

    def tamper(self, path: Path, change: dict[str, Any]) -> None:
        file = path / "zarr.json"
        document = json.loads(file.read_bytes())
        shown = {key: value for key, value in change.items() if key in document["attributes"]}
        document["attributes"].update(
            shown, header=json.dumps({**json.loads(document["attributes"]["header"]), **change})
        )
        file.write_bytes(add_checksum(document))

    def remove_array(self, path: Path, name: str) -> None:
        shutil.rmtree(path / name)

    def damage_splats_chunk(self, path: Path, chunk: int) -> None:
        file = path / "splats" / "c" / "0" / "0" / "0"
        data = bytearray(file.read_bytes())
        index = np.frombuffer(bytes(data[-4 - 4 * 16 : -4]), "<u8").reshape(4, 2)
        offset, length = (int(number) for number in index[chunk])
        data[offset + length // 2] ^= 16
        file.write_bytes(data)

    def test_a_header_that_is_an_object_is_read_and_becomes_text(self, path: Path) -> None:
        header = example_header()
        create_store(path, header).close()
        file = path / "zarr.json"
        document = json.loads(file.read_bytes())
        text = document["attributes"]["header"]
        assert isinstance(text, str)
        document["attributes"]["header"] = json.loads(text)
        file.write_bytes(add_checksum(document))
        with open_store(path, "a") as store:
            assert store.header == header
            store.append(["a"])
            store.set_header(store.header)
        assert json.loads(file.read_bytes())["attributes"]["header"] == text
        with open_store(path) as store:
            assert (store.header, len(store)) == (header, 1)

    def test_a_header_that_is_no_json_is_damage(self, path: Path) -> None:
        create_store(path, example_header()).close()
        file = path / "zarr.json"
        document = json.loads(file.read_bytes())
        document["attributes"]["header"] = document["attributes"]["header"][:-1]
        file.write_bytes(add_checksum(document))
        with pytest.raises(StoreError, match="the header is not JSON"):
            open_store(path)

    @pytest.mark.slow
    def test_parallel_writers_of_different_blocks(self, path: Path) -> None:
        header = example_header()
        blocks = [example_rows(header, 16, number) for number in range(6)]
        with create_store(path, header) as store:
            store.append([name for block in blocks for name in block.source_id])
            context = multiprocessing.get_context("spawn")
            with context.Pool(3) as pool:
                pool.starmap(write_one_block, [(str(path), number) for number in range(6)])
            assert_same(content_of(store), joined(blocks))
        with open_store(path) as store:
            assert_same(content_of(store), joined(blocks))
            assert verify_checksums(store) == []

    @pytest.mark.slow
    def test_writer_without_the_lock_writes_blocks_only(self, filled: tuple[Path, Any]) -> None:
        with open_store(filled[0], "a"), open_store(filled[0], "a", lock=False) as store:
            for change in (lambda: store.append(["x"]), lambda: store.set_header(store.header)):
                with pytest.raises(StoreError, match="without its lock"):
                    change()

    @pytest.mark.slow
    def test_writer_without_the_lock_keeps_out_of_a_store_made_anew(self, filled: tuple[Path, Any]) -> None:
        path, _ = filled
        with open_store(path, "a", lock=False) as late:
            with create_store(path, late.header, overwrite=True) as anew:
                anew.append([str(number) for number in range(40)])
            with pytest.raises(StoreError, match="was replaced while it was being written"):
                late.write_block(1, example_rows(late.header, 16, 1))
        with open_store(path) as store:
            assert (store.read(["state"])["state"] == RowState.EMPTY).all()

    @pytest.mark.slow
    def test_two_processes_finish_one_change(self, filled: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch) -> None:
        path, wanted = filled
        rows = example_rows(example_header(), 16, 60)
        real_replace = os.replace
        taken: list[str] = []

        def replaced_by_the_other(source: Any, target: Any) -> None:
            if ".ready" in str(source) and not taken:  # the other process is a moment ahead with the first file
                taken.append(str(target))
                real_replace(source, target)
            real_replace(source, target)

        with open_store(path, "a", lock=False) as store:
            monkeypatch.setattr(os, "replace", replaced_by_the_other)
            store.write_block(1, rows)
        assert taken
        with open_store(path) as store:
            expected = {name: values.copy() for name, values in wanted.items()}
            for name, values in expected.items():
                values[16:32] = getattr(rows, name)
            assert_same(content_of(store), expected)
            assert verify_checksums(store) == []

    def test_a_clock_that_jumps_back_keeps_the_order_of_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        log = RedoLog(tmp_path / "store.zarr", lambda relative: relative)
        (tmp_path / "store.zarr").mkdir()
        times = iter((2_000, 1_000))
        monkeypatch.setattr("data_schemas.stores.redo_log.time.time_ns", lambda: next(times))
        for content in ("first", "second"):
            change = log.begin()
            (change / "file").write_text(content)
            log.seal(change)
        assert log.recover() == 2
        assert (tmp_path / "store.zarr" / "file").read_text() == "second"

    @pytest.mark.slow
    def test_one_file_per_array_and_block(self, filled: tuple[Path, Any]) -> None:
        path = filled[0]
        for name in ("splats", "image", "psnr", "source_id", "state"):
            files = [p for p in (path / name).rglob("*") if p.is_file()]
            assert len(files) == 1 + 3, name

    @pytest.mark.slow
    def test_plain_zarr_reads_it_without_warnings(self, filled: tuple[Path, dict[str, np.ndarray]]) -> None:
        path, wanted = filled
        group: Any = zarr.open_group(path, mode="r")
        assert group["splats"][:].tobytes() == wanted["splats"].tobytes()
        assert list(group["source_id"][:]) == wanted["source_id"].tolist()
        assert group["splats"].metadata.dimension_names == ("image", "gaussian", "parameter")
        assert list(group["parameter"][:]) == ["sigma_x", "sigma_y", "rho", "r", "g", "b", "x", "y"]

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["splats", "psnr", "state", "source_id"])
    def test_vanished_shard_is_not_zeros(self, filled: tuple[Path, Any], name: str) -> None:
        path = filled[0]
        target = path / name / "c" / "1"
        shutil.rmtree(target) if target.is_dir() else target.unlink()
        with open_store(path) as store:
            assert verify_checksums(store) == list(range(16, 32))
            with pytest.raises(StoreCorruptError, match="missing or empty"):
                store.read([name])
            assert len(store.read([name], slice(0, 16))[name]) == 16

    @pytest.mark.slow
    def test_valid_change_of_a_killed_writer_is_read_and_then_finished(
        self, filled: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path, wanted = filled
        rows = example_rows(example_header(), 16, 60)
        with open_store(path, "a", lock=False) as store:

            def killed(*_: Any) -> None:
                raise KeyboardInterrupt

            monkeypatch.setattr(RedoLog, "apply", killed)
            with pytest.raises(KeyboardInterrupt):
                store.write_block(1, rows)
            monkeypatch.undo()
            wanted = {key: values.copy() for key, values in wanted.items()}
            for key in wanted:
                wanted[key][16:32] = getattr(rows, key)
            assert_same(content_of(store), wanted)
            with open_store(path) as reader:
                assert_same(content_of(reader), wanted)
        assert path.with_name("store.zarr.journal").is_dir()
        open_store(path, "a").close()
        assert not path.with_name("store.zarr.journal").exists()
        with open_store(path) as store:
            assert_same(content_of(store), wanted)

    @pytest.mark.slow
    def test_unfinished_change_of_a_killed_writer_is_deleted(self, filled: tuple[Path, Any]) -> None:
        path, wanted = filled
        partial = path.with_name("store.zarr.journal") / "1-a.partial" / "splats" / "c" / "0" / "0"
        partial.mkdir(parents=True)
        (partial / "0").write_bytes(b"half")
        with open_store(path) as store:
            assert_same(content_of(store), wanted)
        open_store(path, "a").close()
        assert not path.with_name("store.zarr.journal").exists()

    @pytest.mark.slow
    def test_metadata_changed_by_another_program(self, filled: tuple[Path, Any]) -> None:
        file = filled[0] / "psnr" / "zarr.json"
        document = json.loads(file.read_bytes())
        document["fill_value"] = 0
        file.write_text(json.dumps(document))
        with pytest.raises(StoreError, match=r"psnr.*checksum differs"):
            open_store(filled[0])

    @pytest.mark.slow
    def test_array_shorter_than_the_states(self, filled: tuple[Path, Any]) -> None:
        file = filled[0] / "psnr" / "zarr.json"
        document = json.loads(file.read_bytes())
        document["shape"] = [39]
        file.write_bytes(add_checksum(document))
        with pytest.raises(StoreError, match=r"'psnr' has 39 rows.*at least 40"):
            open_store(filled[0])

    def test_a_block_that_appears_while_it_is_read_is_not_damage(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rows = example_rows(example_header(), 16, 3)
        with create_store(path, example_header()) as writer, open_store(path) as empty:
            writer.append([str(i) for i in range(16)])
            assert len(empty) == 0
            layers, looks = ZarrFolder.layers, list[int]()

            def written_after_the_first_look(place: ZarrFolder) -> Any:
                looks.append(1)
                if len(looks) == 2:  # the shard was not there; now its rows are looked at
                    writer.write_block(0, rows)
                return layers(place)

            with open_store(path) as reader:
                monkeypatch.setattr(ZarrFolder, "layers", written_after_the_first_look)
                assert reader.read(["psnr"])["psnr"].tobytes() == rows.psnr.tobytes()
            assert len(looks) > 2

    def test_a_store_that_grows_while_it_is_opened_is_whole(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        read_bytes, grown = Path.read_bytes, list[str]()

        def grown_in_between(file: Path) -> bytes:
            data = read_bytes(file)
            if file == path / "splats" / "zarr.json" and not grown:
                grown.append("once")
                writer.append([str(i) for i in range(20)])
            return data

        with create_store(path, example_header()) as writer:
            writer.append(["a"])
            monkeypatch.setattr(Path, "read_bytes", grown_in_between)
            with open_store(path) as reader:
                assert reader.read(["source_id"])["source_id"].tolist() == ["a"]
                assert not reader.read(["splats"])["splats"].any()
            assert grown
            with open_store(path) as reader:
                assert len(reader) == 21

    def test_empty_rows_need_no_shards(self, path: Path) -> None:
        with create_store(path, example_header()) as store:
            store.append([str(i) for i in range(40)])
            assert not (path / "splats" / "c").exists()
            assert store.read(["state"])["state"].tolist() == [RowState.EMPTY] * 40
            assert not store.read(["splats"])["splats"].any()
