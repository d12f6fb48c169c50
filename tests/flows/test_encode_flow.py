"""The flow on a temporary server: store, artifact, retries, failures, resuming, the quality gate."""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    TaskRunFilter,
    TaskRunFilterName,
    TaskRunFilterState,
    TaskRunFilterStateName,
)

import flows.encode as flow_module
import flows.shard_runs as shard_module
from data_schemas.errors import (
    JobError,
    QualityError,
    SplatSpaceError,
    StoppedError,
    StoreLockedError,
    StoreMismatchError,
)
from data_schemas.records import RowBlock, RowState
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.locks import WriterLock
from data_schemas.stores.open import open_store
from flows.artifacts.history import read_history
from flows.encode import encode as encode_flow
from pipeline.encode import plan as planning
from pipeline.encode.compute.local import LocalCompute
from pipeline.encode.job import resolve_job
from pipeline.encode.records import BlockSummary, EncodePlan, EncodeSummary
from pipeline.encode.run import encode as encode_plainly
from pipeline.sources import open_source
from tests.faults.stores_alike import assert_alike

FEW: dict[str, Any] = {"limit": 56, "gaussians": 12, "steps": 2, "workers": 2}
"""56 built-in images are three blocks of ``BLOCK_ROWS``."""

BLOCK_ROWS = 24

COMPARED = ("splats", "psnr", "label", "source_id", "state")


def run_flow(dataset: str, out: Path, **options: Any) -> EncodeSummary:
    summary = encode_flow(dataset, str(out), **options)
    assert isinstance(summary, EncodeSummary)
    return summary


def rows_of(path: Path) -> dict[str, Any]:
    with open_store(path) as store:
        return store.read(COMPARED)


def artifact_text(key: str) -> str:
    """The newest artifact of that key."""
    chosen = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
    with get_client(sync_client=True) as client:
        (artifact,) = client.read_latest_artifacts(artifact_filter=chosen)
    return str(artifact.data)


def progress_values() -> list[float]:
    """Progress artifacts, oldest first."""
    with get_client(sync_client=True) as client:
        found = client.read_artifacts()
    return [float(str(one.data)) for one in sorted(found, key=lambda one: str(one.created)) if one.type == "progress"]


@pytest.fixture(scope="module", autouse=True)
def _small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(planning, "_block_rows", lambda *_, **__: BLOCK_ROWS)
        yield


