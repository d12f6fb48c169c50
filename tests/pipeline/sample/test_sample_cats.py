"""Sampling from patch models: the last step, sketches, any size, and images of how images are made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_schemas.errors import JobError, SamplingError
from data_schemas.stores.open import open_store
from models.base import DataSpec
from models.diffusion.objectives import build_objective
from models.diffusion.samplers import generators_for
from models.diffusion.samplers import sample as sample_batch
from models.features.pixels import PixelRepresentation
from models.names import model_name
from models.patches.model import HEADS
from models.registry import build_model
from pipeline.sample.anatomy import step_sizes
from pipeline.sample.job import SampleJob
from pipeline.sample.run import Run
from pipeline.sample.sample import sample
from pipeline.train.cats_job import RECIPE_DEFAULTS
from tests.models.small_networks import awakened, noise

SIDE = 16


def _run(head: str, *, classes: int = 0) -> Run:
    """A generator with weights drawn by chance."""
    torch.manual_seed(0)
    spec = DataSpec("pixels", groups=1, height=SIDE, width=SIDE, classes=classes)
    name = next(model_name(known, "modern") for known in HEADS if known == head)
    objective = build_objective("flow-clean", classes=classes, **RECIPE_DEFAULTS["modern"]["objective_changes"])
    representation = PixelRepresentation(height=SIDE, width=SIDE, channels=3)
    config = {"model": name, "job": {"order": "auto"}}
    model = awakened(build_model(name, "tiny", spec))
    return Run(Path("runs/cats"), model, objective, representation, spec, None, (), config)


@pytest.fixture(scope="module")
def splats() -> Run:
    return _run("splats", classes=2)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp-2m"])
@pytest.mark.parametrize("evaluations", [5, 9])
def test_the_last_step_returns_the_prediction(splats: Run, sampler: str, evaluations: int) -> None:
    seen: list[torch.Tensor] = []
    made = sample_batch(
        splats.objective,
        splats.model,
        (2, 3, SIDE, SIDE),
        generators=generators_for(0, 2),
        evaluations=evaluations,
        sampler=sampler,
        trajectory=lambda _number, _time, _noisy, clean: seen.append(clean),
    )
    assert torch.equal(made, seen[-1])


def test_a_sketch_begins_at_the_time_of_its_signal(splats: Run) -> None:
    sketch, seen = noise(2, 3, SIDE, SIDE, seed=5), []
    sample_batch(
        splats.objective,
        splats.model,
        (2, 3, SIDE, SIDE),
        generators=generators_for(0, 2),
        evaluations=4,
        sampler="euler",
        sketch=sketch,
        signal=0.25,
        trajectory=lambda _number, time, noisy, _clean: seen.append((time, noisy)),
    )
    assert [time for time, _ in seen] == [0.25, 0.4375, 0.625, 0.8125]
    [first] = [torch.stack([torch.randn(3, SIDE, SIDE, generator=each) for each in generators_for(0, 2)])]
    torch.testing.assert_close(seen[0][1], 0.25 * sketch + 0.75 * first)


def test_a_sketch_of_a_diffusion_path_is_refused(splats: Run) -> None:
    objective = build_objective("ddpm-cosine")
    with pytest.raises(JobError, match=r"sketch with signal 0\.25"):
        sample_batch(
            objective,
            splats.model,
            (1, 3, SIDE, SIDE),
            generators=generators_for(0, 1),
            sketch=noise(1, 3, SIDE, SIDE),
            signal=0.25,
        )


def test_sketches_are_read_and_lead_somewhere_else(splats: Run, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30), (255, 0, 0)).save(tmp_path / "red.png")
    made = {}
    for name, sketch in (("plain", None), ("drawn", tmp_path / "red.png")):
        job = SampleJob(tmp_path / name, number=2, evaluations=3, sketch=sketch, signal=0.5)
        made[name] = np.asarray(Image.open(sample(splats, job).pictures[0]))
    assert (made["plain"] != made["drawn"]).any()
    (tmp_path / "torn.png").write_bytes(b"no image")
    with pytest.raises(SamplingError, match=r"torn\.png cannot be read"):
        sample(splats, SampleJob(tmp_path / "torn", number=1, sketch=tmp_path / "torn.png"))
    with pytest.raises(JobError, match="--signal 1"):
        SampleJob(tmp_path / "all", signal=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("size", [16, 24, 37, 128])
def test_splats_are_drawn_at_any_size(splats: Run, tmp_path: Path, size: int) -> None:
    job = SampleJob(tmp_path / "large", number=3, evaluations=3, batch=2, size=size)
    result = sample(splats, job)
    pictures = [np.asarray(Image.open(path)).astype(float) for path in result.pictures]
    assert [picture.shape for picture in pictures] == [(size, size, 3)] * 3
    if size == 128:
        plain = sample(splats, dataclasses.replace(job, out=tmp_path / "plain", size=None))
        for large, path in zip(pictures, plain.pictures, strict=True):
            small = np.asarray(Image.open(path)).astype(float)
            averaged = large.reshape(SIDE, 8, SIDE, 8, 3).mean(axis=(1, 3))
            assert np.corrcoef(averaged.ravel(), small.ravel())[0, 1] > 0.9
            assert len(np.unique(large.reshape(-1, 3), axis=0)) > 4 * len(np.unique(small.reshape(-1, 3), axis=0))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ("kpn", {"roll-out", "seams", "drift"}),
        ("lut", {"roll-out", "seams", "table", "gram"}),
        ("outer", {"roll-out", "seams", "table", "gram"}),
        ("splats", {"roll-out", "seams", "zoom-4x", "zoom-8x", "blobs", "ellipses"}),
    ],
)
def test_every_head_shows_its_parts(head: str, wanted: set[str], tmp_path: Path) -> None:
    result = sample(_run(head), SampleJob(tmp_path / "made", number=3, evaluations=5, batch=2, anatomy=True, gif=True))
    assert {path.stem for path in result.anatomy} == wanted
    for path in (*result.anatomy, *result.gifs):
        assert np.asarray(Image.open(path).convert("L")).std() > 1, path.name
    if head == "splats":
        assert Image.open(tmp_path / "made" / "zoom-8x.png").size == (3 * 8 * SIDE, 8 * SIDE)


@pytest.mark.slow
def test_the_roll_out_has_a_row_a_step_however_many_images_a_batch_has(tmp_path: Path) -> None:
    rolled = {}
    for batch in (1, 2, 3):
        job = SampleJob(tmp_path / str(batch), number=3, evaluations=5, sampler="euler", batch=batch, anatomy=True)
        sample(_run("lut"), job)
        rolled[batch] = np.asarray(Image.open(tmp_path / str(batch) / "roll-out.png")).astype(int)
    assert rolled[3].shape[:2] == (2 + 5 * 66, 2 + 3 * 66)
    for batch in (1, 2):
        assert rolled[batch].shape == rolled[3].shape
        assert np.abs(rolled[batch] - rolled[3]).max() <= 1


def test_borders_that_were_painted_are_brighter_lines_than_what_is_inside() -> None:
    inside = np.random.default_rng(0).integers(0, 8, (2, SIDE, SIDE, 3))
    tiles = 16 * (np.indices((SIDE // 4, SIDE // 4)).sum(axis=0) % 2).repeat(4, axis=0).repeat(4, axis=1)
    steps = step_sizes((100 + inside + tiles[..., None]).astype(np.uint8))
    place = np.arange(SIDE - 1) % 4 == 3
    between = np.logical_or.outer(place, place)
    assert steps.shape == (2, SIDE, SIDE)
    assert steps[:, :-1, :-1][:, between].mean() > 3 * steps[:, :-1, :-1][:, ~between].mean()
    flat = step_sizes((100 + tiles[None, ..., None]).astype(np.uint8))[0, :-1, :-1]
    assert set(flat[between]) == {128}
    assert not flat[~between].any()
    assert step_sizes(np.array([[0, 32, 132]], np.uint8)[None, ..., None]).tolist() == [[[255, 255, 0]]]


@pytest.mark.slow
@pytest.mark.parametrize(("head", "zoom"), [("lut", 1), ("splats", 4)])
def test_seams_are_shown_below_the_pictures(head: str, zoom: int, tmp_path: Path) -> None:
    run, made = _run(head), tmp_path / "made"
    sample(run, SampleJob(made, number=2, evaluations=3, anatomy=True, size=None if zoom == 1 else zoom * SIDE))
    sheet = np.asarray(Image.open(made / "seams.png"))
    assert sheet.shape == (2 + 2 * 258, 2 + 2 * 258, 3)
    for number in range(2):
        picture = np.asarray(Image.open(made / f"{number:04d}.png"))
        assert picture.shape == (zoom * SIDE, zoom * SIDE, 3)
        upper, lower = (
            sheet[top : top + 256, 2 + 258 * number :][:, :256][:: 16 // zoom, :: 16 // zoom] for top in (2, 260)
        )
        assert (upper == picture).all()
        assert (lower == step_sizes(picture[None])[0][..., None]).all()
        assert lower.std() > 1


def test_other_generators_have_no_parts(tmp_path: Path) -> None:
    run = _run("lut")
    torch.manual_seed(0)
    other = dataclasses.replace(
        run, model=build_model("pixel-dit", "tiny", run.spec).eval(), config={**run.config, "model": "pixel-dit"}
    )
    with pytest.raises(SamplingError, match="pixel-dit, which has no parts to show"):
        sample(other, SampleJob(tmp_path / "made", number=1, anatomy=True))
    with pytest.raises(JobError, match="--size 20 of a generator of pixels"):
        sample(run, SampleJob(tmp_path / "made", number=1, size=20))


@pytest.mark.slow
@pytest.mark.parametrize("head", ["kpn", "splats"])
def test_gaussians_are_fitted_to_what_any_head_draws(head: str, tmp_path: Path) -> None:
    run = _run(head)
    fitted = {"gaussians": 7, "codec": "additive/1", "colours": "signed", "start": "grid"}
    identity = {**fitted, "engine": "of another program", "settings": {}}
    store = {"identity": identity, "source": {"name": "cats"}}
    run = dataclasses.replace(run, config={**run.config, "preset": "tiny", "store": store})
    job = SampleJob(tmp_path / "out", number=2, evaluations=3, splats=True, steps=2, size=37, anatomy=True)
    result = sample(run, job)
    assert [Image.open(path).size for path in result.pictures] == [(37, 37)] * 2
    assert {"roll-out.png", "seams.png"} <= {path.name for path in result.anatomy}
    assert result.store is not None
    with open_store(result.store) as opened:
        header, rows = opened.header, opened.read(["splats", "image"])
    assert {name: getattr(header, name) for name in fitted} == fitted
    assert rows["splats"].shape == (2, 7, 8)
    plain = sample(run, dataclasses.replace(job, out=tmp_path / "plain", splats=False, steps=None, size=None))
    np.testing.assert_array_equal(rows["image"], [np.asarray(Image.open(path)) for path in plain.pictures])
