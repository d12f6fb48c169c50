"""A generator that is distilled to a few evaluations: trained, stopped, resumed, sampled, evaluated, refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from data_schemas.errors import CheckpointError, JobError, StoppedError, StoreMismatchError
from models.checkpoint import load_checkpoint, save_checkpoint
from models.diffusion.samplers import generators_for
from models.diffusion.samplers import sample as sample_batch
from pipeline.evaluate.evaluate import evaluate
from pipeline.evaluate.job import EvaluateJob
from pipeline.sample.job import SampleJob
from pipeline.sample.run import load_run
from pipeline.sample.sample import sample
from pipeline.train.distil import LEARNING_RATE, STEPS
from pipeline.train.request import resolve_request
from pipeline.train.state import CARD_FILE, MODEL_FILE
from pipeline.train.train import train
from tests.pipeline.encode.fakes import ArrayImages, pictures
from tests.pipeline.encode.fakes import run as encode_pictures
from tests.pipeline.tiny_runs import small_run, small_store

QUICK: dict[str, Any] = {"steps": 2, "batch": 4, "device": "cpu"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    return small_store(folder / "small.zarr")


@pytest.fixture(scope="module")
def teacher(folder: Path, store: Path) -> Path:
    return small_run(store, folder / "teacher", model="render-dit", changes={"patch": 4})


@pytest.fixture(scope="module")
def distilled(folder: Path, teacher: Path) -> Path:
    out = folder / "distilled"
    train(resolve_request("splats", None, out, distil=teacher, evaluations=2, **QUICK))
    return out


@pytest.mark.slow
def test_it_is_a_copy_of_its_teacher_that_samples_in_as_few_evaluations(
    teacher: Path, distilled: Path, tmp_path: Path
) -> None:
    its, run = load_run(teacher, device="cpu"), load_run(distilled, device="cpu")
    settings = run.objective.settings
    assert (settings.evaluations, settings.sampler, settings.distilled) == (2, "euler", 2)
    assert (settings.shown_clean, settings.time_mean) == (
        its.objective.settings.shown_clean,
        its.objective.settings.time_mean,
    )
    assert run.config["job"]["distil"] == teacher.name
    assert run.config["data"] == its.config["data"]
    apart = [
        (mine - weight).abs().max() for mine, weight in zip(run.model.parameters(), its.model.parameters(), strict=True)
    ]
    assert 0 < max(apart) < 4 * LEARNING_RATE, "two small steps away"
    result = sample(run, SampleJob(tmp_path / "out", number=3, splats=True, steps=0))
    assert len(result.pictures) == 3
    wrongs: tuple[dict[str, Any], ...] = ({"evaluations": 4}, {"sampler": "heun", "evaluations": 2})
    for wrong in wrongs:
        with pytest.raises(JobError, match="2 by euler"):
            sample(run, SampleJob(tmp_path / "other", number=3, **wrong))
    assert not (tmp_path / "other").exists()
    card = (distilled / CARD_FILE).read_text()
    assert "euler, 2 evaluations" in card
    assert "| distilled from | teacher |" in card
    with pytest.raises(JobError, match=r"distilled itself.*teacher"):
        resolve_request("splats", None, tmp_path / "again", distil=distilled)


@pytest.mark.slow
def test_its_loss_falls_and_its_samples_come_nearer_to_the_teacher_s(store: Path, tmp_path: Path) -> None:
    teacher = small_run(store, tmp_path / "teacher", model="pixel-dit", classes=False)
    path = teacher / MODEL_FILE
    held = load_checkpoint(path)
    save_checkpoint(path, {name: 3 * weight for name, weight in held.model.items()}, held.config, held.tensors)
    out = tmp_path / "run"
    train(resolve_request("pixels", store, out, distil=teacher, evaluations=1, steps=12, batch=4, device="cpu"))
    its, run = load_run(teacher, device="cpu"), load_run(out, device="cpu")
    shape = (16, *its.representation.shape)

    def samples(of: Any, **options: Any) -> torch.Tensor:
        return sample_batch(of.objective, of.model, shape, generators=generators_for(9, 16), **options)

    wanted, before, after = samples(its), samples(its, evaluations=1), samples(run)
    assert (after - wanted).square().mean() < 0.8 * (before - wanted).square().mean()


@pytest.mark.slow
def test_stopped_it_goes_on_to_the_same_weights(teacher: Path, distilled: Path, tmp_path: Path) -> None:
    out = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        train(resolve_request("splats", None, out, distil=teacher, evaluations=2, **QUICK), should_stop=lambda: True)
    train(resolve_request("splats", None, out, resume=True, distil=str(teacher)), resume=True)
    one, other = load_checkpoint(distilled / MODEL_FILE), load_checkpoint(out / MODEL_FILE)
    assert all(torch.equal(one.model[name], other.model[name]) for name in one.model)
    with pytest.raises(JobError, match="--distil"):
        resolve_request("splats", None, out, resume=True, distil=distilled)


@pytest.mark.slow
@pytest.mark.usefixtures("brief_features")
def test_an_evaluation_measures_the_steps_that_it_has_learnt(
    distilled: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = small_store(tmp_path / "many.zarr", images=140)
    found = evaluate(EvaluateJob(run=distilled, store=str(store), out=tmp_path / "page", images=70), device="cpu")
    assert [scores.evaluations for scores in found.generated] == [2]
    wrongs: tuple[dict[str, Any], ...] = ({"evaluations": 4}, {"sweep": (1,)})
    for wrong in wrongs:
        with pytest.raises(JobError, match="2 by euler"):
            evaluate(
                EvaluateJob(run=distilled, store=str(store), out=tmp_path / "other", images=70, **wrong), device="cpu"
            )


def test_what_is_left_open_is_the_teacher_s_or_the_default(teacher: Path, store: Path, tmp_path: Path) -> None:
    job = resolve_request("splats", None, tmp_path / "run", distil=teacher / MODEL_FILE)
    assert (job.model, job.preset, job.changes) == ("render-dit", "tiny", {"patch": 4})
    assert (job.steps, job.learning_rate, job.evaluations, job.distil) == (STEPS, LEARNING_RATE, 4, teacher)
    assert str(job.store) == str(store)
    assert job.objective_changes["distilled"] == 4
    assert resolve_request("splats", None, tmp_path / "run", distil=teacher, model="render-dit") == job


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "splatdit"}, "--model splatdit with --distil.*render-dit"),
        ({"classes": False}, "--classes False with --distil"),
        ({"pool": 2}, "--changes.*with --distil"),
        ({"kind": "cats", "head": "kpn"}, "--head or --recipe with --distil"),
        ({"kind": "pixels"}, "train pixels --distil.*train splats"),
        ({"evaluations": 0}, "evaluations"),
    ],
)
def test_options_of_another_generator_are_refused(
    teacher: Path, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    kind = options.pop("kind", "splats")
    with pytest.raises(JobError, match=words):
        resolve_request(kind, None, tmp_path / "run", distil=teacher, **options)


def test_runs_that_cannot_teach_are_refused(store: Path, teacher: Path, tmp_path: Path) -> None:
    (tmp_path / "alone").mkdir()
    shutil.copy(teacher / MODEL_FILE, tmp_path / "alone")
    with pytest.raises(JobError, match=r"without --store.*state\.safetensors"):
        resolve_request("splats", None, tmp_path / "run", distil=tmp_path / "alone")
    assert resolve_request("splats", store, tmp_path / "run", distil=tmp_path / "alone").changes == {"patch": 4}
    with pytest.raises(CheckpointError):
        resolve_request("splats", store, tmp_path / "run", distil=tmp_path / "nothing")
    with pytest.raises(JobError, match="--evaluations 4 without --distil"):
        resolve_request("splats", store, tmp_path / "run", evaluations=4)


@pytest.mark.slow
def test_other_objectives_and_other_sets_are_refused(store: Path, teacher: Path, tmp_path: Path) -> None:
    diffusion = small_run(store, tmp_path / "diffusion", model="pixel-dit", objective="ddpm-cosine")
    with pytest.raises(JobError, match=r"training of ddpm-cosine.*flow-clean"):
        resolve_request("pixels", None, tmp_path / "run", distil=diffusion)
    other = tmp_path / "other.zarr"
    encode_pictures(other, ArrayImages(pictures(8).repeat(2, axis=1)), block_rows=64)
    with pytest.raises(StoreMismatchError, match=r"another set.*height"):
        train(resolve_request("splats", other, tmp_path / "run", distil=teacher, **QUICK))
