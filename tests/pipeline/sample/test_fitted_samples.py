"""Samples of a generator of pixels as splats: fitted as encode fits, measured, repeated, refused where it cannot be."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from data_schemas.errors import JobError, SamplingError
from data_schemas.stores.open import open_store
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode, to_uint8
from encoders.quality import psnr
from encoders.start.begin import anchors
from pipeline.cli import app
from pipeline.info import store_info
from pipeline.sample import fit as sample_fit_module
from pipeline.sample import fitted_samples
from pipeline.sample.draws import between
from pipeline.sample.fit import sample_fit
from pipeline.sample.job import KnownPart, SampleJob
from pipeline.sample.run import Run, load_run
from pipeline.sample.sample import sample
from pipeline.verify import verify
from tests.pipeline.encode.fakes import GAUSSIANS
from tests.pipeline.tiny_runs import CLASSES, small_run, small_store

STEPS = 3
"""Of the fit, as the store of the run had it."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    return small_store(folder / "small.zarr")


@pytest.fixture(scope="module")
def run(folder: Path, store: Path) -> Run:
    return load_run(small_run(store, folder / "pixels", model="pixel-dit"), device="cpu")


def job(out: Path, **options: object) -> SampleJob:
    return replace(SampleJob(out, number=3, evaluations=2, splats=True), **options)


def learned_from(run: Run, **changes: object) -> Run:
    """The same run as if the store that it learned from had been another."""
    held = run.config["store"]
    source = {**held["source"], "name": changes.pop("name", held["source"]["name"])}
    identity = {**held["identity"], **changes}
    return replace(run, config={**run.config, "store": {**held, "source": source, "identity": identity}})


def rows_of(path: Path | None) -> dict[str, np.ndarray]:
    assert path is not None
    with open_store(path) as opened:
        return opened.read(["splats", "image", "label", "psnr", "steps", "state", "source_id", "content_hash"])


@pytest.mark.slow
def test_splats_are_those_that_the_engine_fits_to_the_sampled_pixels(run: Run, tmp_path: Path) -> None:
    plain = sample(run, job(tmp_path / "plain", splats=False))
    pixels = np.stack([np.asarray(Image.open(path)) for path in plain.pictures])
    result = sample(run, job(tmp_path / "out", seed=0))
    rows = rows_of(result.store)
    np.testing.assert_array_equal(rows["image"], pixels)
    fitted = CpuEncoder(FitSettings(GAUSSIANS, steps=STEPS)).fit(pixels).splats
    np.testing.assert_allclose(rows["splats"], fitted, atol=1e-6)
    decoded = to_uint8(decode(rows["splats"], layout=run_layout(result.store), codec="additive/1", height=8, width=8))
    np.testing.assert_allclose(rows["psnr"], psnr(decoded, pixels), rtol=1e-6)
    shown = np.stack([np.asarray(Image.open(path)) for path in result.pictures])
    np.testing.assert_array_equal(shown, decoded)
    assert rows["label"].tolist() == list(result.labels) == [0, 1, 2]
    assert result.fit is not None
    assert (result.fit.gaussians, result.fit.steps, result.fit.engine, result.fit.failed) == (
        GAUSSIANS,
        STEPS,
        "cpu",
        (),
    )
    mean_error = np.mean(10 ** (-rows["psnr"].astype(float) / 10))
    assert result.fit.psnr == pytest.approx(-10 * np.log10(mean_error), abs=1e-4)


def run_layout(path: Path | None):
    assert path is not None
    with open_store(path) as opened:
        return opened.header.splat_layout


@pytest.mark.slow
def test_the_store_says_how_it_was_sampled_and_how_it_was_fitted(run: Run, tmp_path: Path) -> None:
    result = sample(run, job(tmp_path / "out", seed=5, guidance=2.0))
    assert result.store is not None
    with open_store(result.store) as opened:
        header = opened.header
    assert header.source.name == "generated after arrays"
    assert (header.source.split, header.source.licence, header.source.label_names) == ("generated", "CC0", CLASSES)
    record = header.settings["generated"]
    assert (record["run"], record["model"], record["step"]) == ("pixels", "pixel-dit", 1)
    assert (record["evaluations"], record["guidance"], record["seed"]) == (2, 2.0, 5)
    assert (header.engine, header.settings["steps"], header.seed, header.start) == ("cpu", STEPS, 5, "transport")
    assert header.settings["recipe"] == json.loads(json.dumps(CpuEncoder(FitSettings(GAUSSIANS)).recipe()))
    np.testing.assert_array_equal(header.anchors, anchors(GAUSSIANS, 8, 8))
    assert (tmp_path / "out" / "samples.attribution.txt").is_file()
    found = store_info(result.store)
    assert (found.done, found.header.images) == (3, True)
    assert found.psnr == pytest.approx(result.fit.psnr if result.fit else None)
    assert verify(result.store).faults == ()
    assert list((tmp_path / "out").glob("*.lock")) == []


