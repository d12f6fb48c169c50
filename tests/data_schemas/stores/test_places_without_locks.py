"""File systems without file locks: stores are read there, and who wants to write is told what to do."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import pytest

from data_schemas.errors import StoreError
from data_schemas.published_layouts.hdf5_groups import open_file
from data_schemas.stores.open import create_store, open_store
from tests.data_schemas.stores.store_examples import assert_same, content_of, example_header, example_rows

WITHOUT_LOCKS = """
#include <errno.h>
int flock(int descriptor, int operation) { errno = ENOLCK; return -1; }
"""

READ_AND_WRITE = """
import json, sys
from pathlib import Path
from data_schemas.errors import StoreError
from data_schemas.published_layouts.hdf5_groups import open_file
from data_schemas.stores.open import create_store, open_store
answers = {}
for place in map(Path, sys.argv[1:]):
    with open_store(place) as store:
        read = store.read(["label", "psnr"])
    answers[place.name] = [read["label"].tolist(), read["psnr"].tolist()]
    for name, write in (("open", lambda: open_store(place, "a")),
                        ("create", lambda: create_store(place.with_stem("new"), store.header))):
        try:
            write()
        except StoreError as error:
            answers[f"{name} {place.suffix}"] = str(error)
with open_file(Path(sys.argv[1])) as file:
    answers["members"] = sorted(file)
print(json.dumps(answers))
"""


def written(path: Path) -> dict[str, Any]:
    """A store whose second block is in the journal only, where there is one; and its content."""
    header = example_header()
    store = create_store(path, header)
    for block, seed in enumerate((1, 2)):
        store.append([f"{seed} {row}" for row in range(16)])
        store.write_block(block, example_rows(header, 16, seed))
        if not block:
            store.commit()
    beside = path.with_name(path.name + ".journal")
    if beside.exists():
        shutil.copytree(beside, path.with_name("kept"))
    before = path.read_bytes() if path.is_file() else b""
    store.close()
    if before:
        path.write_bytes(before)
        shutil.move(path.with_name("kept"), beside)
    with open_store(path) as again:
        return content_of(again)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
@pytest.mark.skipif(sys.platform != "linux", reason="preloads a library")
def test_stores_are_read_where_flock_answers_enolck(tmp_path: Path) -> None:
    source, library = tmp_path / "locks.c", tmp_path / "locks.so"
    source.write_text(WITHOUT_LOCKS)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    places = [tmp_path / "store.h5", tmp_path / "store.zarr"]
    wanted = [written(place) for place in places]
    assert (tmp_path / "store.h5.journal" / "block-00000001.h5").exists()
    environment = {**os.environ, "LD_PRELOAD": str(library)}
    told = subprocess.run(
        [sys.executable, "-c", READ_AND_WRITE, *map(str, places)],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    answers = json.loads(told.stdout)
    for place, content in zip(places, wanted, strict=True):
        labels, psnr = answers[place.name]
        assert labels == content["label"].tolist()
        assert str(psnr) == str(content["psnr"].tolist())
        for name in ("open", "create"):
            refusal = answers[f"{name} {place.suffix}"]
            assert "no file locks" in refusal
            assert "local disk" in refusal
            assert "local_lock=flock" in refusal
    assert "splats" in answers["members"]
    assert not list(tmp_path.glob("new.*h5")) + list(tmp_path.glob("new.zarr"))


@pytest.mark.slow
def test_readers_take_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = written(tmp_path / "store.h5")
    asked: list[Any] = []
    opened = h5py.File

    def noting(path: Any, mode: str = "r", **options: Any) -> h5py.File:
        asked.append(options.get("locking"))
        return opened(path, mode, **options)

    monkeypatch.setattr(h5py, "File", noting)
    with open_store(tmp_path / "store.h5") as store:
        assert_same(content_of(store), content)
    assert set(asked) == {False}


@pytest.mark.slow
def test_a_store_that_this_process_has_open_with_a_lock_is_read(tmp_path: Path) -> None:
    content = written(tmp_path / "store.h5")
    with h5py.File(tmp_path / "store.h5"), open_store(tmp_path / "store.h5") as store:
        assert_same(content_of(store), content)
    with open_store(tmp_path / "store.h5"), open_file(tmp_path / "store.h5") as file:
        assert "splats" in file


def test_files_of_other_programs_are_read_without_a_lock_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path / "store.h5")
    opened = h5py.File

    def without_locks(path: Any, mode: str = "r", **options: Any) -> h5py.File:
        if options.get("locking") is not False:
            raise OSError(errno.ENOLCK, "unable to lock file")
        return opened(path, mode, **options)

    monkeypatch.setattr(h5py, "File", without_locks)
    with open_file(tmp_path / "store.h5") as file:
        assert "splats" in file


def test_a_writer_that_meets_a_lock_service_that_is_down_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fcntl = pytest.importorskip("fcntl")

    def no_locks(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match=r"has no file locks.*Next: write the store on a local disk"):
        create_store(tmp_path / "store.zarr", example_header())
    assert not (tmp_path / "store.zarr").exists()
