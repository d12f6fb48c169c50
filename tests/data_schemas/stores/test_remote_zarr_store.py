"""Stores on object storage: in memory, and on a server that speaks S3."""

from __future__ import annotations

import functools
import http.server
import itertools
import json
import multiprocessing
import threading
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import zarr
from fsspec.implementations.memory import MemoryFileSystem
from upath import UPath

from data_schemas.errors import StoreCorruptError, StoreError
from data_schemas.locations import location
from data_schemas.objects import create_object, object_sizes, read_object, read_objects, remove_objects, write_object
from data_schemas.records import RowBlock, RowState
from data_schemas.stores.open import create_store, open_store, publish_store, store_exists, verify_checksums
from data_schemas.stores.zarr_documents import add_checksum
from tests.data_schemas.stores.store_examples import assert_same, content_of, example_header, example_rows, joined
from tests.hub_stand_in import show_files

_NUMBERS = itertools.count()
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def place(url: str) -> UPath:
    found = location(url)
    assert isinstance(found, UPath)
    return found


def objects_of(url: str) -> dict[str, bytes]:
    """Every object of a store."""
    root = place(url)
    return read_objects(root, object_sizes(root))


def beside(url: str) -> list[str]:
    """Names of the objects beside a store."""
    root = place(url)
    paths = root.fs.find(root.parent.path)
    return sorted(path.rpartition("/")[2] for path in paths if f"/{root.name}/" not in path)


in_memory_and_on_s3 = pytest.mark.parametrize(
    "folder", ["memory", pytest.param("s3", marks=pytest.mark.slow)], indirect=True
)
"""For what depends on the object store itself; the other tests need none but the one in memory."""


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> str:
    """A fresh place."""
    kind = getattr(request, "param", "memory")
    start = "memory://tests" if kind == "memory" else request.getfixturevalue("s3_bucket")
    return f"{start}/folder-{next(_NUMBERS)}"


@pytest.fixture
def url(folder: str) -> str:
    return f"{folder}/store.zarr"


def fill(path: str | Path) -> dict[str, np.ndarray]:
    """A store of 40 rows (blocks of 16, 16 and 8); returns what is in it."""
    header = example_header(created=NOW, updated=NOW)
    blocks = [example_rows(header, count, seed) for seed, count in enumerate((16, 16, 8))]
    with create_store(path, header) as store:
        store.append([name for block in blocks[:2] for name in block.source_id][:20])
        store.append([name for block in blocks for name in block.source_id][20:])
        for number, block in enumerate(blocks):
            store.write_block(number, block)
        store.set_header(example_header(created=NOW, updated=NOW, seed=5))
    return joined(blocks)


# Content -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@in_memory_and_on_s3
def test_objects_equal_the_files_of_a_local_store(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=7))
    wanted = fill(tmp_path / "store.zarr")
    fill(url)
    files = {
        path.relative_to(tmp_path / "store.zarr").as_posix(): path.read_bytes()
        for path in (tmp_path / "store.zarr").rglob("*")
        if path.is_file()
    }
    assert objects_of(url) == files
    assert beside(url) == []
    with open_store(url) as store:
        assert str(store.path) == url
        assert_same(content_of(store), wanted)
        assert verify_checksums(store) == []
        assert store.header.seed == 5
        assert store.nbytes_stored == {
            name: sum(len(data) for key, data in files.items() if key.startswith(f"{name}/")) for name in store.arrays
        }