@pytest.mark.slow
def test_no_bit_depends_on_the_batch(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitted_samples, "PORTION", 2)
    usual = rows_of(sample(run, job(tmp_path / "usual", number=5)).store)
    for batch in (1, 3):
        other = rows_of(sample(run, job(tmp_path / f"{batch}", number=5, batch=batch)).store)
        for name, values in usual.items():
            np.testing.assert_array_equal(other[name], values, err_msg=name)
    assert usual["source_id"].tolist() == [f"generated/{number:06d}" for number in range(5)]
    assert len(np.unique(usual["content_hash"], axis=0)) == 5


@pytest.mark.slow
def test_the_next_portion_is_drawn_while_the_last_one_is_fitted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitted_samples, "PORTION", 2)
    drawn = threading.Event()
    waited: list[bool] = []
    rendered, fit = Run.rendered, CpuEncoder.fit

    def render(self: Run, stored: np.ndarray, size: int | None = None) -> np.ndarray:
        if self.spec.kind == "pixels":
            portions.append(len(stored))
            if len(portions) == 2:
                drawn.set()
        return rendered(self, stored, size)

    def fit_late(self: CpuEncoder, images: np.ndarray, **options: Any):
        if not waited:
            waited.append(drawn.wait(10))
        return fit(self, images, **options)

    portions: list[int] = []
    monkeypatch.setattr(Run, "rendered", render)
    monkeypatch.setattr(CpuEncoder, "fit", fit_late)
    sample(run, job(tmp_path / "out", number=6, batch=2))
    assert waited == [True], "the second portion is there before the first one is fitted"
    assert [count for count in portions if count] == [2, 2, 2]


@pytest.mark.slow
def test_another_k_other_steps_and_any_size(run: Run, tmp_path: Path) -> None:
    result = sample(run, job(tmp_path / "out", gaussians=9, steps=2, size=13, suffix=".h5"))
    assert rows_of(result.store)["splats"].shape == (3, 9, 8)
    assert rows_of(result.store)["steps"].max() == 2
    assert Image.open(result.pictures[0]).size == (13, 13)


