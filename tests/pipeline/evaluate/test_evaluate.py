"""An evaluation from a trained run to its files: what it says, that it repeats, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from data_schemas.errors import (
    CheckpointError,
    EvaluationError,
    JobError,
    ReportError,
    SamplingError,
    SplatSpaceError,
    StoreLockedError,
    StoreMismatchError,
)
from data_schemas.stores.open import open_store
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode, to_uint8
from models.diffusion.objectives import build_objective
from models.registry import step_gflop
from pipeline.cli import app
from pipeline.documents import sole_writer
from pipeline.evaluate.evaluate import evaluate
from pipeline.evaluate.features import build_extractor
from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.job import EvaluateJob
from pipeline.evaluate.metrics import frechet_distance
from pipeline.evaluate.reading import read_evaluation, scores_table, side_by_side
from pipeline.sample.draws import Settings, draw, roll_out
from pipeline.sample.run import Run, load_run
from pipeline.store_images import labels, originals, renderings
from pipeline.train.job import resolve_train_job
from pipeline.train.train import train
from tests.pipeline.encode.fakes import GAUSSIANS, ArrayImages, SamplingEncoder, pictures, run

pytestmark = pytest.mark.usefixtures("brief_features")

IMAGES = 70


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 150 images with one unfinished row, and two trained runs."""
    folder = tmp_path_factory.mktemp("evaluate")
    source = ArrayImages(pictures(150))
    source.broken["image-0003"] = "cut short"
    run(folder / "store.zarr", source, block_rows=64)
    options = {"preset": "tiny", "steps": 3, "batch": 4, "device": "cpu"}
    train(resolve_train_job("splats", folder / "store.zarr", folder / "splats", model="splatdit", **options))
    train(resolve_train_job("pixels", folder / "store.zarr", folder / "pixels", model="pixel-unet", **options))
    return folder


@pytest.fixture(scope="module")
def trained(folder: Path) -> Run:
    return load_run(folder / "splats", device="cpu")


def job_for(folder: Path, out: Path, **options: Any) -> EvaluateJob:
    job = EvaluateJob(
        run=folder / "splats", store=str(folder / "store.zarr"), out=out, images=IMAGES, evaluations=4, sweep=(2,)
    )
    return replace(job, **options)


@pytest.fixture(scope="module")
def found(folder: Path, trained: Run) -> Evaluation:
    return evaluate(job_for(folder, folder / "out"), device="cpu")


@pytest.mark.slow
def test_every_number_carries_its_size_features_and_floors(found: Evaluation) -> None:
    assert [scores.evaluations for scores in found.generated] == [2, 4]
    assert found.headline.evaluations == 4
    for scores in (*found.generated, found.against_renderings, found.real_floor, found.reconstruction_floor):
        assert scores.n == IMAGES
        assert 0 <= scores.precision <= 1
        assert 0 <= scores.recall <= 1
    assert found.features.name == "classifier"
    assert len(found.features.sha) == 16
    assert found.features.facts["held_out"] > 0
    assert found.real_floor.fid < found.generated[-1].fid
    assert (found.reference.finished, found.reference.unfinished) == (149, 1)
    assert found.generator.conditional
    assert "images are too few" in found.score_reason
    assert found.neighbours.references == 149 - IMAGES
    assert found.neighbours.shown[0].distance > 0


@pytest.mark.slow
def test_costs_are_those_of_the_network(found: Evaluation, trained: Run) -> None:
    cost = found.cost
    assert cost.gflop_per_step == step_gflop(trained.model)
    assert cost.tflop_per_sample == pytest.approx(4 * cost.gflop_per_step / 1000)
    assert 0 < cost.step_ms_p50 <= cost.step_ms_p95
    assert 0 < cost.rendering_seconds_per_image < cost.seconds_per_image


