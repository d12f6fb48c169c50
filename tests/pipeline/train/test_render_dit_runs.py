"""Runs of a model that looks at pixels and answers with Gaussians: trained, resumed, sampled, evaluated, refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from data_schemas.errors import JobError, SamplingError, StoppedError, StoreMismatchError
from data_schemas.stores.open import open_store
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode, to_uint8
from encoders.quality import psnr
from encoders.start.begin import anchors
from models.checkpoint import load_checkpoint
from models.diffusion.objective_settings import OBJECTIVES
from models.networks.render_dit import RenderDiT
from pipeline.sample.fit import POLISH_STEPS, AnsweredStarts
from pipeline.sample.job import SampleJob
from pipeline.sample.run import Run, load_run
from pipeline.sample.sample import sample
from pipeline.train.cats_job import resolve_cats_job
from pipeline.train.job import resolve_train_job
from pipeline.train.request import resolve_request
from pipeline.train.state import MODEL_FILE, continue_job
from pipeline.train.train import train
from pipeline.verify import verify
from tests.pipeline.encode.fakes import GAUSSIANS, ArrayImages, SamplingEncoder, pictures
from tests.pipeline.encode.fakes import run as encode_pictures
from tests.pipeline.tiny_runs import small_run, small_store

SMALL: dict[str, Any] = {
    "model": "render-dit", "preset": "tiny", "changes": {"patch": 4}, "steps": 4, "batch": 4, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    return small_store(folder / "small.zarr")


@pytest.fixture(scope="module")
def run(folder: Path, store: Path) -> Run:
    return load_run(small_run(store, folder / "drawn", model="render-dit", changes={"patch": 4}), device="cpu")


def rows_of(path: Path | None) -> dict[str, np.ndarray]:
    assert path is not None
    with open_store(path) as opened:
        return opened.read(["splats", "image", "label", "psnr", "steps"])


@pytest.mark.slow
def test_a_run_remembers_slots_layout_and_losses(run: Run, store: Path) -> None:
    with open_store(store) as opened:
        header, splats = opened.header, opened.read(["splats"])["splats"].astype(np.float64)
    assert isinstance(run.model, RenderDiT)
    assert run.spec.anchors is not None
    np.testing.assert_allclose(run.spec.anchors, splats[..., -2:].mean(axis=0), atol=1e-5)
    usual = run.model.slots.mean.numpy()
    np.testing.assert_allclose(usual[:, :2], np.log(np.maximum(splats[..., :2], 1e-3)).mean(axis=0), atol=1e-4)
    assert (run.spec.kind, run.spec.gaussians, run.spec.layout) == ("pixels", GAUSSIANS, header.layout)
    assert run.makes == "splats", "what an evaluation says of its kind"
    settings = run.objective.settings
    assert (settings.shown_clean, settings.shown_weight) == (0.05, 0.05)
    assert run.config["store"]["order"] == "slots of the store"


@pytest.mark.slow
def test_samples_are_a_store_of_exactly_k_splats_polished_from_the_network_s_own(run: Run, tmp_path: Path) -> None:
    result = sample(run, SampleJob(tmp_path / "out", number=3, evaluations=2))
    rows = rows_of(result.store)
    assert rows["splats"].shape[:2] == (3, GAUSSIANS)
    assert result.fit is not None
    assert (result.fit.steps, result.fit.failed) == (POLISH_STEPS, ())
    settings = FitSettings(GAUSSIANS, steps=POLISH_STEPS)
    fitted = CpuEncoder(settings, starts=AnsweredStarts(run)).fit(rows["image"]).splats
    np.testing.assert_allclose(rows["splats"], fitted, atol=1e-6)
    shown = np.stack([np.asarray(Image.open(path)) for path in result.pictures])
    spec = run.spec
    with open_store(result.store or "") as opened:
        layout = opened.header.splat_layout
        assert opened.header.settings["generated"]["model"] == "render-dit"
    decoded = decode(rows["splats"], layout=layout, codec="additive/1", height=spec.height, width=spec.width)
    np.testing.assert_array_equal(shown, to_uint8(decoded))
    assert verify(result.store or "").faults == ()


@pytest.mark.slow
def test_without_steps_the_answer_of_the_network_is_what_is_stored(run: Run, tmp_path: Path) -> None:
    result = sample(run, SampleJob(tmp_path / "out", number=2, evaluations=2, splats=True, steps=0))
    rows = rows_of(result.store)
    features = run.representation.encode(torch.from_numpy(rows["image"]))
    with torch.inference_mode():
        answer = run.model(features, torch.ones(2), None, whole=True)
    np.testing.assert_allclose(rows["splats"], answer.splats.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_polish_brings_the_splats_nearer_to_the_sampled_image(run: Run, tmp_path: Path) -> None:
    figures = []
    for steps in (0, 40):
        job = SampleJob(tmp_path / str(steps), number=2, evaluations=2, splats=True, steps=steps)
        figures.append(float(np.median(rows_of(sample(run, job).store)["psnr"])))
    assert figures[1] > figures[0] + 1.5


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes_in_any_batch(run: Run, tmp_path: Path) -> None:
    stores = [
        rows_of(sample(run, SampleJob(tmp_path / str(batch), number=5, evaluations=2, batch=batch)).store)
        for batch in (2, 64)
    ]
    for name in ("splats", "image"):
        np.testing.assert_array_equal(stores[0][name], stores[1][name])


@pytest.mark.slow
def test_a_stopped_training_goes_on_to_the_same_weights(store: Path, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(resolve_train_job("splats", store, whole, **SMALL))
    asked = iter([False, True])
    with pytest.raises(StoppedError):
        train(resolve_train_job("splats", store, stopped, **SMALL), should_stop=lambda: next(asked))
    train(continue_job(stopped, {}), resume=True)
    one, other = (load_checkpoint(path / MODEL_FILE) for path in (whole, stopped))
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name


@pytest.mark.slow
def test_what_looks_at_means_is_trained_stopped_resumed_and_sampled_at_full_size(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "pooled"
    options = {name: value for name, value in SMALL.items() if name != "changes"}
    job = resolve_request("splats", store, out, pool=2, settings=["patch=2"], **options)
    asked = iter([False, True])
    with pytest.raises(StoppedError):
        train(job, should_stop=lambda: next(asked))
    train(resolve_request("splats", None, out, resume=True), resume=True)
    run = load_run(out, device="cpu")
    assert isinstance(run.model, RenderDiT)
    assert (run.model.pool, run.model.rows, run.spec.height) == (2, 2, 8)
    assert run.objective.settings.time_mean == pytest.approx(-0.4 - np.log(2))
    result = sample(run, SampleJob(tmp_path / "out", number=2, evaluations=2, splats=True, steps=0))
    rows = rows_of(result.store)
    assert (rows["splats"].shape[:2], rows["image"].shape) == ((2, GAUSSIANS), (2, 8, 8, 3))
    features = run.representation.encode(torch.from_numpy(rows["image"]))
    with torch.inference_mode():
        answer = run.model(features, torch.ones(2), None, whole=True)
    np.testing.assert_allclose(rows["splats"], answer.splats.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"changes": {"pool": 3}}, "pool = 3 of an image of 8x8"),
        ({"model": "splatdit", "changes": {"pool": 2}}, "pool of model splatdit"),
    ],
)
def test_means_that_cannot_be_looked_at_are_refused(
    options: dict[str, Any], message: str, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match=message):
        wrong(store, tmp_path / "run", **options)
    assert not (tmp_path / "run" / MODEL_FILE).exists()


@pytest.mark.slow
def test_it_draws_what_it_is_shown_after_some_steps(folder: Path) -> None:
    store = folder / "fitted.zarr"
    encode_pictures(
        store, ArrayImages(pictures(8, side=2).repeat(4, 1).repeat(4, 2)), CpuEncoder(FitSettings(GAUSSIANS, steps=20))
    )
    with open_store(store) as opened:
        images = opened.read(["image"])["image"]
        layout = opened.header.splat_layout
    figures = []
    for steps in (1, 60):
        out = folder / f"steps-{steps}"
        train(resolve_train_job("splats", store, out, **{**SMALL, "steps": steps, "batch": 8, "learning_rate": 3e-3}))
        run = load_run(out, device="cpu")
        splats = CpuEncoder(FitSettings(GAUSSIANS, steps=0), starts=AnsweredStarts(run)).fit(images).splats
        drawn = decode(splats, layout=layout, codec="additive/1", height=images.shape[1], width=images.shape[2])
        figures.append(float(np.mean(psnr(to_uint8(drawn), images))))
    assert figures[1] > figures[0] + 2, figures


def test_it_is_what_train_splats_trains(tmp_path: Path) -> None:
    assert resolve_train_job("splats", tmp_path / "a.zarr", tmp_path / "run").model == "render-dit"


def test_a_store_without_images_is_refused_with_a_way_out(tmp_path: Path) -> None:
    encode_pictures(tmp_path / "bare.zarr", ArrayImages(pictures(4)), images=False)
    with pytest.raises(StoreMismatchError, match=r"no source images.*--model splatdit"):
        wrong(tmp_path / "bare.zarr", tmp_path / "run")


def test_a_store_without_slots_gets_regular_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "slotless.zarr"
    encode_pictures(path, ArrayImages(pictures(4)), SamplingEncoder(FitSettings(GAUSSIANS, steps=3, start="adaptive")))
    wrong(path, tmp_path / "run")
    run = load_run(tmp_path / "run", device="cpu")
    assert run.config["store"]["order"] == "slots of a regular grid"
    np.testing.assert_allclose(np.array(run.spec.anchors), anchors(GAUSSIANS, 8, 8), atol=1e-6)
    assert "regular ones are made" in caplog.text


def test_fewer_gaussians_than_patches_are_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=f"{GAUSSIANS} Gaussians for 16 patches of 2 pixels"):
        wrong(store, tmp_path / "run", changes={"patch": 2})


def wrong(store: Path, out: Path, **options: Any) -> None:
    train(resolve_train_job("splats", store, out, **{**SMALL, "steps": 1, **options}))


@pytest.mark.parametrize(
    "options",
    [{"render_loss": 1.0}, {"order": "anchors"}, {"covariance": "raw"}, {"changes": {"pack": 2}}, {"flip": 0.5}],
)
def test_options_that_it_has_no_use_for_are_refused(options: dict[str, Any], store: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"leave them out|use --render-loss"):
        wrong(store, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", sorted(set(OBJECTIVES) - {"flow-clean"}))
def test_a_drawing_is_a_clean_image_and_no_noise(objective: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=rf"--objective {objective} with model render-dit.*") as caught:
        resolve_train_job("splats", "a.zarr", tmp_path, **{**SMALL, "objective": objective})
    assert caught.value.allowed == "flow-clean"
    assert "--model splatdit" in str(caught.value)
    with pytest.raises(JobError, match="with model cats-splats") as caught:
        resolve_cats_job("a.zarr", tmp_path, head="splats", objective=objective)
    assert "--head" in str(caught.value)
    assert resolve_train_job("splats", "a.zarr", tmp_path, model="splatdit", objective=objective)
    assert resolve_cats_job("a.zarr", tmp_path, head="kpn", objective=objective)


def test_a_drawing_has_the_range_of_an_image(tmp_path: Path) -> None:
    with pytest.raises(JobError, match=r"--normalisation whitened with model render-dit.*minmax"):
        resolve_train_job("splats", "a.zarr", tmp_path, **SMALL, normalisation="whitened")
    assert resolve_train_job("splats", "a.zarr", tmp_path, **SMALL, objective="flow-clean", normalisation="minmax")


@pytest.mark.slow
def test_another_k_than_the_run_s_is_refused_before_sampling(run: Run, tmp_path: Path) -> None:
    job = SampleJob(tmp_path / "out", number=1, evaluations=1, splats=True, gaussians=GAUSSIANS + 1)
    with pytest.raises(JobError, match=f"answers with {GAUSSIANS}"):
        sample(run, job)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_starts_of_a_run_that_does_not_draw_are_refused(folder: Path, store: Path) -> None:
    other = load_run(small_run(store, folder / "pixels", model="pixel-dit"), device="cpu")
    with pytest.raises(SamplingError, match="render-dit"):
        AnsweredStarts(other)
    assert not other.draws
