"""Files and folders in the making: whole or absent, and what killed processes left is told from what is alive."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_schemas.errors import StoreError
from data_schemas.files import make_unfinished_folder, partial_name, remove_abandoned, save_file, write_file


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_killed_processes_left_goes_and_what_is_alive_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    left = partial_name(out)
    (left / "deep").mkdir(parents=True)
    (left / "deep" / "0000.png").write_bytes(b"half")
    partial_name(out).write_bytes(b"half")
    others = ["out.partial", "out.zarr.0123456789ab.partial", "out.notes.partial", "out"]
    for name in others:
        (tmp_path / name).write_text("mine")
    with make_unfinished_folder(out) as alive:
        remove_abandoned(out)
        assert names(tmp_path) == sorted([*others, alive.name])
    assert names(tmp_path) == sorted(others)


def test_a_file_that_is_being_written_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    seen = []

    def look(_descriptor: int) -> None:
        remove_abandoned(path)
        seen.append(names(tmp_path))

    monkeypatch.setattr("data_schemas.files.os.fsync", look)
    write_file(path, b"{}")
    assert len(seen[0]) == 1
    assert seen[0][0].startswith("a.json.")
    assert names(tmp_path) == ["a.json"]


def test_an_unfinished_folder_goes_also_where_a_thread_still_writes_into_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove, calls = shutil.rmtree, []

    def late(folder: Path, ignore_errors: bool) -> None:
        remove(folder, ignore_errors=ignore_errors)
        calls.append(folder)
        if len(calls) == 1:
            folder.mkdir()
            (folder / "late").write_bytes(b"")

    monkeypatch.setattr("data_schemas.files.shutil.rmtree", late)
    with pytest.raises(KeyboardInterrupt), make_unfinished_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_file_is_saved_where_it_was_asked_for_and_what_a_killed_writer_left_goes(tmp_path: Path) -> None:
    out = tmp_path / "new" / "image.svg"
    save_file(out, b"first")
    left = partial_name(out)
    left.write_bytes(b"half")
    save_file(out, b"second")
    assert out.read_bytes() == b"second"
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    with pytest.raises(StoreError, match="Could not write"):
        save_file(out / "below", b"third")
