"""The flow on a temporary server: store, artifacts, retries, failures, resuming."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    TaskRunFilter,
    TaskRunFilterName,
)

import flows.encode as flow_module
from data_schemas.errors import JobError, SplatSpaceError, StoreMismatchError
from data_schemas.records import RowState
from data_schemas.stores import open_store
from flows.encode import IMAGES_PER_TASK, MOST_TASKS, encode_shard, shards
from flows.encode import encode as encode_flow
from pipeline.encode import EncodeSummary
from pipeline.encode import encode as encode_plainly
from pipeline.jobs import resolve_job

FEW: dict[str, Any] = {"limit": 600, "gaussians": 12, "steps": 2, "workers": 2}
"""600 built-in images are three blocks of 256 rows."""

COMPARED = ("splats", "psnr", "label", "source_id", "state")


@pytest.mark.parametrize(("blocks", "rows", "wanted"), [(0, 256, 4096), (1, 1024, 4096), (7, 256, 512), (5000, 8, 16)])
def test_shards_hold_every_block_once_and_are_few(blocks: int, rows: int, wanted: int) -> None:
    groups = shards(range(blocks), rows, wanted)
    assert [block for group in groups for block in group] == list(range(blocks))
    assert len(groups) <= MOST_TASKS
    assert all(len(group) * rows >= wanted for group in groups[:-1])


def test_the_largest_set_gets_coarse_tasks() -> None:
    assert len(shards(range(80), 1024)) == 80 * 1024 // IMAGES_PER_TASK


def run_flow(dataset: str, out: Path, **options: Any) -> EncodeSummary:
    summary = encode_flow(dataset, out, **options)
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


@pytest.fixture(scope="module")
def plain_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Rows of the same job without Prefect."""
    path = tmp_path_factory.mktemp("plain") / "demo.zarr"
    encode_plainly(resolve_job("demo", path, **FEW))
    return rows_of(path)


@pytest.fixture
def no_delay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encode_shard, "retry_delay_seconds", [0.0, 0.0])


class FaultyBlocks:
    """``encode_blocks`` that raises ``error`` for block ``broken`` the first ``times`` times."""

    def __init__(self, error: Exception, *, broken: int, times: int) -> None:
        self.error, self.broken, self.left = error, broken, times
        self.calls: list[tuple[int, ...]] = []
        self.original = flow_module.encode_blocks

    def __call__(self, plan: Any, blocks: Sequence[int]) -> Any:
        self.calls.append(tuple(blocks))
        if self.broken in blocks and self.left > 0:
            self.left -= 1
            raise self.error
        return self.original(plan, blocks)


def assert_same_rows(path: Path, expected: dict[str, Any]) -> None:
    found = rows_of(path)
    for name in COMPARED:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.prefect
@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "no_delay")
class TestFlow:
    def test_it_writes_the_store_of_a_plain_run_and_its_report(self, tmp_path: Path, plain_rows: Any) -> None:
        out = tmp_path / "demo.zarr"
        summary = run_flow("demo", out, images_per_task=256, **FEW)
        assert (summary.images, summary.fitted + summary.reused, len(summary.failed)) == (600, 600, 0)
        assert_same_rows(out, plain_rows)
        assert summary.report == tmp_path / "demo-report" / "report.html"
        assert (tmp_path / "demo-report" / "report.html").is_file()
        page = artifact_text("psnr-demo")
        assert "600 of 600" in page
        assert str(summary.report) in page.replace("\\", "")
        assert "data:image/png;base64," in page
        assert "PSNR of the mean error" in artifact_text("psnr-demo-figures")
        with open_store(out) as store:
            assert len(store.header.runs) == 1

    @pytest.mark.parametrize("suffix", [".zarr", ".h5"])
    def test_a_shard_that_fails_once_is_tried_again(
        self, tmp_path: Path, plain_rows: Any, monkeypatch: pytest.MonkeyPatch, suffix: str
    ) -> None:
        faulty = FaultyBlocks(OSError("the disk went away"), broken=1, times=1)
        monkeypatch.setattr(flow_module, "encode_blocks", faulty)
        out = tmp_path / f"demo{suffix}"
        summary = run_flow("demo", out, images_per_task=256, **FEW)
        assert faulty.calls == [(0,), (1,), (1,), (2,)]
        assert summary.fitted + summary.reused == 600
        assert_same_rows(out, plain_rows)

    def test_a_shard_that_keeps_failing_fails_the_run_after_all_others(
        self, tmp_path: Path, plain_rows: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        faulty = FaultyBlocks(OSError("the disk went away"), broken=1, times=3)
        monkeypatch.setattr(flow_module, "encode_blocks", faulty)
        out = tmp_path / "demo.zarr"
        with pytest.raises(SplatSpaceError, match=r"1 of 3 shards failed.*blocks 1 to 1: the disk went away"):
            run_flow("demo", out, images_per_task=256, **FEW)
        assert faulty.calls == [(0,), (1,), (1,), (1,), (2,)]
        assert np.unique(rows_of(out)["state"][256:512]).tolist() == [RowState.EMPTY]
        assert "344 of 600" in artifact_text("psnr-demo")
        summary = run_flow("demo", out, images_per_task=256, **FEW)
        assert summary.kept == 344
        assert_same_rows(out, plain_rows)

    def test_a_wrong_job_is_not_tried_again(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        faulty = FaultyBlocks(StoreMismatchError("another K"), broken=0, times=9)
        monkeypatch.setattr(flow_module, "encode_blocks", faulty)
        with pytest.raises(SplatSpaceError, match="another K"):
            run_flow("demo", tmp_path / "demo.zarr", **FEW)
        assert len(faulty.calls) == 1

    def test_a_bad_option_fails_before_anything_is_written(self, tmp_path: Path) -> None:
        with pytest.raises(JobError, match=r"\.zarr"):
            run_flow("demo", tmp_path / "demo.txt", **FEW)
        assert list(tmp_path.iterdir()) == []

    def test_one_bad_image_is_named_and_the_rest_is_encoded(self, tmp_path: Path) -> None:
        folder = tmp_path / "photos"
        folder.mkdir()
        rng = np.random.default_rng(0)
        for number in range(9):
            Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{number}.png")
        (folder / "9.png").write_bytes((folder / "0.png").read_bytes()[:60])
        summary = run_flow(str(folder), tmp_path / "photos.zarr", gaussians=4, steps=1, workers=1)
        assert (summary.fitted, len(summary.failed)) == (9, 1)
        assert summary.failed[0].source_id == "9.png"
        page = artifact_text("psnr-photos")
        assert "9 of 10" in page
        assert "9.png" in page

    def test_a_report_that_cannot_be_made_does_not_fail_the_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise OSError("no space left")

        monkeypatch.setattr(flow_module, "build_report", broken)
        summary = run_flow("demo", tmp_path / "demo.zarr", limit=4, gaussians=4, steps=1, workers=1)
        assert summary.fitted + summary.reused == 4
        assert summary.report is None
        assert any("report was not made" in record.getMessage() for record in caplog.records)

    def test_a_second_run_keeps_everything_and_each_run_has_few_tasks(self, tmp_path: Path) -> None:
        out = tmp_path / "demo.h5"
        run_flow("demo", out, **FEW)
        before = rows_of(out)
        summary = run_flow("demo", out, **FEW)
        assert (summary.kept, summary.fitted) == (600, 0)
        assert_same_rows(out, before)
        with get_client(sync_client=True) as client:
            runs = client.read_task_runs(task_run_filter=TaskRunFilter(name=TaskRunFilterName(any_=["blocks 0 to 2"])))
        assert len(runs) >= 2
