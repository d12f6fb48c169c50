"""The lock of a store on object storage: who holds it, who may take it, and what becomes of one who lost it."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from data_schemas.errors import StoreLockedError
from data_schemas.locations import location
from data_schemas.objects import modification_time, read_object, remove_objects, write_object
from data_schemas.stores.locks import RemoteLock
from data_schemas.stores.open import create_store, open_store
from tests.data_schemas.stores.store_examples import example_header, example_rows

_NUMBERS = itertools.count()


in_memory_and_on_s3 = pytest.mark.parametrize(
    "url", ["memory", pytest.param("s3", marks=pytest.mark.slow)], indirect=True
)
"""For what depends on the object store itself; the other tests need none but the one in memory."""


@pytest.fixture
def url(request: pytest.FixtureRequest) -> str:
    """Of a store with two rows."""
    kind = getattr(request, "param", "memory")
    start = "memory://locks" if kind == "memory" else request.getfixturevalue("s3_bucket")
    url = f"{start}/lock-{next(_NUMBERS)}/store.zarr"
    with create_store(url, example_header()) as store:
        store.append(["a", "b"])
    return url


def lock_of(url: str) -> UPath:
    found = location(url + ".lock")
    assert isinstance(found, UPath)
    return found


def foreign(url: str, **changes: Any) -> None:
    """A lock of a process on another machine."""
    content = {"pid": 17, "host": "elsewhere", "since": "2026-01-01", "machine": "m", "started": 1, "token": "t"}
    write_object(lock_of(url), json.dumps({**content, **changes}).encode())


@in_memory_and_on_s3
def test_one_writer_at_a_time_and_readers_always(url: str) -> None:
    with open_store(url, "a"):
        with pytest.raises(StoreLockedError, match=rf"process {os.getpid()} on .*delete the object {url}\.lock"):
            open_store(url, "a")
        with pytest.raises(StoreLockedError):
            create_store(url, example_header(), overwrite=True)
        open_store(url).close()
        open_store(url, "a", lock=False).close()
    assert read_object(lock_of(url)) is None
    open_store(url, "a").close()


@in_memory_and_on_s3
def test_a_lock_of_another_machine_is_respected_until_it_lapses(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign(url)
    with pytest.raises(StoreLockedError, match=r"process 17 on elsewhere \(since 2026-01-01\).*lapses 15 minutes"):
        open_store(url, "a")
    monkeypatch.setattr("data_schemas.stores.locks.LEASE_SECONDS", -1.0)
    monkeypatch.setattr("data_schemas.stores.locks.SETTLE_SECONDS", 0.0)
    with open_store(url, "a") as store:
        store.append(["c"])
    assert [name for name in lock_of(url).fs.find(lock_of(url).parent.path) if "lock" in name.rpartition("/")[2]] == []


def test_a_store_that_ignores_conditions_still_has_one_writer(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    original = MemoryFileSystem.pipe_file

    def pipe_file(self: MemoryFileSystem, path: str, value: bytes, mode: str = "overwrite", **named: Any) -> None:
        original(self, path, value, mode="overwrite", **named)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    with open_store(url, "a") as store:
        with pytest.raises(StoreLockedError):
            open_store(url, "a")
        store.append(["c"])


def test_a_lock_that_says_nothing_is_respected(url: str) -> None:
    write_object(lock_of(url), b"?")
    with pytest.raises(StoreLockedError, match="another process"):
        open_store(url, "a")


def test_time_is_the_time_of_the_object_store(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clocks of writers that differ by a day change nothing."""
    foreign(url, since="1999-01-01")
    monkeypatch.setattr(time, "time", lambda: 4e9)
    with pytest.raises(StoreLockedError):
        open_store(url, "a")


def test_one_who_lost_the_lock_writes_nothing(url: str) -> None:
    store = open_store(url, "a")
    rows = example_rows(store.header, 2, 0)
    foreign(url)
    for change in (
        lambda: store.write_block(0, rows),
        lambda: store.append(["c"]),
        lambda: store.set_header(example_header(seed=4)),
    ):
        with pytest.raises(StoreLockedError, match="taken over by process 17 on elsewhere"):
            change()
    store.close()
    assert b"elsewhere" in (read_object(lock_of(url)) or b""), "the other's lock stays"
    remove_objects(lock_of(url), [""])
    with open_store(url, "a") as store:
        assert store.read(["state"])["state"].tolist() == [0, 0]
        remove_objects(lock_of(url), [""])
        with pytest.raises(StoreLockedError, match="was deleted"):
            store.write_block(0, rows)


@in_memory_and_on_s3
def test_a_held_lock_is_renewed(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("data_schemas.stores.locks.RENEWED_SECONDS", 0.05)
    place = location(url)
    assert isinstance(place, UPath)
    lock = RemoteLock(place)
    first = modification_time(lock.path)
    content = read_object(lock.path)
    until = time.monotonic() + 20
    while modification_time(lock.path) == first and time.monotonic() < until:
        time.sleep(0.1)
    assert modification_time(lock.path) != first
    assert read_object(lock.path) == content, "who works for the holder compares it"
    lock.release()
    lock.release()
    assert read_object(lock.path) is None


@pytest.mark.slow
def test_the_lock_of_a_killed_process_of_this_machine_is_taken_at_once(
    s3_bucket: str, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not Path("/proc/self/stat").exists():
        pytest.skip("this system does not tell when a process began")
    monkeypatch.setattr("data_schemas.stores.locks.SETTLE_SECONDS", 0.0)
    url = f"{s3_bucket}/killed.zarr"
    create_store(url, example_header()).close()
    code = f"""
import time
from data_schemas.stores.open import open_store
store = open_store({url!r}, "a")
print("held", flush=True)
time.sleep(60)
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=repository)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        with pytest.raises(StoreLockedError, match=f"process {child.pid} on "):
            open_store(url, "a")
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    with open_store(url, "a") as store:
        store.append(["a"])
