"""Faults around a run of the flow, on one real server: afterwards the store is that of a run left alone."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.servers import FLOW_IMAGES, Server, begin_flow, done_rows, wait_for_rows
from tests.faults.stores_alike import assert_alike

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(2400)]


def test_a_killed_flow_is_continued_by_the_next_one(
    server: Server, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    run = begin_flow(server, source, out)
    wait_for_rows(run, out)
    time.sleep(0.3)
    run.kill()
    kept = done_rows(out)
    assert 0 < kept < FLOW_IMAGES
    summary = begin_flow(server, source, out).summary()
    assert (summary["kept"], summary["fitted"]) == (kept, FLOW_IMAGES - kept)
    assert_alike(out, undisturbed, images=FLOW_IMAGES)
    # Nobody was there to tell the server: that is what the automation is for (test_power_cut.py).
    assert server.states(out) == ["Running", "Completed"]


def test_a_deleted_store_is_fitted_again(server: Server, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    few: dict[str, Any] = {"steps": 20}
    assert begin_flow(server, source, out, **few).summary()["fitted"] == FLOW_IMAGES
    shutil.rmtree(out)
    summary = begin_flow(server, source, out, **few).summary()
    assert (summary["kept"], summary["fitted"], summary["rows_done"]) == (0, FLOW_IMAGES, FLOW_IMAGES)
    tasks = server.post("task_runs/filter", {"task_runs": {"state": {"name": {"any_": ["Cached"]}}}})
    assert tasks == [], "Prefect's cache knows nothing of the store"


FAIL_ONCE = """
from data_schemas.row_store import RowStore
write_block, failed = RowStore.write_block, []
def broken(store, block, rows):
    if block == 1 and not failed:
        failed.append(block)
        raise OSError(5, "Input/output error")
    write_block(store, block, rows)
RowStore.write_block = broken
"""


def test_a_retry_counts_no_image_twice(server: Server, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    # Blocks 0 and 1 are one shard; its first try writes one of them and fails.
    out = tmp_path / "a.zarr"
    run = begin_flow(server, source, out, prelude=FAIL_ONCE, images_per_task=512)
    summary = run.summary()
    assert "Input/output error" in run.printed()
    assert (summary["images"], summary["rows"], summary["rows_done"]) == (FLOW_IMAGES, FLOW_IMAGES, FLOW_IMAGES)
    assert (summary["fitted"], summary["kept"]) == (FLOW_IMAGES - 256, 256)
    assert_alike(out, undisturbed, images=FLOW_IMAGES)


def test_of_two_runs_at_once_the_second_is_told(
    server: Server, source: Path, undisturbed: Path, tmp_path: Path
) -> None:
    out = tmp_path / "a.zarr"
    first = begin_flow(server, source, out)
    wait_for_rows(first, out)
    with first.halted():
        second = begin_flow(server, source, out)
        assert second.wait() != 0
    assert "is being written by process" in second.printed()
    assert first.summary()["fitted"] == FLOW_IMAGES
    assert_alike(out, undisturbed, images=FLOW_IMAGES)
    assert server.states(out) == ["Completed", "Failed"]