@pytest.mark.slow
@in_memory_and_on_s3
def test_rows_in_any_order_and_while_it_grows(url: str) -> None:
    wanted = fill(url)
    with open_store(url) as reader, open_store(url, "a") as writer:
        for rows in (slice(30, 5), slice(None, None, 7), [39, 0, 17, 17], [-1, -40], []):
            chosen = rows if isinstance(rows, slice) else np.asarray(rows, dtype=int)
            got = reader.read(["splats", "source_id", "psnr"], rows)
            assert_same(got, {name: wanted[name][chosen] for name in got})
        assert writer.append([f"new {i}" for i in range(30)]) == range(40, 70)
        added = RowBlock.empty(30, writer.header)
        added.source_id[:] = [f"new {i}" for i in range(30)]
        assert_same(content_of(writer), {k: np.concatenate([wanted[k], joined([added])[k]]) for k in wanted})
        assert_same(content_of(reader), wanted)


@pytest.mark.slow
def test_any_program_that_reads_zarr_reads_it(url: str) -> None:
    wanted = fill(url)
    group: Any = zarr.open_group(url, mode="r")
    assert group["splats"][:].tobytes() == wanted["splats"].tobytes()
    assert list(group["source_id"][:]) == wanted["source_id"].tolist()


def test_any_file_system_of_fsspec_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "datasets" / "user" / "name"
    folder.mkdir(parents=True)
    wanted = fill(folder / "store.zarr")
    show_files(monkeypatch, tmp_path)
    url = "hf://datasets/user/name/store.zarr"
    with open_store(url) as store, open_store(folder / "store.zarr") as local:
        assert_same(content_of(store), wanted)
        assert_same(store.read(["splats"], [39, 3]), {"splats": wanted["splats"][[39, 3]]})
        assert store.nbytes_stored == local.nbytes_stored
    with pytest.raises(StoreError, match="does not exist"):
        open_store(url.replace("store", "absent"))
    with pytest.raises(StoreError, match=r"store that can be written, such as s3://"):
        open_store(url, "a")


@pytest.mark.slow
@pytest.mark.parametrize("lists", [True, False])
def test_a_plain_web_server_is_read(tmp_path: Path, lists: bool) -> None:
    wanted = fill(tmp_path / "store.zarr")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def list_directory(self, path: Any) -> Any:
            return super().list_directory(path) if lists else self.send_error(404)

        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        start = f"http://127.0.0.1:{server.server_port}"
        with open_store(f"{start}/store.zarr") as store, open_store(tmp_path / "store.zarr") as local:
            assert_same(content_of(store), wanted)
            assert store.nbytes_stored == local.nbytes_stored
        with pytest.raises(StoreError, match="does not exist"):
            open_store(f"{start}/absent.zarr")
        with pytest.raises(StoreError, match=r"Could not write .*\.lock"):
            create_store(f"{start}/new.zarr", example_header())
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.slow
def test_a_local_store_is_published_whole(url: str, tmp_path: Path) -> None:
    wanted = fill(tmp_path / "store.zarr")
    publish_store(tmp_path / "store.zarr", place(url))
    with open_store(url) as store:
        assert_same(content_of(store), wanted)
    with pytest.raises(StoreError, match="exists already"):
        publish_store(tmp_path / "store.zarr", place(url))
    publish_store(tmp_path / "store.zarr", place(url), overwrite=True)
    assert beside(url) == []


# What is there -------------------------------------------------------------------------------------------------------


@in_memory_and_on_s3
def test_only_our_stores_are_replaced(url: str) -> None:
    assert not store_exists(url)
    with pytest.raises(StoreError, match="does not exist"):
        open_store(url)
    fill(url)
    assert store_exists(url)
    with pytest.raises(StoreError, match="exists already"):
        create_store(url, example_header())
    create_store(url, example_header(gaussians=9, anchors=None), overwrite=True).close()
    with open_store(url) as store:
        assert (len(store), store.header.gaussians) == (0, 9)
    assert not [key for key in objects_of(url) if "/c/" in key and not key.startswith("parameter/")]
    strange = url.replace("store", "strange")
    write_object(place(strange) / "notes.txt", b"keep me")
    for overwrite in (False, True):
        with pytest.raises(StoreError, match="not a SplatSpace store"):
            create_store(strange, example_header(), overwrite=overwrite)
    with pytest.raises(StoreError, match=r"zarr\.json is missing"):
        open_store(strange)
    assert objects_of(strange) == {"notes.txt": b"keep me"}


