"""A report is taken again only where it says what the store would."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_schemas.records import RowState
from data_schemas.stores import open_store
from pipeline.encode import encode
from pipeline.jobs import resolve_job
from pipeline.report import ReportSummary, build_report
from pipeline.report.reuse import current_report


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "demo.zarr"
    encode(resolve_job("demo", path, limit=40, gaussians=4, steps=1, workers=1))
    return path


def built(store: Path) -> ReportSummary:
    with open_store(store) as opened:
        return build_report(opened, store.parent / "report")


def current(store: Path) -> ReportSummary | None:
    with open_store(store) as opened:
        return current_report(opened, store.parent / "report")


@pytest.mark.slow
def test_the_report_of_an_unchanged_store_is_taken_as_it_is(store: Path) -> None:
    assert current(store) is None
    first = built(store)
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (store.parent / "report").iterdir()}
    assert len(before) == 3
    assert current(store) == first
    encode(resolve_job("demo", store, limit=40, gaussians=4, steps=1, workers=1))  # fits nothing
    assert current(store) == first
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


@pytest.mark.slow
def test_new_images_make_it_old(store: Path) -> None:
    built(store)
    encode(resolve_job("demo", store, limit=41, gaussians=4, steps=1, workers=1))
    assert current(store) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"psnr": 12.5}, {"ssim": 0.5}, {"label": -1}, {"dead": 4}, {"state": RowState.FAILED}]
)
def test_a_changed_row_makes_it_old_even_where_no_run_says_so(store: Path, change: dict[str, Any]) -> None:
    built(store)
    with open_store(store, "a") as opened:  # as a run leaves it that was killed before its end
        rows = opened.read_block(0)
        for name, value in change.items():
            getattr(rows, name)[7] = value
        opened.write_block(0, rows)
    assert current(store) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report.json", "report.html", "panel.png"])
def test_a_report_that_is_not_whole_is_made_again(store: Path, name: str) -> None:
    (built(store).json_path.parent / name).unlink()
    assert current(store) is None


@pytest.mark.slow
def test_a_report_that_somebody_changed_is_made_again(store: Path) -> None:
    path = store.parent / "report" / "report.json"
    built(store)
    content = json.loads(path.read_text())
    content["quality"]["of_mean_error"] += 1
    path.write_text(json.dumps(content))
    assert current(store) is None
    path.write_text("{")
    assert current(store) is None
