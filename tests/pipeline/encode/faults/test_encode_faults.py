"""Full disk, read-only place, damaged bytes: a clear error, nothing lost, and the next run fixes it."""

from __future__ import annotations

import errno
import gc
import os
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_schemas.errors import StoreError
from data_schemas.records import RowBlock
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import open_store
from pipeline.encode.block_decision import BlockInput
from pipeline.encode.plan import survey
from pipeline.encode.session import EncodeSession, encode_in_order
from tests.pipeline.encode.fakes import ArrayImages, SamplingEncoder, job_for, pictures, run


@pytest.fixture(params=["zarr", "h5"])
def out(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"store.{request.param}"


def states(path: Path) -> list[int]:
    with open_store(path) as store:
        return store.read(["state"])["state"].tolist()


@pytest.mark.slow
@pytest.mark.parametrize("block", [0, 1, 2])
def test_full_disk_keeps_what_was_written_and_the_next_run_continues(
    out: Path, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ArrayImages(pictures(10))
    write_block = SplatStore.write_block

    def full(self: SplatStore, number: int, rows: Any) -> None:
        if number == block:
            raise StoreError(
                f"Could not write rows of {self.path}: No space left on device",
                next_step="free some space and run the same command again",
            ) from OSError(errno.ENOSPC, "No space left on device")
        write_block(self, number, rows)

    monkeypatch.setattr(SplatStore, "write_block", full)
    with pytest.raises(StoreError, match="No space left"):
        run(out, source)
    monkeypatch.undo()
    assert states(out) == [1] * (4 * block) + [0] * (10 - 4 * block)
    summary = run(out, source)
    assert (summary.kept, summary.fitted) == (4 * block, 10 - 4 * block)


@pytest.mark.slow
def test_full_disk_under_the_store_itself(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ArrayImages(pictures(10))
    run(out, source, limit=4)
    fsync = os.fsync

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="free"):
        run(out, source)
    monkeypatch.setattr(os, "fsync", fsync)
    assert states(out)[:4] == [1] * 4
    assert run(out, source).rows_done == 10


@pytest.mark.slow
def test_blocks_that_could_not_be_written_do_not_stay_in_memory(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = ArrayImages(pictures(40))
    fitted: list[weakref.ref[RowBlock]] = []
    fit = EncodeSession.fit

    def remembered(self: EncodeSession, block: BlockInput, **options: Any) -> Any:
        rows, summary = fit(self, block, **options)
        fitted.append(weakref.ref(rows))
        return rows, summary

    def full(_self: SplatStore, _number: int, _rows: RowBlock) -> None:
        raise StoreError("No space left on device")

    monkeypatch.setattr(EncodeSession, "fit", remembered)
    monkeypatch.setattr(SplatStore, "write_block", full)
    plan = survey(job_for(out), source=source, encoder=SamplingEncoder()).plan
    with EncodeSession(plan, source=source, encoder=SamplingEncoder()) as session:
        for first in range(0, 10, 2):
            with pytest.raises(StoreError):
                encode_in_order(session, (first, first + 1))
        gc.collect()
        assert len(fitted) == 10
        assert [rows for rows in fitted if rows() is not None] == []


def test_a_read_only_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make = Path.mkdir

    def refuse(self: Path, *args: Any, **options: Any) -> None:
        if self.name == "locked":
            raise PermissionError(errno.EACCES, "Permission denied")
        make(self, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(StoreError, match="read-only"):
        run(tmp_path / "locked" / "a.zarr", ArrayImages(pictures(3)))


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "folder").write_text("a file")
    with pytest.raises(StoreError):
        run(tmp_path / "folder" / "a.zarr", ArrayImages(pictures(3)))


def test_something_else_at_the_path_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "notes.zarr"
    path.mkdir()
    (path / "precious.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(StoreError):
            run(path, ArrayImages(pictures(3)), overwrite=overwrite)
    assert (path / "precious.txt").read_text() == "mine"


@pytest.mark.slow
def test_damaged_bytes_are_encoded_again(tmp_path: Path) -> None:
    path, source = tmp_path / "a.zarr", ArrayImages(pictures(10))
    run(path, source)
    with open_store(path) as store:
        before = store.read(["splats", "psnr"])
    shards = sorted((path / "splats" / "c").rglob("*"), key=str)
    shard = next(file for file in shards if file.is_file() and file.parent.parent.name.endswith(("0", "1", "2")))
    data = bytearray(shard.read_bytes())
    data[len(data) // 3] ^= 0xFF
    shard.write_bytes(data)
    encoder = SamplingEncoder()
    summary = run(path, source, encoder)
    assert summary.repaired == summary.fitted == encoder.fitted
    assert 1 <= summary.repaired <= 4
    with open_store(path) as store:
        for name, values in store.read(["splats", "psnr"]).items():
            np.testing.assert_array_equal(values, before[name])