@pytest.mark.slow
@pytest.mark.parametrize("key", ["splats/c/1/0/0", "psnr/c/1", "state/c/1", "source_id/c/1"])
@pytest.mark.parametrize("empty", [False, True])
def test_a_vanished_object_is_not_zeros(url: str, key: str, empty: bool) -> None:
    fill(url)
    lost = place(url) / key
    if empty:
        write_object(lost, b"")
    else:
        lost.fs.rm_file(lost.path)
    name = key.partition("/")[0]
    with open_store(url) as store:
        assert verify_checksums(store) == list(range(16, 32))
        with pytest.raises(StoreCorruptError, match="bad bytes in rows 16-31"):
            store.read([name])
        assert len(store.read([name], slice(0, 16))[name]) == 16


@pytest.mark.slow
def test_flipped_bits_are_never_numbers() -> None:
    url = f"memory://flipped-{next(_NUMBERS)}/store.zarr"
    wanted = fill(url)
    root = place(url)
    random = np.random.default_rng(0)
    caught = total = 0
    for key, data in objects_of(url).items():
        if {"1", "2"} & set(key.split("/")):
            continue
        damaged = bytearray(data)
        damaged[int(random.integers(len(data)))] ^= 16
        write_object(root / key, bytes(damaged))
        total += 1
        try:
            with open_store(url) as store:
                bad = verify_checksums(store)
                assert bad == [] or set(bad) <= set(range(16))
                assert_same(content_of(store), wanted)
        except StoreError:
            caught += 1
        write_object(root / key, data)
    # The rest is white space in JSON: harmless, and proven equal.
    assert caught > total * 0.6, (caught, total)


def test_metadata_changed_by_another_program(url: str) -> None:
    fill(url)
    file = place(url) / "psnr" / "zarr.json"
    document = json.loads(read_object(file) or b"")
    write_object(file, add_checksum({**document, "shape": [39]}))
    with pytest.raises(StoreError, match=r"'psnr' has 39 rows.*at least 40"):
        open_store(url)
    write_object(file, json.dumps({**document, "fill_value": 0}).encode())
    with pytest.raises(StoreError, match=r"psnr.*checksum differs"):
        open_store(url)


@pytest.mark.slow
def test_a_fault_of_the_network_is_not_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"memory://cut-{next(_NUMBERS)}/store.zarr"
    fill(url)
    cut = threading.Event()
    original = MemoryFileSystem.cat_file

    def cat_file(*arguments: Any, **named: Any) -> Any:
        if cut.is_set():
            raise ConnectionResetError("the line is cut")
        return original(*arguments, **named)

    monkeypatch.setattr(MemoryFileSystem, "cat_file", cat_file)
    with open_store(url, "a") as store:
        cut.set()
        for action in (
            lambda: store.read(["psnr"]),
            lambda: verify_checksums(store),
            lambda: store.write_block(0, example_rows(store.header, 16, 9)),
            lambda: open_store(url),
        ):
            with pytest.raises(StoreError, match=r"the line is cut.*network") as caught:
                action()
            assert not isinstance(caught.value, StoreCorruptError)
        cut.clear()
        assert verify_checksums(store) == []


@pytest.mark.slow
def test_a_vanished_object_of_s3_is_not_zeros(s3_bucket: str) -> None:
    url = f"{s3_bucket}/vanished.zarr"
    header = example_header(block_rows=256)
    with create_store(url, header) as store:
        store.append([str(i) for i in range(256)])
        store.write_block(0, example_rows(header, 256, 0))
        for key, data in (("psnr/c/0", None), ("splats/c/0/0/0", b""), ("image/c/0/0/0/0", b"cut")):
            damaged = place(url) / key
            if data is None:
                damaged.fs.rm_file(damaged.path)
            else:
                write_object(damaged, data)
            with pytest.raises(StoreCorruptError, match="bad bytes in rows"):
                store.read([key.partition("/")[0]], [3, 200])


