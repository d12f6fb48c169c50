"""Ablations: what is typed, which points follow, that they are compared fairly, resumed, and named where they fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from data_schemas.errors import EvaluationError, JobError, ReportError, StoppedError, TrainingError
from data_schemas.stores.open import open_store
from models.checkpoint import read_config
from pipeline.evaluate.ablate import ablate as module
from pipeline.evaluate.ablate.ablate import ablate
from pipeline.evaluate.ablate.job import (
    AblateJob,
    axes_of,
    resolve_ablate_job,
)
from pipeline.evaluate.ablate.points import base_values, default_axes, points_of
from pipeline.evaluate.ablate.report import Ablation, ablation_cells, read_ablation
from pipeline.evaluate.evaluate import evaluate
from pipeline.evaluate.job import EvaluateJob
from pipeline.evaluate.reading import read_evaluation
from pipeline.train.job import TrainJob
from pipeline.train.train import train
from tests.pipeline.training_runs import make_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("brief_features")]

AXES = ("pack=2,3", "gaussians=5", "start=adaptive,adaptive+anchors", "evaluations=3", "ema=no", "covariance=raw")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "a.zarr", count=150)


def job_of(store: Path, out: Path, *axes: str, **options: Any) -> AblateJob:
    few: dict[str, Any] = {
        "steps": 2, "batch": 4, "learning_rate": 0.002, "limit": 140, "images": 66, "evaluations": 2, "device": "cpu",
        "workers": 1,
    }  # fmt: skip
    return resolve_ablate_job(store, out, axes=axes, **{**few, **options})


@pytest.fixture(scope="module")
def done(store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[AblateJob, Ablation]:
    job = job_of(store, tmp_path_factory.mktemp("ablations") / "a", *AXES)
    return job, ablate(job)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("depth=3", "Axis 'depth'"),
        ("pack=two", "Axis 'pack=two'"),
        ("pack=0", "whole numbers from 1"),
        ("pack=", "1 to 64 values"),
        ("objective=guess", "flow-clean, flow-velocity"),
        ("render_loss=-1", "numbers from 0"),
        ("ema=true", "yes, no"),
    ],
)
def test_axes_that_are_none_are_refused(text: str, said: str) -> None:
    with pytest.raises(JobError, match=said):
        axes_of([text])


def test_axes_are_what_was_typed() -> None:
    assert axes_of(["pack=1, 2,2", "objective", "render_loss=0,0.5"]) == {
        "pack": (1, 2),
        "objective": (),
        "render_loss": (0.0, 0.5),
    }
    with pytest.raises(JobError, match="Axis ema twice"):
        axes_of(["ema", "ema=no"])


def test_without_axes_every_one_is_changed_once_around_the_base(store: Path, tmp_path: Path) -> None:
    job = job_of(store, tmp_path / "a", seeds=2)
    with open_store(store) as opened:
        header = opened.header
    job = job.model_copy(update={"axes": default_axes(job, header)})
    points = points_of(job, header, base_values(job, header))
    names = [point.name for point in points]
    assert names[:2] == ["base", "base"]
    assert len({(point.name, point.seed) for point in points}) == len(points)
    assert {name.partition("=")[0] for name in names} == {"base", *job.axes} - {"evaluations"}
    assert "gaussians=6" not in names, "the base is not trained twice"
    assert "start=adaptive+anchors" in names
    one_set = job.model_copy(update={"model": "set"})
    assert set(default_axes(one_set, header)) == set(job.axes) - {"pack", "start"}


def test_a_base_that_draws_has_the_axes_that_a_drawing_leaves(store: Path, tmp_path: Path) -> None:
    job = job_of(store, tmp_path / "a", model="render-dit")
    with open_store(store) as opened:
        header = opened.header
    assert set(default_axes(job, header)) == {"gaussians", "evaluations", "ema"}
    assert base_values(job, header)["normalisation"] == "minmax"
    for axis, said in (
        ("objective=flow-clean,epsilon", "--objective epsilon with model render-dit"),
        ("objective", "Axis objective of model render-dit.*gaussians, evaluations, ema"),
        ("normalisation=whitened", "--normalisation whitened with model render-dit"),
    ):
        with pytest.raises(JobError, match=said):
            ablate(job_of(store, tmp_path / "a", "ema=no", axis, model="render-dit"))
    assert not (tmp_path / "a").exists()


def test_every_choice_has_a_row_beside_the_base(done: tuple[AblateJob, Ablation]) -> None:
    job, found = done
    assert [(row.axis, row.value, row.base) for row in found.rows] == [
        ("pack", "2", True),
        ("pack", "3", False),
        ("gaussians", "5", False),
        ("gaussians", "6", True),
        ("start", "transport", True),
        ("start", "adaptive", False),
        ("start", "adaptive+anchors", False),
        ("evaluations", "2", True),
        ("evaluations", "3", False),
        ("ema", "yes", True),
        ("ema", "no", False),
        ("covariance", "matrix_log", True),
        ("covariance", "raw", False),
    ]
    base = {row.fid for row in found.rows if row.base}
    assert len(base) == 1
    # All covariances of this store are alike: there the network learns the same in every form.
    changed = [row for row in found.rows if not row.base and row.axis != "covariance"]
    assert all(row.fid is not None and row.fid not in base for row in changed)
    config = read_config(job.out / "points" / "covariance=raw" / "seed-0" / "run" / "model.safetensors")
    assert config["representation"]["covariance"] == "raw"
    assert config["job"]["learning_rate"] == 0.002
    pack, other = found.of("pack")
    assert pack.gflop is not None
    assert other.gflop is not None
    assert other.gflop < pack.gflop
    by_evaluations = found.of("evaluations")
    assert by_evaluations[1].tflop == pytest.approx(1.5 * (by_evaluations[0].tflop or 0))
    assert (found.images, found.n, found.steps) == (140, 66, 2)


def test_all_points_are_compared_with_the_same_originals_in_the_same_features(done: tuple[AblateJob, Ablation]) -> None:
    job, found = done
    evaluations = [read_evaluation(path.parent) for path in job.out.glob("points/*/*/evaluation/evaluation.json")]
    assert len(evaluations) == 7
    assert {evaluation.features.label for evaluation in evaluations} == {found.features}
    assert len({evaluation.real_floor.fid for evaluation in evaluations}) == 1
    assert {evaluation.reference.finished for evaluation in evaluations} == {140}
    with open_store(job.out / "stores" / "k5-transport.zarr") as opened:
        assert (len(opened), opened.header.gaussians, opened.header.start) == (140, 5, "transport")


def test_its_files_say_the_same(done: tuple[AblateJob, Ablation]) -> None:
    job, found = done
    assert read_ablation(job.out) == found
    text = (job.out / "ablation.md").read_text()
    for row in found.rows:
        assert "| " + " | ".join(ablation_cells(row)) + " |" in text
    with Image.open(job.out / "ablation.png") as picture:
        assert picture.width > 600
        assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 10


def test_finished_points_are_not_run_again_and_new_ones_are_added(
    done: tuple[AblateJob, Ablation], store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, found = done
    trained: list[str] = []

    def counted(planned: TrainJob, **options: Any) -> Any:
        trained.append(planned.out.parent.parent.name)
        return train(planned, **options)

    monkeypatch.setattr(module, "train", counted)
    assert ablate(job).rows == found.rows
    assert trained == []
    more = ablate(job_of(store, job.out, *AXES, "normalisation=minmax"))
    assert trained == ["normalisation=minmax"]
    assert more.rows[: len(found.rows)] == found.rows
    again = ablate(job_of(store, job.out, "evaluations=4"))
    assert trained == ["normalisation=minmax"], "the base is sampled once more, not trained"
    assert [row.value for row in again.rows] == ["2", "4"]


def test_an_interrupted_one_goes_on_in_the_middle_of_a_training(
    done: tuple[AblateJob, Ablation], store: Path, tmp_path: Path
) -> None:
    _, found = done
    job = job_of(store, tmp_path / "a", "pack=3")
    asked = 0

    def in_the_second_training() -> bool:
        nonlocal asked
        asked += (job.out / "points" / "pack=3" / "seed-0" / "run" / "state.json").exists()
        return asked > 0

    with pytest.raises(StoppedError, match="step 1 of 2"):
        ablate(job, should_stop=in_the_second_training)
    assert json.loads((job.out / "points" / "pack=3" / "seed-0" / "run" / "state.json").read_text())["step"] == 1
    assert (job.out / "points" / "base" / "seed-0" / "evaluation" / "evaluation.json").exists()
    shares: list[float] = []
    rows = ablate(job, progress=lambda share, _words: shares.append(share)).rows
    assert [row.fid for row in rows] == [row.fid for row in found.of("pack")]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_training_that_fails_is_named_and_the_others_are_run(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_of(store, tmp_path / "a", "ema=no", "pack=3")
    broken = True

    def faulty(planned: TrainJob, **options: Any) -> Any:
        if broken and not planned.ema:
            raise TrainingError("The loss of step 1 is not a number")
        return train(planned, **options)

    monkeypatch.setattr(module, "train", faulty)
    found = ablate(job)
    (failed,) = found.failures
    assert (failed.axis, failed.value, failed.fid, failed.seeds) == ("ema", "no", None, 0)
    assert "not a number" in (job.out / "ablation.md").read_text()
    assert all(row.fid is not None for row in found.of("pack"))
    broken = False
    assert ablate(job).failures == ()


def test_a_base_that_fails_fails_all(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def faulty(*_: Any, **__: Any) -> Any:
        raise TrainingError("The loss of step 1 is not a number")

    monkeypatch.setattr(module, "train", faulty)
    with pytest.raises(TrainingError):
        ablate(job_of(store, tmp_path / "a", "ema=no"))


def test_another_base_needs_another_folder(done: tuple[AblateJob, Ablation], store: Path) -> None:
    job, _ = done
    with pytest.raises(JobError, match=r"holds an ablation with another steps.*steps 2"):
        ablate(job_of(store, job.out, "ema=no", steps=3))


def test_a_folder_whose_record_is_damaged_is_refused(store: Path, tmp_path: Path) -> None:
    (tmp_path / "base.json").write_text("{")
    with pytest.raises(JobError, match=r"base\.json cannot be read"):
        ablate(job_of(store, tmp_path, "ema=no"))


def test_what_cannot_be_trained_is_refused_before_anything_is(store: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="Axis pack of model set"):
        ablate(job_of(store, tmp_path / "a", "ema=no", "pack=3", model="set"))
    with pytest.raises(JobError, match="knows no slots"):
        ablate(job_of(store, tmp_path / "a", "start=adaptive+anchors", model="set"))
    with pytest.raises(JobError, match="pixel-unet"):
        job_of(store, tmp_path / "a", model="pixel-unet")
    bare = make_store(tmp_path / "bare.zarr", count=4, images=False)
    with pytest.raises(EvaluationError, match="no source images"):
        ablate(job_of(bare, tmp_path / "a", "ema=no"))
    assert not (tmp_path / "a" / "points").exists()


def test_means_and_spreads_over_seeds(done: tuple[AblateJob, Ablation], store: Path, tmp_path: Path) -> None:
    found = ablate(job_of(store, tmp_path / "a", "evaluations=2", seeds=2))
    (row,) = found.rows
    assert row.seeds == 2
    assert row.fid_spread is not None
    assert row.fid_spread > 0
    scores = [
        read_evaluation(tmp_path / "a" / "points" / "base" / f"seed-{seed}" / "evaluation").headline.fid
        for seed in range(2)
    ]
    assert row.fid == pytest.approx(sum(scores) / 2)
    assert " +/- " in ablation_cells(row)[3]


def test_the_page_of_an_evaluation_shows_it(done: tuple[AblateJob, Ablation], store: Path, tmp_path: Path) -> None:
    job, _ = done
    found = read_ablation(job.out)
    base = EvaluateJob(
        run=job.out / "points" / "base" / "seed-0" / "run", store=str(store), out=tmp_path, images=66, evaluations=2,
        sweep=(), ablation=job.out,
    )  # fmt: skip
    evaluate(base, device="cpu")
    page = (tmp_path / "evaluation.html").read_text()
    assert "What single choices are worth" in page
    assert all(f"<td>{row.value}</td>" in page for row in found.rows if not row.base)


@pytest.mark.parametrize(("content", "said"), [("{", "not an ablation"), ('{"ablation_version": 99}', "version 99")])
def test_a_file_that_is_no_ablation_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "ablation.json").write_text(content)
    with pytest.raises(ReportError, match=said):
        read_ablation(tmp_path)
    with pytest.raises(ReportError, match="cannot be read"):
        read_ablation(tmp_path / "nothing")


def test_the_job_is_kept_as_plain_values(done: tuple[AblateJob, Ablation]) -> None:
    job, _ = done
    content = json.loads((job.out / "base.json").read_text())
    assert (content["steps"], content["rows"], content["store"]["gaussians"]) == (2, 150, 6)
