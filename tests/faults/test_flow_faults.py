"""Faults around a run of the flow, on one real server: afterwards the store is that of a run left alone."""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.encode import encode
from pipeline.jobs import resolve_job
from tests.faults.servers import FlowProcess, Server, done_rows, wait_until
from tests.faults.stores_alike import assert_alike

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(600)]

IMAGES = 1280
"""Five blocks of 256 rows, a shard each."""

SETTINGS: dict[str, Any] = {"gaussians": 24, "steps": 300, "workers": 1}
"""Slow enough, a second or so for a block, that a fault meets the run in the middle."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("home"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "images.npz"
    coarse = np.random.default_rng(0).integers(0, 256, (IMAGES, 4, 4, 3), np.uint8)
    np.savez(path, images=coarse.repeat(4, 1).repeat(4, 2))
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    encode(resolve_job(str(source), path, **SETTINGS))
    return path


def begin(server: Server, source: Path, out: Path, **options: Any) -> FlowProcess:
    return server.begin(**{"dataset": str(source), "out": str(out), "images_per_task": 256, **SETTINGS, **options})


def wait_for_rows(run: FlowProcess, out: Path, rows: int = 1) -> None:
    """Returns when the run is in the middle."""
    wait_until(lambda: done_rows(out) >= rows or run.process.poll() is not None, 120, "the first block")
    assert run.process.poll() is None, run.printed()
    assert done_rows(out) < IMAGES


def test_a_killed_flow_is_continued_by_the_next_one(
    server: Server, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    run = begin(server, source, out)
    wait_for_rows(run, out)
    time.sleep(0.3)
    run.kill()
    kept = done_rows(out)
    assert 0 < kept < IMAGES
    summary = begin(server, source, out).summary()
    assert (summary["kept"], summary["fitted"]) == (kept, IMAGES - kept)
    assert_alike(out, undisturbed, images=IMAGES)
    # Nobody was there to tell the server: that is what the automation is for (test_power_cut.py).
    assert server.states(out) == ["Running", "Completed"]


def test_a_deleted_store_is_fitted_again(server: Server, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    few: dict[str, Any] = {"steps": 20}
    assert begin(server, source, out, **few).summary()["fitted"] == IMAGES
    shutil.rmtree(out)
    summary = begin(server, source, out, **few).summary()
    assert (summary["kept"], summary["fitted"], summary["rows_done"]) == (0, IMAGES, IMAGES)
    tasks = server.post("task_runs/filter", {"task_runs": {"state": {"name": {"any_": ["Cached"]}}}})
    assert tasks == [], "Prefect's cache knows nothing of the store"


FAIL_ONCE = """
from data_schemas.row_store import RowStore
write_block, failed = RowStore.write_block, []
def broken(store, block, rows):
    if block == 3 and not failed:
        failed.append(block)
        raise OSError(5, "Input/output error")
    write_block(store, block, rows)
RowStore.write_block = broken
"""


def test_a_retry_counts_no_image_twice(server: Server, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    # Blocks 2 and 3 are one shard; its first try writes one of them and fails.
    out = tmp_path / "a.zarr"
    run = begin(server, source, out, prelude=FAIL_ONCE, images_per_task=512)
    summary = run.summary()
    assert "Input/output error" in run.printed()
    assert (summary["images"], summary["rows"], summary["rows_done"]) == (IMAGES, IMAGES, IMAGES)
    assert (summary["fitted"], summary["kept"]) == (IMAGES - 256, 256)
    assert_alike(out, undisturbed, images=IMAGES)


def test_of_two_runs_at_once_the_second_is_told(
    server: Server, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    first = begin(server, source, out)
    wait_for_rows(first, out)
    with first.halted():
        second = begin(server, source, out)
        assert second.wait() != 0
    assert "is being written by process" in second.printed()
    assert first.summary()["fitted"] == IMAGES
    assert_alike(out, undisturbed, images=IMAGES)
    assert server.states(out) == ["Completed", "Failed"]


def test_the_server_is_restarted_under_a_run(server: Server, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    run = begin(server, source, out, steps=600)
    wait_for_rows(run, out)
    server.kill()
    rows = done_rows(out)
    server.start()
    code = run.wait()
    # Prefect's client tries for some time; where that was too short, the run ends and the next one continues.
    assert done_rows(out) > rows, "the rows that were under way are lost"
    print(f"the run {'survived' if code == 0 else 'ended'}, states {server.states(out)}")  # noqa: T201
    if code:
        begin(server, source, out, steps=600).summary()
    expected = tmp_path / "expected.zarr"
    encode(resolve_job(str(source), expected, **{**SETTINGS, "steps": 600}))
    assert_alike(out, expected, images=IMAGES)


def test_a_locked_database_does_not_end_a_run(server: Server, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    run = begin(server, source, out)
    wait_for_rows(run, out)
    database = sqlite3.connect(server.home / "prefect.db", timeout=60, isolation_level=None)
    try:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(15)
        database.execute("ROLLBACK")
    finally:
        database.close()
    code = run.wait()
    print(f"the run {'survived' if code == 0 else 'ended'}, states {server.states(out)}")  # noqa: T201
    if code:
        begin(server, source, out).summary()
    assert_alike(out, undisturbed, images=IMAGES)