@pytest.mark.slow
def test_guidance_costs_twice(folder: Path, tmp_path: Path, trained: Run, found: Evaluation) -> None:
    guided = evaluate(job_for(folder, tmp_path, guidance=2.0, sweep=()), device="cpu")
    assert guided.cost.tflop_per_sample == pytest.approx(2 * found.cost.tflop_per_sample)
    assert [scores.evaluations for scores in guided.generated] == [4]


@pytest.mark.slow
def test_guidance_without_labels_is_refused(
    folder: Path, tmp_path: Path, trained: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlabelled = replace(trained, objective=build_objective("flow-clean", groups=trained.representation.groups))
    monkeypatch.setattr("pipeline.evaluate.evaluate.load_run", lambda *_arguments, **_options: unlabelled)
    with pytest.raises(SamplingError, match="--guidance 2 without a label to follow"):
        evaluate(job_for(folder, tmp_path, guidance=2.0), device="cpu")


@pytest.mark.slow
def test_the_file_of_the_model_stands_for_its_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[EvaluateJob] = []

    def measure(job: EvaluateJob, **_options: Any) -> Evaluation:
        asked.append(job)
        raise EvaluationError("enough")

    monkeypatch.setattr("pipeline.evaluate.evaluate.evaluate", measure)
    for given in (folder / "splats", folder / "splats" / "model.safetensors"):
        CliRunner().invoke(app, ["evaluate", str(given), "--store", str(folder / "store.zarr")])
        assert asked[-1].out == folder / "splats" / "evaluation"
        assert load_run(asked[-1].run, device="cpu").path == folder / "splats"


@pytest.mark.slow
def test_the_same_evaluation_gives_the_same_numbers(
    folder: Path, tmp_path: Path, trained: Run, found: Evaluation
) -> None:
    again = evaluate(job_for(folder, tmp_path, sweep=()), device="cpu")
    assert again.headline == found.headline
    assert (again.real_floor, again.reconstruction_floor) == (found.real_floor, found.reconstruction_floor)
    other = evaluate(job_for(folder, tmp_path, sweep=(), seed=1), device="cpu")
    assert other.real_floor != found.real_floor


@pytest.mark.slow
def test_the_files_hold_what_was_found(folder: Path, found: Evaluation) -> None:
    out = folder / "out"
    assert sorted(path.name for path in out.iterdir()) == ["evaluation.html", "evaluation.json"]
    assert Evaluation.model_validate_json((out / "evaluation.json").read_text()) == found
    page = (out / "evaluation.html").read_text()
    assert f"FID[{found.features.label}]" in page
    assert page.count("data:image/png;base64,") == 4
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    data = re.search(r'<script id="splat-data" type="application/json">(.*?)</script>', page)
    assert data is not None
    canvas = json.loads(data[1])
    assert canvas["steps"] == len(canvas["times"]) == 5
    assert canvas["times"][-1] == 1


@pytest.mark.slow
def test_the_canvas_holds_the_splats_of_the_first_sample(folder: Path, trained: Run, found: Evaluation) -> None:
    page = (folder / "out" / "evaluation.html").read_text()
    data = re.search(r'<script id="splat-data" type="application/json">(.*?)</script>', page)
    assert data is not None
    canvas = json.loads(data[1])
    numbers = np.frombuffer(base64.b64decode(canvas["data"]), "<f4").reshape(canvas["steps"], canvas["gaussians"], -1)
    with open_store(folder / "store.zarr", "r") as store:
        header = store.header
    assert canvas["mode"] == "additive"
    assert numbers.shape[2] == 6 + header.channels
    # sigma, rho, x and y in order, opacity 1 in a layout without one.
    assert (numbers[..., :2] > 0).all()
    assert (np.abs(numbers[..., 2]) < 1).all()
    assert (numbers[..., 5] == 1).all()


@pytest.mark.slow
def test_a_pixel_model_is_evaluated_alike(folder: Path, tmp_path: Path) -> None:
    found = evaluate(job_for(folder, tmp_path, run=folder / "pixels", sweep=(), features="selfsup"), device="cpu")
    assert found.generator.kind == "pixels"
    assert found.features.name == "selfsup"
    assert found.score_reason == "self-supervised features have no classes"
    assert "splat-data" not in (tmp_path / "evaluation.html").read_text()


@pytest.mark.slow
def test_pixels_are_measured_as_splats_too(folder: Path, tmp_path: Path) -> None:
    job = job_for(folder, tmp_path, run=folder / "pixels", sweep=(), features="selfsup", splats=True, steps=2)
    found = evaluate(job, device="cpu")
    generator = load_run(folder / "pixels", device="cpu")
    settings = Settings(generator.objective.settings.sampler, 4, 1.0, 0, 64)
    with open_store(folder / "store.zarr", "r") as store:
        rows = np.random.default_rng(0).permutation(store.finished_rows())[:IMAGES]
        extractor = build_extractor("selfsup", store)
        drawn = draw(generator, settings, labels(store, rows), IMAGES, lambda _done: None)
        reference = extractor.forward(originals(store, rows))
        header = store.header
    drawn_pixels = drawn.images.permute(0, 2, 3, 1).numpy()
    splats = CpuEncoder(FitSettings(GAUSSIANS, steps=2)).fit(drawn_pixels).splats
    decoded = decode(splats, layout=header.splat_layout, codec=header.codec, height=8, width=8)
    shown = torch.from_numpy(to_uint8(decoded).transpose(0, 3, 1, 2).copy())
    fitted = found.fitted
    assert fitted is not None
    assert fitted.scores.fid == pytest.approx(frechet_distance(reference, extractor.forward(shown)), rel=1e-4)
    assert fitted.scores.fid != found.headline.fid
    assert (fitted.scores.n, fitted.scores.evaluations, fitted.scores.reference) == (IMAGES, 4, "originals")
    assert (fitted.gaussians, fitted.steps, fitted.engine, fitted.codec) == (GAUSSIANS, 2, "cpu", "additive/1")
    error = np.mean((to_uint8(decoded).astype(float) - drawn_pixels) ** 2) / 255**2
    assert fitted.psnr == pytest.approx(-10 * np.log10(error), abs=1e-3)
    assert fitted.core_seconds_per_image > 0
    assert read_evaluation(tmp_path) == found
    page = (tmp_path / "evaluation.html").read_text()
    assert f"the same as {GAUSSIANS} splats, decoded" in page
    assert page.count("data:image/png;base64,") == 5
    data = re.search(r'<script id="splat-data" type="application/json">(.*?)</script>', page)
    assert data is not None
    canvas = json.loads(data[1])
    assert (canvas["gaussians"], canvas["steps"], canvas["width"]) == (GAUSSIANS, 5, 8)
    table = Console(width=100, file=io.StringIO(), record=True)
    table.print(scores_table(found))
    assert f"as {GAUSSIANS} splats" in table.export_text()


@pytest.fixture(scope="module")
def unseen(folder: Path) -> Path:
    """A store of other images, without splats."""
    run(folder / "unseen.zarr", ArrayImages(pictures(150, seed=7)), gaussians=0, block_rows=64)
    return folder / "unseen.zarr"


@pytest.mark.slow
def test_samples_are_compared_with_images_that_nothing_learned_from(
    folder: Path, unseen: Path, tmp_path: Path, trained: Run, found: Evaluation
) -> None:
    compared = evaluate(job_for(folder, tmp_path, reference=str(unseen)), device="cpu")
    settings = Settings(trained.objective.settings.sampler, 4, 1.0, 0, 64)
    with open_store(folder / "store.zarr", "r") as store, open_store(unseen, "r") as other:
        rows = np.random.default_rng(0).permutation(other.finished_rows())
        extractor = build_extractor("auto", store)
        drawn = draw(trained, settings, labels(other, rows[:IMAGES]), IMAGES, lambda _done: None)
        reference = extractor.forward(originals(other, rows[:IMAGES]))
        floor = frechet_distance(reference, extractor.forward(originals(other, rows[IMAGES : 2 * IMAGES])))
        assert compared.neighbours.references == len(store.finished_rows()) == 149
    assert compared.headline.fid == pytest.approx(frechet_distance(reference, extractor.forward(drawn.images)), 1e-4)
    assert compared.real_floor.fid == pytest.approx(floor, rel=1e-4)
    assert (compared.reference.store, compared.reference.finished) == ("unseen.zarr", 150)
    assert compared.features == found.features, "learned from the store of the training"
    assert compared.headline.fid != found.headline.fid


@pytest.mark.slow
def test_images_to_compare_with_must_have_the_size_of_the_run(folder: Path, tmp_path: Path) -> None:
    run(tmp_path / "small.zarr", ArrayImages(pictures(150, side=7)), gaussians=0, block_rows=64)
    with pytest.raises(StoreMismatchError, match="height 7, width 7"):
        evaluate(job_for(folder, tmp_path / "out", reference=str(tmp_path / "small.zarr")), device="cpu")


@pytest.mark.slow
def test_splats_of_splats_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SamplingError, match="generates splats already"):
        evaluate(job_for(folder, tmp_path / "out", splats=True), device="cpu")
    with pytest.raises(JobError, match="--gaussians 9 without --splats"):
        job_for(folder, tmp_path / "out", gaussians=9)
    with pytest.raises(JobError, match="--gaussians 0"):
        job_for(folder, tmp_path / "out", gaussians=0, splats=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_other_generators_stand_beside(folder: Path, tmp_path: Path, found: Evaluation) -> None:
    evaluate(job_for(folder, tmp_path / "same", sweep=(), against=(folder / "out",)), device="cpu")
    page = (tmp_path / "same" / "evaluation.html").read_text()
    assert "Beside other generators" in page
    assert "not comparable" not in page
    assert "Beside other generators" not in (folder / "out" / "evaluation.html").read_text()
    moved = found.model_copy(update={"features": found.features.model_copy(update={"sha": "0123456789abcdef"})})
    lines = side_by_side(found, [found, moved])
    assert [line.ratio for line in lines] == [1.0, 1.0, None]
    assert lines[2].difference == "other features (classifier-01234567)"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        ("{}", "is not an evaluation"),
        ('{"evaluation_version": 99}', "evaluation of version 99"),
        ('{"evaluation_version": 1}', "is not an evaluation"),
    ],
)
def test_evaluations_that_are_none_are_refused_before_anything_is_done(
    folder: Path, tmp_path: Path, content: str | None, words: str
) -> None:
    if content is not None:
        (tmp_path / "evaluation.json").write_text(content)
    with pytest.raises(ReportError, match=words):
        evaluate(job_for(folder, tmp_path / "out", against=(tmp_path / "evaluation.json",)))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_evaluation_is_read_back(folder: Path, found: Evaluation) -> None:
    assert read_evaluation(folder / "out") == found
    assert read_evaluation(folder / "out" / "evaluation.json") == found


