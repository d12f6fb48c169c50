"""Flow ``report``: from a store to its report, artifact and gate."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from data_schemas.errors import JobError, QualityError, StoreError
from flows.report import report as report_flow
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.report import read_report

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of another name than its data set."""
    path = tmp_path_factory.mktemp("store") / "small.h5"
    encode(resolve_job("demo", path, limit=12, gaussians=4, steps=1, workers=1))
    return path


def pages() -> list[str]:
    """What was published of the set, the newest last."""
    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=["psnr-demo"]))
    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=chosen)
    return [str(artifact.data) for artifact in sorted(found, key=lambda artifact: str(artifact.created))]


def test_it_makes_the_report_again_and_continues_the_history_of_the_set(store: Path) -> None:
    before = store.read_bytes()
    published = len(pages())
    folder = store.with_name("small-report")
    assert report_flow(str(store)) == folder / "report.html"
    (folder / "report.html").unlink()
    assert report_flow(str(store)) == folder / "report.html"
    assert (folder / "report.html").is_file()
    assert read_report(folder / "report.json").images.done == 12
    assert len(pages()) == published + 2
    assert "12 of 12" in pages()[-1]
    assert (folder / "report.html").as_uri() in pages()[-1].replace("\\", "").replace("&#58;", ":")
    assert store.read_bytes() == before


def test_the_report_goes_where_it_is_wanted(store: Path, tmp_path: Path) -> None:
    assert report_flow(str(store), out=str(tmp_path / "here")) == tmp_path / "here" / "report.html"
    written = sorted(path.name for path in (tmp_path / "here").iterdir())
    assert written == ["images.npz", "panel.png", "report.html", "report.json"]


def test_of_several_versions_the_newest_is_taken(store: Path, tmp_path: Path) -> None:
    for name in ("a.h5", "a.v2.h5", "a.v3.h5"):
        shutil.copy(store, tmp_path / name)
    assert report_flow(str(tmp_path / "a.h5")) == tmp_path / "a.v3-report" / "report.html"
    assert report_flow(str(tmp_path / "a.h5"), newest=False) == tmp_path / "a-report" / "report.html"
    assert report_flow(str(tmp_path / "a.v2.h5")) == tmp_path / "a.v2-report" / "report.html"


def test_the_gate_fails_the_run_after_the_report_is_written(store: Path, tmp_path: Path) -> None:
    with pytest.raises(QualityError, match=r"below 60\.00 dB \(min_psnr_p1\)"):
        report_flow(str(store), out=str(tmp_path), min_psnr=1.0, min_psnr_p1=60.0)
    assert (tmp_path / "report.html").is_file()


def test_it_stays_inside_the_roots(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPLATSPACE_ROOTS", str(store.parent))
    report_flow(str(store))
    with pytest.raises(JobError, match=r"out '.*' lies outside"):
        report_flow(str(store), out=str(tmp_path / "here"))
    assert not (tmp_path / "here").exists()
    monkeypatch.setenv("SPLATSPACE_ROOTS", str(store))
    with pytest.raises(JobError, match=r"report '.*small-report' lies outside"):
        report_flow(str(store))
    monkeypatch.setenv("SPLATSPACE_ROOTS", str(tmp_path))
    with pytest.raises(JobError, match=r"store '.*' lies outside"):
        report_flow(str(store))


def test_a_store_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nothing\.zarr"):
        report_flow(str(tmp_path / "nothing.zarr"))
    assert list(tmp_path.iterdir()) == []
