"""Faults around runs of the flow and their server: afterwards each store is that of a run left alone."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

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


def test_a_second_run_is_told_and_no_image_is_lost_when_the_server_dies_under_two(
    server: Server, source: Path, undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient_out, impatient_out = tmp_path / "patient.zarr", tmp_path / "impatient.zarr"
    patient = begin_flow(server, source, patient_out)
    wait_for_rows(patient, patient_out)
    with patient.halted():
        second = begin_flow(server, source, patient_out)
        assert second.wait() != 0
        assert "is being written by process" in second.printed()
        assert server.states(patient_out) == ["Running", "Failed"]

        with monkeypatch.context() as impatience:
            impatience.setitem(server.environment, "PREFECT_CLIENT_MAX_RETRIES", "0")  # its five take four minutes
            impatient = begin_flow(server, source, impatient_out)
        wait_for_rows(impatient, impatient_out)
        rows = done_rows(patient_out)
        server.kill()
    assert impatient.wait() != 0, "nobody was told that the run has ended"
    assert done_rows(impatient_out) == FLOW_IMAGES
    server.start()

    # Prefect's client tries for some time; where that was too short, the run ends and the next one continues.
    code = patient.wait()
    assert done_rows(patient_out) > rows, "the rows that were under way are lost"
    print(f"the run {'survived' if code == 0 else 'ended'}, states {server.states(patient_out)}")  # noqa: T201
    if code:
        begin_flow(server, source, patient_out).summary()
    summary = begin_flow(server, source, impatient_out).summary()
    assert (summary["kept"], summary["fitted"]) == (FLOW_IMAGES, 0)
    for out in (patient_out, impatient_out):
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