@pytest.mark.slow
def test_samples_do_not_depend_on_the_batch(folder: Path, trained: Run) -> None:
    labels = np.arange(7) % 3
    settings = Settings("euler", 3, 1.0, 0, 7)
    whole = draw(trained, settings, labels, 7, lambda _done: None)
    parts = draw(trained, replace(settings, batch=2), labels, 7, lambda _done: None)
    assert int((whole.images.int() - parts.images.int()).abs().max()) <= 1
    way = roll_out(trained, settings, labels, 2)
    assert [moment for moment, _ in way] == sorted(moment for moment, _ in way)
    last = trained.rendered(way[-1][1])
    assert np.abs(last.astype(int) - whole.images[:2].permute(0, 2, 3, 1).numpy().astype(int)).max() <= 1


@pytest.mark.slow
def test_references_are_originals_and_renderings_of_finished_rows(folder: Path) -> None:
    with open_store(folder / "store.zarr", "r") as store:
        rows = store.finished_rows()
        assert len(rows) == 149
        assert 3 not in rows
        shuffled = np.random.default_rng(0).permutation(rows)[:20]
        images = store.read(["image"], shuffled.tolist())["image"]
        assert np.array_equal(originals(store, shuffled).permute(0, 2, 3, 1).numpy(), images)
        assert torch.equal(renderings(store, shuffled)[5:6], renderings(store, shuffled[5:6]))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"images": 100}, EvaluationError, r"149 finished images of 150 in the store: two sets of 100"),
        ({"images": 20}, EvaluationError, r"20 images\. Allowed: 65 or more: classifier has 64 features"),
        ({"features": "random"}, JobError, r"--features 'random'"),
    ],
)
def test_too_few_images_are_refused(
    folder: Path, tmp_path: Path, trained: Run, changes: dict, error: type[SplatSpaceError], words: str
) -> None:
    with pytest.raises(error, match=words):
        evaluate(job_for(folder, tmp_path / "out", **changes), device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_store_of_another_shape_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.zarr"
    run(other, ArrayImages(pictures(30, side=9)), SamplingEncoder(FitSettings(5, steps=3)), gaussians=5)
    with pytest.raises(StoreMismatchError, match="height 9, width 9, gaussians 5"):
        evaluate(EvaluateJob(run=folder / "splats", store=str(other), out=tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "named"), [(1, r"3 \(50 images\)"), (5, r"5, 6, 7 \(149 images\)")])
def test_labels_that_were_not_learned_are_refused_and_named(
    folder: Path, tmp_path: Path, shift: int, named: str
) -> None:
    other = tmp_path / "other.zarr"
    shutil.copytree(folder / "store.zarr", other)
    with open_store(other, "a") as store:
        for block in range(3):
            rows = store.read_block(block)
            rows.label += shift
            store.write_block(block, rows)
    for options in ({"store": str(other)}, {"reference": str(other)}):
        with pytest.raises(StoreMismatchError, match=rf"did not learn: {named}\. Allowed: labels 0, 1, 2\."):
            evaluate(job_for(folder, tmp_path / "out", **options), device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_folder_takes_one_evaluation_at_a_time(folder: Path, tmp_path: Path) -> None:
    with sole_writer(tmp_path / "out"), pytest.raises(StoreLockedError, match=r"out is being written by process \d+"):
        evaluate(job_for(folder, tmp_path / "out"), device="cpu")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"images": 0}, {"sweep": (5, 0)}, {"sampler": "magic"}, {"batch": 0}])
