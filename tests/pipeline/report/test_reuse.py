"""A report is taken again only where it says what the store would."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from data_schemas.records import RowState
from data_schemas.stores.open import open_store
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.report import ReportSummary, build_report
from pipeline.report.build import current_report


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of ``place``, a folder with a store and its report, which says where the store is."""
    place = tmp_path_factory.mktemp("reuse") / "place"
    encode(resolve_job("demo", place / "demo.zarr", limit=40, gaussians=4, steps=1, workers=1))
    with open_store(place / "demo.zarr") as opened:
        built = build_report(opened, place / "report")
        assert current_report(opened, place / "report") == built
    return Path(shutil.copytree(place, place.with_name("kept")))


@pytest.fixture
def store(kept: Path) -> Path:
    """A store with its report, as they were made."""
    place = kept.with_name("place")
    shutil.rmtree(place)
    shutil.copytree(kept, place)
    return place / "demo.zarr"


def current(store: Path) -> ReportSummary | None:
    with open_store(store) as opened:
        return current_report(opened, store.parent / "report")


@pytest.mark.slow
def test_the_report_of_an_unchanged_store_is_taken_as_it_is(store: Path) -> None:
    first = current(store)
    assert first is not None
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in (store.parent / "report").iterdir()}
    assert len(before) == 4
    encode(resolve_job("demo", store, limit=40, gaussians=4, steps=1, workers=1))  # fits nothing
    assert current(store) == first
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in before} == before


@pytest.mark.slow
def test_without_a_report_there_is_none(store: Path) -> None:
    shutil.rmtree(store.parent / "report")
    assert current(store) is None


@pytest.mark.slow
def test_new_images_make_it_old(store: Path) -> None:
    assert current(store) is not None
    encode(resolve_job("demo", store, limit=41, gaussians=4, steps=1, workers=1))
    assert current(store) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "change", [{"psnr": 12.5}, {"ssim": 0.5}, {"label": -1}, {"dead": 4}, {"state": RowState.FAILED}]
)
def test_a_changed_row_makes_it_old_even_where_no_run_says_so(store: Path, change: dict[str, Any]) -> None:
    assert current(store) is not None
    with open_store(store, "a") as opened:  # as a run leaves it that was killed before its end
        rows = opened.read_block(0)
        for name, value in change.items():
            getattr(rows, name)[7] = value
        opened.write_block(0, rows)
    assert current(store) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["report.json", "report.html", "panel.png", "images.npz"])
def test_a_report_that_is_not_whole_is_made_again(store: Path, name: str) -> None:
    (store.parent / "report" / name).unlink()
    assert current(store) is None


@pytest.mark.slow
def test_a_report_that_somebody_changed_is_made_again(store: Path) -> None:
    path = store.parent / "report" / "report.json"
    assert current(store) is not None
    content = json.loads(path.read_text())
    content["quality"]["of_mean_error"] += 1
    path.write_text(json.dumps(content))
    assert current(store) is None
    path.write_text("{")
    assert current(store) is None
