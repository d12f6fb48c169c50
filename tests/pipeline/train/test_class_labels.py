"""Labels that count from anywhere: what a generator is conditioned on, is asked for and writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch

from data_schemas.errors import CheckpointError, JobError, StoppedError
from data_schemas.records import SourceRecord
from data_schemas.stores.open import open_store
from models.checkpoint import load_checkpoint, save_checkpoint
from models.diffusion.objectives import build_objective
from pipeline.evaluate import feature_training
from pipeline.export.onnx import _metadata
from pipeline.sample.job import SampleJob
from pipeline.sample.known_parts import Kept
from pipeline.sample.run import Run, load_run
from pipeline.sample.sample import labels_for, sample
from pipeline.train import loop as train_loop
from pipeline.train.class_labels import ClassLabels
from pipeline.train.loader import Loader
from pipeline.train.rows import TrainingRows
from pipeline.train.state import continue_job
from pipeline.train.train import train
from tests.pipeline.encode.fakes import ArrayImages, pictures
from tests.pipeline.encode.fakes import run as encode
from tests.pipeline.training_runs import job_of, trained

LABELS = (1, 3, 2_000_000_000)
NAMES = ("nothing", "boat", "nowhere", "car", "nobody")
FEW = {"steps": 2, "every": 2, "batch": 4}


def store_of(path: Path, labels: tuple[int, ...] = LABELS) -> Path:
    source = ArrayImages(pictures(24))
    source.labels = {name: labels[i % len(labels)] for i, name in enumerate(source.labels)}
    source.record = SourceRecord(name="arrays", label_names=NAMES)
    encode(path, source, block_rows=64)
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return store_of(tmp_path_factory.mktemp("stores") / "a.zarr")


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("runs") / "run"
    trained(store, out, **FEW)
    return load_run(out, device="cpu")


def ten_classes(labels: ClassLabels) -> Run:
    """As much of a generator as the choice of labels looks at."""
    objective = build_objective("flow-clean", classes=10)
    guidable = lambda *_, **__: None  # noqa: E731
    return cast(Run, SimpleNamespace(objective=objective, labels=labels, path=Path("run"), require_guidable=guidable))


def test_a_class_for_each_label_that_occurs() -> None:
    found = ClassLabels.occurring(np.array([7, -1, 3, 7, 100], np.int32), NAMES)
    assert found.numbers == (3, 7, 100)
    assert found.classes(np.array([100, -1, 3])).tolist() == [2, -1, 0]
    assert found.unknown(np.array([4, 100, -1, 101, 4])) == (4, 101)
    with pytest.raises(JobError, match=r"Labels 4 \(nobody\)\. Allowed: labels 3 \(car\), 7, 100"):
        found.classes(np.array([4]))
    assert [found.find(text) for text in ("car", "3")] == [3, 3]
    assert [found.find(text) for text in ("nobody", "4", "-1", "9" * 5000)] == [None] * 4
    assert not found.plain
    assert ClassLabels.occurring(np.array([1, 0])).plain


@pytest.mark.slow
def test_only_labels_that_occur_are_conditioned_on_and_sampled(store: Path, run: Run, tmp_path: Path) -> None:
    assert run.labels == ClassLabels(LABELS, NAMES)
    assert run.spec.classes == run.objective.classes == 3
    assert "| labels | 3: 1, 3, 2000000000 |" in (run.path / "card.md").read_text()
    result = sample(run, SampleJob(tmp_path / "out", number=7, evaluations=1))
    assert result.labels == (1, 1, 1, 3, 3, LABELS[2], LABELS[2])
    assert result.store is not None
    with open_store(result.store) as written:
        assert written.read(["label"])["label"].tolist() == list(result.labels)
        assert written.header.source.label_names == NAMES
    for given, label in (("car", 3), ("3", 3), ("2000000000", LABELS[2])):
        assert set(labels_for(run, SampleJob(tmp_path, number=2, label=given)).tolist()) == {label}
    for given in ("nowhere", "0", "2"):
        with pytest.raises(JobError, match=r"Allowed: 1, 3, 2000000000, all, none, boat, car"):
            labels_for(run, SampleJob(tmp_path, label=given))


@pytest.mark.slow
def test_batches_hold_the_classes_of_the_labels(store: Path, tmp_path: Path) -> None:
    with open_store(store) as opened:
        rows = TrainingRows(opened, job_of(store, tmp_path / "run"))
        loader = Loader(
            rows, rows.fitted_representation(), device=torch.device("cpu"), batch=24, seed=0, most_bytes=2**30
        )
        batch = loader.batch(0)
        loader.close()
        stored = opened.read(["label"], batch.rows.tolist())["label"]
    assert batch.label is not None
    assert [LABELS[index] for index in batch.label.tolist()] == stored.tolist()


@pytest.mark.slow
def test_a_stored_image_keeps_its_label_and_one_that_was_not_learned_is_refused(run: Run, tmp_path: Path) -> None:
    known = Kept(torch.zeros(1), torch.zeros(1), np.zeros(1), 3, ())
    job = SampleJob(tmp_path, number=2)
    assert labels_for(run, job, known).tolist() == [3, 3]
    assert labels_for(run, job, replace(known, label=-1)).tolist() == [-1, -1]
    with pytest.raises(JobError, match=r"label 2 \(nowhere\).*did not learn"):
        labels_for(run, job, replace(known, label=2))


@pytest.mark.parametrize("labels", [tuple(range(10)), tuple(range(100, 110))])
@pytest.mark.parametrize("number", [1, 9, 10, 11, 12, 64, 100, 999])
def test_classes_are_drawn_equally_often(number: int, labels: tuple[int, ...]) -> None:
    drawn = labels_for(ten_classes(ClassLabels(labels)), SampleJob(Path("out"), number=number))
    counts = [int((drawn == label).sum()) for label in labels]
    assert sum(counts) == number
    assert max(counts) - min(counts) <= 1
    assert drawn.tolist() == sorted(drawn.tolist()), "one class after the other"


def test_a_classifier_has_an_answer_for_each_label_that_occurs(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_training, "_STEPS", 1)
    with open_store(store) as opened:
        found = feature_training.load_or_train_features("classifier", opened, folder=tmp_path)
    assert found.facts["answers"] == 3
    assert found.network.head.out_features == 3


@pytest.mark.slow
def test_a_graph_says_what_its_classes_are_called(run: Run) -> None:
    class Pixels:
        shape, mean, scale = (3, 8, 8), torch.zeros(3), torch.ones(3)

    facts = _metadata(run, cast(Any, Pixels()))
    assert (facts["classes"], facts["labels"], facts["label_names"]) == (3, list(LABELS), ["boat", "car", ""])


@pytest.mark.slow
def test_a_checkpoint_whose_labels_cannot_be_is_refused(run: Run, tmp_path: Path) -> None:
    held = load_checkpoint(run.path / "model.safetensors")
    for wrong in ([1, 3], [3, 1, 5], [1, 1, 3], [-1, 1, 3], ["a", "b", "c"], 3):
        save_checkpoint(tmp_path / "model.safetensors", held.model, {**held.config, "labels": wrong}, held.tensors)
        with pytest.raises(CheckpointError, match="what its 3 classes stand for"):
            load_run(tmp_path)


def _aged(run: Path) -> None:
    """Makes a run look as if it had been trained before labels were kept."""
    for name in sorted({"model.safetensors", "state.safetensors"} & {path.name for path in run.iterdir()}):
        held = load_checkpoint(run / name)
        config = {key: value for key, value in held.config.items() if key not in ("labels", "collected")}
        save_checkpoint(run / name, held.model, config, held.tensors)


@pytest.mark.slow
def test_older_runs_are_read_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_of(tmp_path / "a.zarr", (0, 3))
    job = job_of(store, tmp_path / "run", **FEW)
    # Grids of samples take most of the time of so short a training.
    monkeypatch.setattr(train_loop, "sample_preview", lambda *_: np.zeros((1, 8, 8, 3), np.uint8))
    with monkeypatch.context() as patch:
        # They had a class for every number up to the last name.
        patch.setattr(ClassLabels, "occurring", lambda _labels, names: ClassLabels(tuple(range(5)), tuple(names)))
        with pytest.raises(StoppedError):
            train(job, should_stop=lambda: True)
    _aged(tmp_path / "run")
    assert train(continue_job(tmp_path / "run", {}), resume=True).steps_taken == 1
    assert train(continue_job(tmp_path / "run", {"steps": 3}), resume=True).steps_taken == 1
    _aged(tmp_path / "run")
    old = load_run(tmp_path / "run", device="cpu")
    assert old.labels == ClassLabels((0, 1, 2, 3, 4), NAMES)
    assert labels_for(old, SampleJob(tmp_path, number=1, label="nowhere")).tolist() == [2]
    assert json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])["step"] == 3