def test_jobs_that_cannot_be_meant_are_refused(folder: Path, changes: dict) -> None:
    with pytest.raises(JobError):
        job_for(folder, folder / "never", **changes)


@pytest.mark.slow
def test_a_checkpoint_that_is_none_is_refused(folder: Path, tmp_path: Path, found: Evaluation) -> None:
    job = job_for(folder, tmp_path / "out", run=tmp_path)
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        evaluate(job)
    whole = (folder / "splats" / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=r"cut short|cannot be read"):
        evaluate(job)
    [features] = (folder / "store-features").glob("classifier-*.safetensors")
    with pytest.raises(CheckpointError, match="describes no generator"):
        evaluate(replace(job, run=features))


@pytest.mark.slow
def test_the_command_prints_a_table_or_one_object(folder: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", str(folder / "splats"), "--store", str(folder / "store.zarr"), "-n", str(IMAGES)]
    arguments += ["--evaluations", "2", "--device", "cpu", "--out", str(tmp_path / "out")]
    runner = CliRunner(env={"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"})
    shown = runner.invoke(app, [*arguments, "--sweep", "1"])
    assert shown.exit_code == 0, shown.output
    assert "generated at 2" in shown.stdout
    assert "floor: renderings" in shown.stdout
    assert "…" not in shown.stdout
    assert str(tmp_path / "out" / "evaluation.html") in shown.stdout
    printed = runner.invoke(app, [*arguments, "--json"])
    assert printed.exit_code == 0, printed.output
    assert len(json.loads(printed.stdout)["generated"]) == 2
    wrong = runner.invoke(app, [*arguments, "--sweep", "1,x"])
    assert wrong.exit_code == 2
