"""Prefect's server is restarted, gone or locked under a run: the images are fitted all the same."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

import pytest

from pipeline.encode import encode
from pipeline.jobs import resolve_job
from tests.faults.servers import FLOW_IMAGES, FLOW_SETTINGS, Server, begin_flow, done_rows, wait_for_rows
from tests.faults.stores_alike import assert_alike

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(2400)]


def test_the_server_is_restarted_under_a_run(server: Server, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    run = begin_flow(server, source, out, steps=600)
    wait_for_rows(run, out)
    server.kill()
    rows = done_rows(out)
    server.start()
    code = run.wait()
    # Prefect's client tries for some time; where that was too short, the run ends and the next one continues.
    assert done_rows(out) > rows, "the rows that were under way are lost"
    print(f"the run {'survived' if code == 0 else 'ended'}, states {server.states(out)}")  # noqa: T201
    if code:
        begin_flow(server, source, out, steps=600).summary()
    expected = tmp_path / "expected.zarr"
    encode(resolve_job(str(source), expected, **{**FLOW_SETTINGS, "steps": 600}))
    assert_alike(out, expected, images=FLOW_IMAGES)


def test_a_server_that_is_gone_keeps_no_image_from_being_fitted(
    server: Server, source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a.zarr"
    monkeypatch.setitem(server.environment, "PREFECT_CLIENT_MAX_RETRIES", "0")  # its five take four minutes
    run = begin_flow(server, source, out)
    wait_for_rows(run, out)
    server.kill()
    code = run.wait()
    assert code != 0, "nobody was told that the run has ended"
    assert done_rows(out) == FLOW_IMAGES
    server.start()
    summary = begin_flow(server, source, out).summary()
    assert (summary["kept"], summary["fitted"]) == (FLOW_IMAGES, 0)
    assert_alike(out, undisturbed, images=FLOW_IMAGES)


def test_a_locked_database_does_not_end_a_run(server: Server, source: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    run = begin_flow(server, source, out)
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
        begin_flow(server, source, out).summary()
    assert_alike(out, undisturbed, images=FLOW_IMAGES)