@pytest.mark.slow
def test_between_two_samples_every_slot_goes_straight(run: Run, tmp_path: Path) -> None:
    result = sample(run, job(tmp_path / "out", interpolate=(0, 2), gif=True))
    splats = rows_of(result.store)["splats"]
    fit = sample_fit(run)
    one, _, other = fit.features(splats)
    way = between(fit.view, one, other, frames=3)
    np.testing.assert_allclose(way[[0, 2]], splats[[0, 2]], atol=1e-4)
    np.testing.assert_allclose(way[1, :, -2:], splats[[0, 2], :, -2:].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(way[1, :, 3:6], splats[[0, 2], :, 3:6].mean(axis=0), atol=1e-5)
    assert result.strip is not None
    assert [path.name for path in result.gifs] == ["forward.gif", "sampling.gif"]
    for path, frames in zip(result.gifs, (24, 3), strict=True):
        with Image.open(path) as picture:
            assert getattr(picture, "n_frames", 1) == frames
            assert picture.width > 2.9 * picture.height, "pixels, ellipses and what the splats show"


@pytest.mark.slow
def test_a_part_is_kept_before_the_fit(run: Run, store: Path, tmp_path: Path) -> None:
    result = sample(run, job(tmp_path / "out", known=KnownPart(str(store), "2", (0.0, 0.0, 4.0, 8.0))))
    with open_store(store) as opened:
        known = opened.read(["image"], [2])["image"][0].astype(int)
    drawn = rows_of(result.store)["image"].astype(int)
    assert np.abs(drawn[:, :, 4:] - known[:, 4:]).max() <= 1
    assert np.abs(drawn[:, :, :4] - known[:, :4]).max() > 10


@pytest.mark.slow
def test_the_settings_are_those_of_the_store_or_of_the_named_set(run: Run) -> None:
    identity = run.config["store"]["identity"]
    other = learned_from(
        run,
        codec="normalised/1",
        colours="signed",
        start="grid",
        settings={**identity["settings"], "codec": "normalised/1", "colours": "signed", "start": "grid", "steps": 7},
    )
    found = sample_fit(other, seed=3).encoder.settings
    assert found == FitSettings(GAUSSIANS, steps=7, codec="normalised/1", colours="signed", start="grid", seed=3)
    # Of a set by name, whose images were all that the store held.
    spec = replace(run.spec, height=28, width=28, channels=1)
    images_only = {"gaussians": 0, "engine": "none", "settings": {"recipe": {}}, "start": None}
    digits = replace(learned_from(run, name="mnist", **images_only), spec=spec)
    assert sample_fit(digits).encoder.settings == FitSettings(70, steps=400)
    assert sample_fit(digits, gaussians=40).encoder.settings.gaussians == 40
    # Written by a program without an optimiser: codec and K are known, steps are not.
    converted = learned_from(run, engine="converted", settings={"steps": "many"})
    assert sample_fit(converted).encoder.settings == FitSettings(GAUSSIANS, steps=400)
    overlaid = learned_from(run, codec="over/1", settings={})
    assert sample_fit(overlaid).encoder.settings.codec == "over/1"


@pytest.mark.slow
def test_an_engine_that_cannot_run_here_is_replaced_and_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    create = sample_fit_module.create_encoder

    def without_card(engine: str, settings: FitSettings, **options: Any):
        if engine == "cuda":
            raise JobError("no card")
        return create(engine, settings, **options)

    monkeypatch.setattr(sample_fit_module, "create_encoder", without_card)
    found = sample_fit(learned_from(run, engine="cuda"))
    assert found.encoder.name == "cpu"
    assert "Engine cuda" in found.notes[0]
    assert "no card" in found.notes[0]


@pytest.mark.slow
def test_an_image_that_cannot_be_fitted_is_counted_and_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = CpuEncoder.fit

    def spoilt(self: CpuEncoder, images: np.ndarray, **options: Any):
        found = fit(self, images, **options)
        found.splats[1, 4] = np.nan
        return found

    monkeypatch.setattr(CpuEncoder, "fit", spoilt)
    result = sample(run, job(tmp_path / "out"))
    assert result.fit is not None
    assert result.fit.failed == (1,)
    assert rows_of(result.store)["state"].tolist() == [1, 2, 1]
    assert [path.name for path in result.pictures] == ["0000.png", "0002.png"]
    assert "1 images could not be fitted" in result.notes[-1]
    assert "image 1 (the fit gave nan" in result.notes[-1]


@pytest.mark.slow
def test_what_cannot_be_fitted_is_refused_and_leaves_nothing(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for wrong, words in (
        ({"gaussians": 0}, "--gaussians 0"),
        ({"steps": -1}, "--steps -1"),
        ({"splats": False, "gaussians": 5}, "--gaussians 5 without --splats"),
        ({"splats": False, "steps": 5}, "--steps 5 without --splats"),
    ):
        with pytest.raises(JobError, match=words):
            job(out, **wrong)
    with pytest.raises(JobError, match="--gaussians 1000000000"):
        job(out, gaussians=10**9)
    splats = replace(run, spec=replace(run.spec, kind="splats", gaussians=GAUSSIANS, features=8))
    with pytest.raises(SamplingError, match=r"generates splats already.*leave --splats out"):
        sample(splats, job(out))
    unknown = learned_from(run, gaussians=0, engine="none", settings={}, start=None)
    with pytest.raises(JobError, match=r"images only.*give --gaussians K"):
        sample(unknown, job(out))
    assert sample(unknown, job(out, gaussians=4)).store is not None
    with pytest.raises(JobError, match="pixels of 8 x 8 x 3 beside pixels"):
        sample(run, job(tmp_path / "gif", gif=True), beside=run)
    assert not (tmp_path / "gif").exists()


@pytest.mark.slow
def test_the_command(run: Run, tmp_path: Path) -> None:
    def splatspace(*arguments: object):
        return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(each) for each in arguments])

    common = ("sample", run.path, "-n", 2, "--evaluations", 1, "--device", "cpu")
    result = splatspace(*common, "--out", tmp_path / "a", "--splats", "-k", 5, "--steps", 2, "--json")
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert content["fit"]["gaussians"] == 5
    assert Path(content["pixels"]).is_file()
    spoken = splatspace(*common, "--out", tmp_path / "b", "--splats")
    assert f"{GAUSSIANS} Gaussians by engine cpu" in spoken.stderr + spoken.stdout
    refused = splatspace(*common, "--out", tmp_path / "c", "--gaussians", 5)
    assert refused.exit_code == 2
    assert "--splats" in refused.output
    rendered = splatspace("render", tmp_path / "a" / "samples.zarr", "--image", 1, "--out", tmp_path / "one.png")
    assert rendered.exit_code == 0, rendered.output
    exported = splatspace("export", tmp_path / "a" / "samples.zarr", "--image", 0, "--out", tmp_path / "one.svg")
    assert exported.exit_code == 0, exported.output
    edited = splatspace(
        "edit", tmp_path / "a" / "samples.zarr", "--image", 0, "--move", "1,0", "--out", tmp_path / "e.png"
    )
    assert edited.exit_code == 0, edited.output


@pytest.mark.slow
def test_portions_are_whole_whatever_is_read(run: Run) -> None:
    drawn: list[tuple[int, int]] = []

    def draw(first: int, count: int, _watch: object) -> torch.Tensor:
        drawn.append((first, count))
        values = torch.arange(first, first + count) / 128
        return values[:, None, None, None].expand(count, 3, 8, 8)

    count = 2 * fitted_samples.PORTION + 3
    source = fitted_samples.SampledImages(run, draw, np.full(count, -1))
    read = source.read(range(30, 34))
    levels = [int(image.pixels[0, 0, 0]) for image in read if image.pixels is not None]
    assert levels == [round(255 * (number / 128 + 1) / 2) for number in range(30, 34)]
    assert len(source.read([count - 1])) == 1
    assert drawn == [(0, 32), (32, 32), (64, 3)]
    assert source.image_shape == (8, 8, 3)
    assert len(source) == count