# Writers -------------------------------------------------------------------------------------------------------------


def write_one_block(url: str, block: int) -> None:
    with open_store(url, "a", lock=False) as store:
        store.write_block(block, example_rows(store.header, 16, block))


@pytest.mark.slow
def test_parallel_writers_of_different_blocks(s3_bucket: str) -> None:
    url = f"{s3_bucket}/parallel.zarr"
    header = example_header()
    blocks = [example_rows(header, 16, number) for number in range(6)]
    with create_store(url, header) as store:
        store.append([name for block in blocks for name in block.source_id])
        with multiprocessing.get_context("spawn").Pool(3) as pool:
            pool.starmap(write_one_block, [(url, number) for number in range(6)])
        assert_same(content_of(store), joined(blocks))


@pytest.mark.slow
def test_a_writer_that_outlived_its_store_is_refused(url: str) -> None:
    fill(url)
    with open_store(url, "a", lock=False) as stale:
        with pytest.raises(StoreError, match="without its lock"):
            stale.append(["x"])
        create_store(url, example_header(), overwrite=True).close()
        with pytest.raises(StoreError, match="was replaced"):
            stale.write_block(0, example_rows(stale.header, 16, 3))
    assert len(open_store(url)) == 0


def test_a_writer_whose_store_was_deleted_leaves_no_wreck(url: str) -> None:
    fill(url)
    with open_store(url, "a") as store:
        remove_objects(place(url), object_sizes(place(url)))
        for change in (
            lambda: store.write_block(0, example_rows(store.header, 16, 3)),
            lambda: store.append(["x"]),
            lambda: store.set_header(store.header),
        ):
            with pytest.raises(StoreError, match=r"was deleted while it was being written|bad bytes"):
                change()
    assert objects_of(url) == {}


@pytest.mark.slow
def test_blocks_may_be_replaced(url: str) -> None:
    wanted = fill(url)
    rows = example_rows(example_header(), 16, 60)
    with open_store(url, "a") as store:
        store.write_block(1, rows)
        for name in wanted:
            wanted[name][16:32] = getattr(rows, name)
        assert_same(content_of(store), wanted)


# Kills ---------------------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a writer at once: nothing catches it, and nothing reaches the store afterwards."""


class DyingNetwork:
    """Counts what changes objects in memory; dies just before change ``last`` and lets nothing through any more."""

    def __init__(self, patch: pytest.MonkeyPatch, last: int | None) -> None:
        self.count = 0
        for name in ("pipe_file", "rm_file", "rm"):
            original = getattr(MemoryFileSystem, name)

            def call(*arguments: Any, original: Any = original, **named: Any) -> Any:
                self.count += 1
                if last is not None and self.count >= last:
                    raise Killed
                return original(*arguments, **named)

            patch.setattr(MemoryFileSystem, name, call)


def target(block: int, count: int) -> RowBlock:
    """What a block is to become: block 0 in part as it was, so that only some of its rows are replaced."""
    header = example_header(block_rows=8)
    names = [f"image {block * 8 + i}" for i in range(count)]
    rows, new = example_rows(header, count, block, names), example_rows(header, count, block + 50, names)
    if block == 0:
        for name, values in vars(rows).items():
            getattr(new, name)[:4] = values[:4]
    return new


def begin(url: str) -> None:
    """The store as the run finds it: 12 rows, of which the first 8 are to be replaced in part."""
    header = example_header(block_rows=8, created=NOW, updated=NOW)
    names = [f"image {i}" for i in range(12)]
    with create_store(url, header) as store:
        store.append(names)
        store.write_block(0, example_rows(header, 8, 0, names[:8]))