@pytest.fixture(scope="module")
def plain_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Store of the same job without Prefect."""
    path = tmp_path_factory.mktemp("plain") / "demo.zarr"
    encode_plainly(resolve_job("demo", path, **FEW))
    return path


@pytest.fixture(scope="module")
def plain_rows(plain_store: Path) -> dict[str, Any]:
    """Its rows."""
    return rows_of(plain_store)


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_module, "RETRY_DELAYS", (0.0, 0.0))


class FaultyShards:
    """``LocalCompute.encode`` that raises ``error`` for block ``broken`` the first ``times`` times."""

    def __init__(self, error: Exception, *, broken: int, times: int) -> None:
        self.error, self.broken, self.left = error, broken, times
        self.calls: list[tuple[int, ...]] = []
        self.original = LocalCompute.encode

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def encode(compute: LocalCompute, blocks: Sequence[int], **options: Any) -> BlockSummary:
            self.calls.append(tuple(blocks))
            if self.broken in blocks and self.left > 0:
                self.left -= 1
                raise self.error
            return self.original(compute, blocks, **options)

        monkeypatch.setattr(LocalCompute, "encode", encode)


def assert_same_rows(path: Path, expected: dict[str, Any]) -> None:
    found = rows_of(path)
    for name in COMPARED:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "no_delay")
class TestFlow:
    def test_refine_fits_twice(self, tmp_path: Path) -> None:
        out = tmp_path / "demo.zarr"
        assert run_flow("demo", out, limit=60, gaussians=6, steps=4, workers=2, refine="regressed").fitted == 60
        with open_store(out) as store:
            assert store.header.refine == "regressed"
        with open_store(tmp_path / "demo-refine" / "first.zarr") as store:
            assert store.header.refine is None

    def test_the_first_fit_of_a_refined_run_shows_its_progress_and_stops_when_asked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        seen: list[str] = []

        class Watched(shard_module.ProgressArtifact):
            def __init__(self, plan: EncodePlan) -> None:
                super().__init__(plan)
                self.store = plan.store.name

            def block_done(self, summary: BlockSummary) -> None:
                super().block_done(summary)
                seen.append(self.store)
                runs[0].stop.set()

        class Kept(flow_module.ShardRuns):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                runs.append(self)

        runs: list[Any] = []
        monkeypatch.setattr(shard_module, "ProgressArtifact", Watched)
        monkeypatch.setattr(flow_module, "ShardRuns", Kept)
        out = tmp_path / "demo.zarr"
        before = len(progress_values())
        with pytest.raises(StoppedError):
            run_flow("demo", out, limit=60, gaussians=6, steps=4, workers=2, refine="regressed", images_per_task=8)
        assert set(seen) == {"first.zarr"}
        assert not out.exists()
        with open_store(tmp_path / "demo-refine" / "first.zarr") as store:
            done = int((store.read(["state"])["state"] == RowState.DONE).sum())
            assert 0 < done < 60
            assert [record.images for record in store.header.runs] == [done]
        assert len(progress_values()) == before + 1

    def test_a_run_that_is_cancelled_within_a_block_keeps_its_finished_images(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Watched(shard_module.ProgressArtifact):
            def within_block(self, summary: BlockSummary) -> None:
                super().within_block(summary)
                runs[0].stop.set()  # as the interruption of a cancelled run does

        class Kept(flow_module.ShardRuns):
            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                runs.append(self)

        runs: list[Any] = []
        with monkeypatch.context() as patch:
            patch.setattr(shard_module, "ProgressArtifact", Watched)
            patch.setattr(flow_module, "ShardRuns", Kept)
            patch.setattr("encoders.cpu.engine.images_for_processor", lambda *_, **__: 4)
            out = tmp_path / "demo.zarr"
            few = {"limit": BLOCK_ROWS, "gaussians": 6, "steps": 2, "workers": 1}
            with pytest.raises(StoppedError):
                run_flow("demo", out, **few)
        stored = rows_of(out)
        done = int((stored["state"] == RowState.DONE).sum())
        assert 0 < done < BLOCK_ROWS
        assert np.isfinite(stored["psnr"][stored["state"] == RowState.DONE]).all()
        caplog.clear()
        summary = run_flow("demo", out, **few)
        assert (summary.kept, summary.kept + summary.fitted + summary.reused) == (done, BLOCK_ROWS)
        assert "nothing to do" not in caplog.text
        caplog.clear()
        assert run_flow("demo", out, **few).kept == BLOCK_ROWS
        assert f"nothing to do: all {BLOCK_ROWS} images are in {out}, unchanged" in caplog.text

    def test_images_only_have_no_report_and_no_floor(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        out = tmp_path / "demo.zarr"
        with pytest.raises(JobError, match="min_psnr of a store of images only"):
            run_flow("demo", out, limit=8, gaussians=0, workers=1, min_psnr=1.0)
        assert not out.exists()
        caplog.clear()
        summary = run_flow("demo", out, limit=8, gaussians=0, workers=1)
        assert (summary.fitted + summary.reused, summary.report) == (8, None)
        assert not (tmp_path / "demo-report").exists()
        assert "the store holds images only" in caplog.text
        assert "8 images: 8 fitted, no error" in caplog.text
        assert not any(record.levelname in ("WARNING", "ERROR") for record in caplog.records)
        with open_store(out) as store:
            assert store.header.gaussians == 0
            assert store.read(["image"])["image"].shape == (8, 32, 32, 3)

    def test_it_writes_the_store_of_a_plain_run_and_its_report(
        self, tmp_path: Path, plain_rows: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened: list[str] = []

        def counted(dataset: str, **options: Any) -> Any:
            opened.append(dataset)
            return open_source(dataset, **options)

        monkeypatch.setattr("pipeline.encode.inputs.open_source", counted)
        out = tmp_path / "demo.zarr"
        summary = run_flow("demo", out, images_per_task=BLOCK_ROWS, min_psnr=5.0, min_psnr_p1=5.0, **FEW)
        assert opened == ["demo"], "the source is opened once for all tasks"
        assert (summary.images, summary.fitted + summary.reused, len(summary.failed)) == (56, 56, 0)
        assert_same_rows(out, plain_rows)
        report = tmp_path / "demo-report" / "report.html"
        assert summary.report == report
        assert report.is_file()
        page = artifact_text("psnr-demo")
        assert "56 of 56" in page
        shown = MarkdownIt().enable("table").render(page)
        for place in (report, out):
            assert f"<td>{place}</td>" in shown
            assert f"<td>{place.as_uri()}</td>" in shown
        assert "data:image/png;base64," in page
        with open_store(out) as store:
            assert len(store.header.runs) == 1
        with get_client(sync_client=True) as client:
            found = client.read_latest_artifacts()
            entry = read_history(client, "psnr-demo")[-1]
        keys = {artifact.key for artifact in found}
        (described,) = [artifact.description for artifact in found if artifact.key == "psnr-demo"]
        assert described is not None
        assert re.fullmatch(r"\d+\.\d\d dB, p1 \d+\.\d\d, 56 images(, ([+-]\d+\.\d\d dB|unchanged))?", described)
        assert described.startswith(f"{entry.point.psnr:.2f} dB, p1 {entry.point.p1:.2f}, ")
        assert "psnr-demo" in keys
        assert not any(key.startswith("psnr-demo-") for key in keys if key), "one artifact for a set"

    @pytest.mark.parametrize("suffix", [".zarr", ".h5"])
    def test_a_shard_that_fails_once_is_tried_again(
        self, tmp_path: Path, plain_rows: Any, monkeypatch: pytest.MonkeyPatch, suffix: str
    ) -> None:
        faulty = FaultyShards(OSError("the disk went away"), broken=1, times=1)
        faulty.install(monkeypatch)
        out = tmp_path / f"demo{suffix}"
        summary = run_flow("demo", out, images_per_task=BLOCK_ROWS, **FEW)
        assert faulty.calls == [(0,), (1,), (1,), (2,)]
        assert summary.fitted + summary.reused == 56
        assert_same_rows(out, plain_rows)

    def test_a_shard_that_keeps_failing_fails_the_run_after_all_others(
        self, tmp_path: Path, plain_rows: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faulty = FaultyShards(OSError("the disk went away"), broken=1, times=3)
        faulty.install(monkeypatch)
        out = tmp_path / "demo.zarr"
        with pytest.raises(SplatSpaceError) as caught:
            run_flow("demo", out, images_per_task=BLOCK_ROWS, **FEW)
        assert faulty.calls == [(0,), (1,), (1,), (1,), (2,)]
        names = list(plain_rows["source_id"][24:48])
        assert "1 of 3 shards failed after their retries: blocks 1 to 1 (rows 24 to 47): the disk went away" in str(
            caught.value
        )
        assert f"24 ({', '.join(names[:20])} and 4 more)" in str(caught.value)
        assert np.unique(rows_of(out)["state"][24:48]).tolist() == [RowState.EMPTY]
        assert "32 of 56" in artifact_text("psnr-demo")
        summary = run_flow("demo", out, images_per_task=BLOCK_ROWS, **FEW)
        assert summary.kept == 32
        assert_same_rows(out, plain_rows)

    def test_a_retry_counts_no_image_twice(
        self, tmp_path: Path, plain_store: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Blocks 0 and 1 are one shard; its first try writes one of them and fails.
        write_block, failed = SplatStore.write_block, list[int]()

        def broken(store: SplatStore, block: int, rows: RowBlock) -> None:
            if block == 1 and not failed:
                failed.append(block)
                raise OSError(5, "Input/output error")
            write_block(store, block, rows)

        monkeypatch.setattr(SplatStore, "write_block", broken)
        out = tmp_path / "demo.zarr"
        summary = run_flow("demo", out, images_per_task=2 * BLOCK_ROWS, **FEW)
        assert failed == [1]
        assert (summary.images, summary.rows, summary.rows_done) == (56, 56, 56)
        assert (summary.fitted + summary.reused, summary.kept) == (32, 24)
        assert_alike(out, plain_store, images=56)

    def test_a_deleted_store_is_fitted_again(self, tmp_path: Path) -> None:
        out = tmp_path / "demo.zarr"
        few = {"limit": 4, "gaussians": 4, "steps": 1, "workers": 1}
        assert run_flow("demo", out, **few).fitted == 4
        shutil.rmtree(out)
        summary = run_flow("demo", out, **few)
        assert (summary.kept, summary.fitted, summary.rows_done) == (0, 4, 4)
        cached = TaskRunFilter(state=TaskRunFilterState(name=TaskRunFilterStateName(any_=["Cached"])))
        with get_client(sync_client=True) as client:
            assert client.read_task_runs(task_run_filter=cached) == [], "Prefect's cache knows nothing of the store"

    @pytest.mark.parametrize("error", [StoreMismatchError("another K"), StoreLockedError("another run")])
    def test_what_no_retry_mends_is_not_tried_again(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        faulty = FaultyShards(error, broken=0, times=9)
        faulty.install(monkeypatch)
        with pytest.raises(SplatSpaceError, match="another"):
            run_flow("demo", tmp_path / "demo.zarr", limit=4, gaussians=4, steps=1, workers=1)
        assert len(faulty.calls) == 1

    def test_a_bad_option_fails_before_anything_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(JobError, match=r"\.zarr"):
            run_flow("demo", tmp_path / "demo.txt", **FEW)
        with pytest.raises(JobError, match="one writer"):
            run_flow("demo", tmp_path / "demo.h5", compute="dask", **FEW)
        monkeypatch.setenv("SPLATSPACE_ROOTS", str(tmp_path / "allowed"))
        with pytest.raises(JobError, match=r"out '.*demo\.zarr' lies outside"):
            run_flow("demo", tmp_path / "allowed" / ".." / "demo.zarr", **FEW)
        with pytest.raises(JobError, match=r"dataset '.*' lies outside"):
            run_flow(str(tmp_path), tmp_path / "allowed" / "demo.zarr", **FEW)
        assert list(tmp_path.iterdir()) == []

    def test_a_second_run_on_a_store_is_told_who_writes_it(self, tmp_path: Path) -> None:
        out = tmp_path / "demo.zarr"
        run_flow("demo", out, limit=4, gaussians=4, steps=1, workers=1)
        lock = WriterLock(out)
        try:
            with pytest.raises(StoreLockedError, match=r"process \d+ on "):
                run_flow("demo", out, limit=4, gaussians=4, steps=1, workers=1)
        finally:
            lock.release()

    def test_one_bad_image_is_named_and_the_rest_is_encoded(self, tmp_path: Path) -> None:
        nasty = "<img src=x onerror=alert(1)>.png"
        folder = tmp_path / "photos"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for number in range(9):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / nasty).write_bytes((folder / "0.png").read_bytes()[:60])
        summary = run_flow(str(folder), tmp_path / "other.zarr", gaussians=4, steps=1, workers=1, min_psnr=1.0)
        assert (summary.fitted, len(summary.failed)) == (9, 1)
        assert summary.failed[0].source_id == nasty
        page = artifact_text("psnr-photos")
        assert "9 of 10" in page
        assert summary.report is not None
        report = summary.report.read_text()
        for shown in (report, MarkdownIt("commonmark", {"html": True}).enable("table").render(page)):
            assert "&lt;img src=x onerror=alert(1)&gt;.png" in shown
            assert "<img src=x" not in shown

    def test_a_report_that_cannot_be_made_does_not_fail_the_run_but_for_its_gate(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(flow_module, "build_report", broken)
        summary = run_flow("demo", tmp_path / "demo.zarr", limit=4, gaussians=4, steps=1, workers=1)
        assert summary.fitted + summary.reused == 4
        assert summary.report is None
        assert any("report was not made" in record.getMessage() for record in caplog.records)
        with pytest.raises(QualityError, match="PSNR of the mean error is unknown"):
            run_flow("demo", tmp_path / "demo.zarr", limit=4, gaussians=4, steps=1, workers=1, min_psnr=1.0)

    def test_a_set_that_misses_its_quality_fails_after_everything_is_written(self, tmp_path: Path) -> None:
        out = tmp_path / "demo.zarr"
        few = {"limit": 8, "gaussians": 4, "steps": 1, "workers": 1}
        with pytest.raises(QualityError) as caught:
            run_flow("demo", out, min_psnr=70.0, min_psnr_p1=60.0, **few)
        report = json.loads((tmp_path / "demo-report" / "report.json").read_text())
        message = str(caught.value)
        assert f"PSNR of the mean error is {report['quality']['of_mean_error']:.2f} dB, below 70.00 dB" in message
        assert f"PSNR of the 1st percentile is {report['quality']['p1']:.2f} dB, below 60.00 dB" in message
        assert str(out) in message
        assert str(tmp_path / "demo-report" / "report.html") in message
        assert (rows_of(out)["state"] == RowState.DONE).all()
        assert "8 of 8" in artifact_text("psnr-demo")

    def test_a_changed_setting_makes_a_version_and_mixes_no_rows(self, tmp_path: Path) -> None:
        out = tmp_path / "demo.zarr"
        few = {"limit": 4, "steps": 1, "workers": 1, "versions": True}
        run_flow("demo", out, gaussians=4, **few)
        before = rows_of(out)
        summary = run_flow("demo", out, gaussians=5, **few)
        assert summary.store == tmp_path / "demo.v2.zarr"
        assert summary.report == tmp_path / "demo.v2-report" / "report.html"
        assert "demo.v2.zarr" in artifact_text("psnr-demo")
        assert_same_rows(out, before)
        assert run_flow("demo", out, gaussians=5, **few).kept == 4
        with pytest.raises(StoreMismatchError):
            run_flow("demo", out, gaussians=5, **{**few, "versions": False})

    def test_a_second_run_keeps_everything_and_each_run_has_few_tasks(self, tmp_path: Path) -> None:
        out = tmp_path / "demo.h5"
        run_flow("demo", out, **FEW)
        before = rows_of(out)
        summary = run_flow("demo", out, **FEW)
        assert (summary.kept, summary.fitted) == (56, 0)
        assert_same_rows(out, before)
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=["blocks 0 to 2"])))
        assert len(runs) >= 2

    def test_shards_of_a_compute_with_slots_run_beside_each_other(
        self, tmp_path: Path, plain_rows: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        meeting = threading.Barrier(2, timeout=300)
        original = LocalCompute.encode
        first = iter([True, True])

        def encode(compute: LocalCompute, blocks: Sequence[int], **options: Any) -> BlockSummary:
            if next(first, False):
                meeting.wait()  # breaks where no second shard is under way
            return original(compute, blocks, **options)

        monkeypatch.setattr(LocalCompute, "encode", encode)
        monkeypatch.setattr(LocalCompute, "slots", 2)
        out = tmp_path / "demo.zarr"
        assert run_flow("demo", out, images_per_task=BLOCK_ROWS, **FEW).fitted > 0
        assert_same_rows(out, plain_rows)
        assert progress_values()[-1] == 100.0

    def test_dask_workers_write_the_same_store(self, tmp_path: Path, plain_rows: Any) -> None:
        out = tmp_path / "demo.zarr"
        summary = run_flow("demo", out, compute="dask", images_per_task=BLOCK_ROWS, **FEW)
        assert summary.fitted + summary.reused == 56
        assert_same_rows(out, plain_rows)
