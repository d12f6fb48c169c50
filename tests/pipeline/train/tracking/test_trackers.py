"""Trackers of experiments: what reaches them, that they continue, and that none can fail a training."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from data_schemas.errors import JobError, StoppedError
from pipeline.cli import app
from pipeline.train.state import continue_job
from pipeline.train.tracking.log import read_lines
from pipeline.train.tracking.trackers import mlflow_address
from pipeline.train.train import train
from tests.pipeline.training_runs import job_of, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "a.zarr", count=12)


class FakeWandb(ModuleType):
    """Stands for the package: keeps what it is given."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.started: list[dict[str, Any]] = []
        self.logged: list[tuple[int, dict[str, Any]]] = []
        self.finished = 0
        self.broken_from: int | None = None

    def init(self, **options: Any) -> Any:
        self.started.append(options)
        identifier = options["id"] or f"made-{len(self.started)}"
        return SimpleNamespace(id=identifier, log=self._log, finish=self._finish)

    def _log(self, values: dict[str, Any], *, step: int) -> None:
        if self.broken_from is not None and step >= self.broken_from:
            raise ConnectionError("the server went away")
        self.logged.append((step, values))

    def _finish(self) -> None:
        self.finished += 1

    @staticmethod
    def Image(picture: Image.Image) -> tuple[int, int]:
        return picture.size


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> FakeWandb:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


@pytest.mark.slow
def test_what_is_logged_is_tracked_under_one_name_though_the_training_was_interrupted(
    store: Path, tmp_path: Path, wandb: FakeWandb
) -> None:
    out = tmp_path / "run"
    asked = 0

    def after_four() -> bool:
        nonlocal asked
        asked += 1
        return asked == 4

    with pytest.raises(StoppedError):
        train(job_of(store, out), should_stop=after_four, trackers=["wandb"])
    train(continue_job(out, {}), resume=True, trackers=["wandb", "wandb"])
    first, second = wandb.started
    assert (first["project"], first["name"], first["id"], first["dir"]) == ("splatspace", "run", None, str(out))
    assert (second["id"], second["resume"]) == ("made-1", "allow")
    assert first["config"]["batch"] == 8
    assert json.loads((out / "trackers.json").read_text()) == {"wandb": "made-1"}
    numbers = {step: values for step, values in wandb.logged if "loss" in values}
    for line in read_lines(out / "log.jsonl"):
        assert numbers[line["step"]]["loss"] == line["loss"]
    assert [step for step, values in wandb.logged if "samples" in values] == [3, 6]
    assert wandb.finished == 2


@pytest.mark.slow
def test_a_tracker_that_fails_is_left_out_and_said(
    store: Path, tmp_path: Path, wandb: FakeWandb, caplog: pytest.LogCaptureFixture
) -> None:
    wandb.broken_from = 4
    with caplog.at_level(logging.WARNING, logger="splatspace"):
        summary = train(job_of(store, tmp_path / "run"), trackers=["wandb"])
    assert summary.steps_taken == 6
    assert [line["step"] for line in read_lines(tmp_path / "run" / "log.jsonl")] == [3, 6]
    said = [record.getMessage() for record in caplog.records if "Tracker" in record.getMessage()]
    assert said == ["Tracker wandb is left out from here on, it could not be written: the server went away"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_without_the_extra_nothing_is_begun(
    store: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    options = ["--store", str(store), "--out", str(tmp_path / "run"), "--device", "cpu", "--track", name]
    result = CliRunner(env={"COLUMNS": "300"}).invoke(app, ["train", "splats", *options])
    assert result.exit_code == 2
    assert f"pip install 'splatspace[{name}]'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_an_unknown_one_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--track notebook.*wandb, mlflow"):
        train(job_of(store, tmp_path / "run"), trackers=["notebook"])
    assert not (tmp_path / "run").exists()


TRACKED = """
import sys
from pathlib import Path
from pipeline.train.train import train
from pipeline.train.state import continued_job
from tests.pipeline.training_runs import job_of
store, out, name = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
train(job_of(store, out), trackers=[name])
train(continued_job(out, {"steps": 9}), resume=True, trackers=[name])
"""


def _tracked(name: str, store: Path, out: Path, repository: Path, **environment: str) -> None:
    """In a process of its own: these packages start threads and servers that outlive a test."""
    import os

    finished = subprocess.run(
        [sys.executable, "-c", TRACKED, str(store), str(out), name],
        cwd=repository, env={**os.environ, **environment}, capture_output=True, text=True, check=False, timeout=900,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr
    assert "left out" not in finished.stderr, finished.stderr


@pytest.mark.slow
def test_mlflow_keeps_a_run_in_its_folder(store: Path, tmp_path: Path, repository: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra mlflow is not installed")
    out = tmp_path / "run"
    _tracked("mlflow", store, out, repository)
    client = mlflow.MlflowClient(tracking_uri=mlflow_address(out))
    experiment = client.get_experiment_by_name("splatspace")
    (found,) = client.search_runs([experiment.experiment_id])
    assert (found.info.run_name, found.info.status) == ("run", "FINISHED")
    assert found.data.params["batch"] == "8"
    losses = {metric.step: metric.value for metric in client.get_metric_history(found.info.run_id, "loss")}
    assert losses == pytest.approx({line["step"]: line["loss"] for line in read_lines(out / "log.jsonl")})
    assert len(client.list_artifacts(found.info.run_id, "samples")) == 3


@pytest.mark.slow
def test_wandb_keeps_a_run_offline_in_its_folder(store: Path, tmp_path: Path, repository: Path) -> None:
    pytest.importorskip("wandb", reason="the extra wandb is not installed")
    out = tmp_path / "run"
    _tracked("wandb", store, out, repository, WANDB_MODE="offline", WANDB_SILENT="true")
    assert list((out / "wandb").glob("offline-run-*/*.wandb"))