def work(url: str) -> None:
    """Grows, writes, replaces rows, changes the header; picks up where a killed run stopped."""
    with open_store(url, "a") as store:
        store.append([f"image {i}" for i in range(len(store), 20)])
        for block, count in enumerate((8, 8, 4)):
            rows, wanted = store.read_block(block), target(block, count)
            if any(not np.array_equal(getattr(rows, name), values) for name, values in vars(wanted).items()):
                store.write_block(block, wanted)
        if store.header.seed == 0:
            store.set_header(store.header.model_copy(update={"seed": 1}))


def check_rows(url: str) -> int:
    """Every row is the old one, the new one, or EMPTY; returns how many are EMPTY."""
    with open_store(url) as store:
        assert len(store) in (12, 20)
        got = content_of(store)
    before = joined([example_rows(example_header(block_rows=8), 8, 0, [f"image {i}" for i in range(8)])])
    after = joined([target(block, count) for block, count in enumerate((8, 8, 4))])
    for row in range(len(got["state"])):
        assert got["source_id"][row] == f"image {row}"
        if got["state"][row] != RowState.EMPTY:
            assert any(
                row < len(one["state"]) and all(got[name][row].tobytes() == one[name][row].tobytes()
                                                for name in got if got[name].dtype != object)
                for one in (before, after)
            ), row  # fmt: skip
    return int((got["state"] == RowState.EMPTY).sum())


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of the dead lapse at once, and their threads are not started."""
    monkeypatch.setattr("data_schemas.stores.locks.LEASE_SECONDS", -1.0)
    monkeypatch.setattr("data_schemas.stores.locks.SETTLE_SECONDS", 0.0)
    monkeypatch.setattr("data_schemas.stores.locks.RemoteLock._renew", lambda _: None)


EVERY = [pytest.param(1, marks=pytest.mark.soak), 3]
"""A kill before each change, or before every third."""


@pytest.mark.slow
@pytest.mark.parametrize("apart", EVERY)
@pytest.mark.usefixtures("no_waiting")
def test_kill_before_every_change_of_an_object(monkeypatch: pytest.MonkeyPatch, apart: int) -> None:
    monkeypatch.setattr(uuid, "uuid4", lambda: uuid.UUID(int=next(_NUMBERS)))
    store_id = uuid.UUID(int=7).hex
    monkeypatch.setattr("data_schemas.stores.zarr_store.uuid", type("Fixed", (), {"uuid4": lambda: uuid.UUID(int=7)}))
    url = f"memory://kills-{next(_NUMBERS)}/a.zarr"
    begin(url)
    start = objects_of(url)
    with monkeypatch.context() as patch:
        network = DyingNetwork(patch, None)
        work(url)
        changes = network.count
    wanted = objects_of(url)
    assert store_id.encode() in wanted["zarr.json"]
    assert changes > 40
    emptied = 0
    for last in range(1, changes + 1, apart):
        url = f"memory://kills-{next(_NUMBERS)}/a.zarr"
        for key, data in start.items():
            write_object(place(url) / key, data)
        with monkeypatch.context() as patch:
            DyingNetwork(patch, last)
            with pytest.raises(Killed):
                work(url)
        emptied += check_rows(url) > 12
        work(url)
        assert objects_of(url) == wanted, last
        assert beside(url) == []
    assert emptied >= 11 // apart  # some kills fell between the withdrawal of rows and their return


@pytest.mark.slow
@pytest.mark.parametrize("apart", EVERY)
@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.usefixtures("no_waiting")
def test_kill_while_a_store_is_made(monkeypatch: pytest.MonkeyPatch, overwrite: bool, apart: int) -> None:
    """What is left is nothing, the old store or the new one."""
    source = f"memory://made-{next(_NUMBERS)}/a.zarr"
    wanted = fill(source)
    old = objects_of(source)
    last, died = 1 - apart, True
    while died:
        last += apart
        url = f"memory://made-{next(_NUMBERS)}/a.zarr"
        for key, data in old.items() if overwrite else ():
            write_object(place(url) / key, data)
        died = False
        with monkeypatch.context() as patch:
            DyingNetwork(patch, last)
            try:
                create_store(url, example_header(gaussians=9, anchors=None), overwrite=overwrite).close()
            except Killed:
                died = True
        if store_exists(url):
            with open_store(url) as store:
                if store.header.gaussians == 3:
                    assert_same(content_of(store), wanted)
                else:
                    assert len(store) == 0
        create_store(url, example_header(gaussians=9, anchors=None), overwrite=store_exists(url)).close()
        with open_store(url) as store:
            assert (len(store), store.header.gaussians) == (0, 9)
        assert beside(url) == []
    assert last > 15


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_url_is_never_a_local_path(s3_bucket: str) -> None:
    url = f"{s3_bucket}/named.zarr"
    for given in (url, Path(url), str(Path(url)), UPath(url), url + "/"):
        found = location(given)
        assert not isinstance(found, Path)
        assert str(found) == url
    assert location("s3fake/x.zarr") == Path("s3fake/x.zarr")
    assert location("a:/x.zarr") == Path("a:/x.zarr")
    assert location("plain:/x.zarr") == Path("plain:/x.zarr")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://bucket", "names no object"),
        ("s3://bucket/../other/x.zarr", "not the name of one object"),
        ("s3://bucket//x.zarr", "not the name of one object"),
        ("simplecache::s3://bucket/x.zarr", "neither a path nor a URL"),
        ("nothing://bucket/x.zarr", "no file system 'nothing'.*s3://BUCKET"),
        ("s3://bucket/x.h5", "HDF5 file.*ends in .zarr"),
        ("s3://bucket/x.tar", "suffix '.tar'"),
    ],
)
def test_urls_that_cannot_be(url: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        create_store(url, example_header())


@pytest.mark.parametrize(
    "url", ["s3://AKIA12:sesame@bucket/x.zarr", "s3:/AKIA12:sesame@bucket/x.zarr", "https://host/x.zarr?sig=sesame"]
)
def test_credentials_in_a_url_are_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(StoreError, match=r"carries a password.*environment") as caught:
        open_store(url)
    assert "sesame" not in repr(caught.value)
    assert caught.value.__cause__ is None


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: str) -> Any:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec, "get_filesystem_class", missing)
    with pytest.raises(StoreError, match=r'not installed.*Next: pip install "splatspace\[remote\]"'):
        open_store("s3://bucket/x.zarr")


@pytest.mark.slow
def test_a_bucket_that_is_not_there(s3_bucket: str) -> None:
    with pytest.raises(StoreError, match="does not exist"):
        open_store("s3://no-such-bucket/x.zarr")
    with pytest.raises(StoreError, match=r"no-such-bucket/x\.zarr.*bucket.*check the URL"):
        create_store("s3://no-such-bucket/x.zarr", example_header())
    assert s3_bucket


def test_wrong_credentials_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(*_: Any, **__: Any) -> Any:
        raise PermissionError("Access Denied")

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", forbidden)
    with pytest.raises(StoreError, match=r"Access Denied.*environment variables or configuration"):
        create_store("memory://forbidden/x.zarr", example_header())


@in_memory_and_on_s3
def test_only_one_of_many_creates_an_object(folder: str) -> None:
    found: list[bool] = []
    turn = threading.Barrier(8)

    def attempt(number: int) -> None:
        turn.wait()
        found.append(create_object(place(f"{folder}/once"), str(number).encode()))

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [False] * 7 + [True]


def test_a_lock_says_nothing_of_secrets(url: str) -> None:
    with create_store(url, example_header()):
        held = json.loads(read_object(place(url + ".lock")) or b"")
        assert sorted(held) == ["host", "machine", "pid", "since", "started", "token"]
