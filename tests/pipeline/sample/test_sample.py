"""Sampling from a run: what is written, what repeats, what is kept, what is refused."""

from __future__ import annotations

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from data_schemas.errors import CheckpointError, JobError, SamplingError, StoreError, StoreMismatchError
from data_schemas.files import partial_name
from data_schemas.stores.open import open_store
from models.checkpoint import load_checkpoint, save_checkpoint
from pipeline.cli import app
from pipeline.images import grid_of
from pipeline.sample.draws import between
from pipeline.sample.job import KnownPart, SampleJob
from pipeline.sample.run import Run, load_run
from pipeline.sample.sample import labels_for, sample
from pipeline.sample.store import read_image, write_image
from tests.pipeline.encode.fakes import GAUSSIANS, ArrayImages, pictures
from tests.pipeline.encode.fakes import run as encode_run
from tests.pipeline.tiny_runs import CLASSES, small_run, small_store

BOX = (0.0, 0.0, 4.0, 8.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def store(folder: Path) -> Path:
    return small_store(folder / "small.zarr")


@pytest.fixture(scope="module")
def run(folder: Path, store: Path) -> Run:
    return load_run(small_run(store, folder / "splatdit", model="splatdit"), device="cpu")


@pytest.fixture(scope="module")
def pixel_run(folder: Path, store: Path) -> Run:
    return load_run(small_run(store, folder / "pixels", model="pixel-dit", classes=False), device="cpu")


def job(out: Path, **options: object) -> SampleJob:
    return replace(SampleJob(out, number=4, evaluations=2), **options)


def splats_of(path: Path | None) -> np.ndarray:
    assert path is not None
    with open_store(path) as opened:
        return opened.read(["splats"])["splats"]


@pytest.mark.slow
def test_pictures_grid_and_store_show_the_same(run: Run, tmp_path: Path) -> None:
    result = sample(run, job(tmp_path / "out", number=5, gif=True))
    assert [path.name for path in result.pictures] == [f"{number:04d}.png" for number in range(5)]
    assert result.store is not None
    with open_store(result.store) as opened:
        header, rows = opened.header, opened.read(["splats", "label", "state", "psnr"])
    assert (header.codec, header.gaussians, header.anchors) == (run.codec, GAUSSIANS, run.spec.anchors)
    assert header.source.split == "generated"
    assert header.settings["generated"]["evaluations"] == 2
    assert header.source.label_names == CLASSES
    assert rows["state"].tolist() == [1] * 5
    assert np.isnan(rows["psnr"]).all()
    assert rows["label"].tolist() == list(result.labels) == [0, 0, 1, 1, 2]
    shown = np.stack([np.asarray(Image.open(path)) for path in result.pictures])
    np.testing.assert_array_equal(shown, run.rendered(rows["splats"]))
    assert len(np.unique(shown, axis=0)) == 5
    assert list((tmp_path / "out").glob("*.lock")) == []
    for path in result.gifs:
        with Image.open(path) as picture:
            assert getattr(picture, "n_frames", 1) > 1
    assert {path.name for path in result.gifs} == {"forward.gif", "sampling.gif"}
    with Image.open(tmp_path / "out" / "sampling.gif") as picture:
        assert getattr(picture, "n_frames", 1) == 3, "two evaluations and the result"


def frames_of(path: Path) -> list[np.ndarray]:
    with Image.open(path) as picture:
        return [
            np.asarray(frame.convert("RGB"), np.int16)
            for number in range(getattr(picture, "n_frames", 1))
            for frame in [picture.seek(number) or picture]
        ]


@pytest.mark.slow
def test_both_spaces_go_their_way_side_by_side(run: Run, pixel_run: Run, tmp_path: Path) -> None:
    alone = sample(run, job(tmp_path / "alone", number=1, gif=True, evaluations=4))
    result = sample(run, job(tmp_path / "out", number=1, gif=True, evaluations=4), beside=pixel_run)
    np.testing.assert_array_equal(splats_of(result.store), splats_of(alone.store))
    frames, left = frames_of(tmp_path / "out" / "sampling.gif"), frames_of(tmp_path / "alone" / "sampling.gif")
    steps = pixel_run.objective.settings.evaluations
    assert max(steps, 4) < len(frames) <= steps + 4 + 1
    width = left[0].shape[1]
    assert frames[0].shape[1] > width * 1.5, "the pixels and what the network takes for clean stand on the right"
    # GIFs have 256 colours a frame: the same image differs a little beside another.
    shares = [np.abs(frames[place][:, :width] - left[place]).mean() for place in (0, -1)]
    assert max(shares) < 8
    right = [frame[:, width + 4 :] for frame in frames]
    assert np.abs(right[0] - right[-1]).mean() > 10
    assert len(frames_of(tmp_path / "out" / "forward.gif")) == len(frames_of(tmp_path / "alone" / "forward.gif"))


@pytest.mark.slow
def test_only_pixels_of_the_same_size_stand_beside_splats(
    run: Run, pixel_run: Run, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="--beside without --gif"):
        sample(run, job(tmp_path / "out"), beside=pixel_run)
    with pytest.raises(JobError, match="splats of 8 x 8 x 3 beside splats of 8 x 8 x 3"):
        sample(run, job(tmp_path / "out", gif=True), beside=run)
    with pytest.raises(JobError, match="pixels of 8 x 8 x 3 beside pixels"):
        sample(pixel_run, job(tmp_path / "out", gif=True), beside=pixel_run)
    other = ArrayImages(pictures(8, side=12))
    encode_run(tmp_path / "large.zarr", other)
    large = load_run(small_run(tmp_path / "large.zarr", tmp_path / "large", model="pixel-dit"), device="cpu")
    with pytest.raises(JobError, match="beside pixels of 12 x 12 x 3"):
        sample(run, job(tmp_path / "out", gif=True), beside=large)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_an_image_does_not_depend_on_its_batch(run: Run, tmp_path: Path) -> None:
    together = sample(run, job(tmp_path / "a", label="red"))
    alone = sample(run, job(tmp_path / "b", label="red", batch=1, number=2))
    np.testing.assert_allclose(splats_of(together.store)[:2], splats_of(alone.store), atol=2e-4)
    other = sample(run, job(tmp_path / "c", label="red", number=2, seed=1))
    assert np.abs(splats_of(other.store) - splats_of(alone.store)).max() > 0.01


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 8, 40])
def test_any_size(run: Run, tmp_path: Path, size: int) -> None:
    result = sample(run, job(tmp_path / "out", size=size, number=1))
    assert Image.open(result.pictures[0]).size == (size, size)


@pytest.mark.slow
def test_labels_and_guidance_reach_the_network(run: Run, tmp_path: Path) -> None:
    given = {
        name: splats_of(sample(run, job(tmp_path / name, number=1, label=label, guidance=guidance)).store)
        for name, label, guidance in (
            ("red", "red", 1.0),
            ("zero", "0", 1.0),
            ("blue", "blue", 1.0),
            ("none", "none", 1.0),
            ("strong", "red", 4.0),
        )
    }
    np.testing.assert_array_equal(given["red"], given["zero"])
    for other in ("blue", "none", "strong"):
        assert np.abs(given["red"] - given[other]).max() > 1e-4, other
    assert labels_for(run, job(tmp_path, number=6)).tolist() == [0, 0, 1, 1, 2, 2]
    assert labels_for(run, job(tmp_path, number=2, label="all")).tolist() == [0, 1]


@pytest.mark.slow
def test_inpainting_keeps_the_rest_exactly(run: Run, store: Path, tmp_path: Path) -> None:
    known = splats_of(store)[3].astype(np.float32)
    result = sample(run, job(tmp_path / "out", known=KnownPart(str(store), "3", BOX)))
    drawn = known[:, -2] <= 0  # the left half of the image
    assert 0 < drawn.sum() < GAUSSIANS
    found = splats_of(result.store)
    np.testing.assert_array_equal(found[:, ~drawn], np.broadcast_to(known[~drawn], (4, (~drawn).sum(), 8)))
    assert np.abs(found[:, drawn] - known[drawn]).max() > 0.01
    assert set(result.labels) == {0}, "the label of the image, row 3 of three classes"
    assert f"{drawn.sum()} of {GAUSSIANS}" in result.notes[0]


@pytest.mark.slow
def test_recolouring_keeps_the_geometry_exactly(run: Run, store: Path, tmp_path: Path) -> None:
    known = splats_of(store)[1].astype(np.float32)
    found = splats_of(sample(run, job(tmp_path / "out", known=KnownPart(str(store), "image-0001"))).store)
    np.testing.assert_array_equal(found[..., [0, 1, 2, 6, 7]], np.broadcast_to(known[:, [0, 1, 2, 6, 7]], (4, 6, 5)))
    assert np.abs(found[..., 3:6] - known[:, 3:6]).max() > 0.01


@pytest.mark.slow
def test_a_known_image_is_brought_into_the_order_of_the_training(folder: Path, store: Path, tmp_path: Path) -> None:
    run = load_run(small_run(store, folder / "ordered", model="splatdit", order="anchors"), device="cpu")
    known = read_image(store, "2")
    write_image(replace(known, splats=known.splats[::-1]), tmp_path / "turned.zarr", what="turned round")
    part = KnownPart(str(tmp_path / "turned.zarr"), "0")
    found = splats_of(sample(run, job(tmp_path / "out", number=1, known=part)).store)
    np.testing.assert_array_equal(found[0][:, [0, 1, 2, 6, 7]], known.splats[:, [0, 1, 2, 6, 7]])


@pytest.mark.slow
def test_pixels_are_sampled_and_inpainted(pixel_run: Run, store: Path, tmp_path: Path) -> None:
    result = sample(pixel_run, job(tmp_path / "out", size=16, gif=True, known=KnownPart(str(store), "2", BOX)))
    assert result.store is None
    with open_store(store) as opened:
        known = opened.read(["image"], [2])["image"][0]
    for path in result.pictures:
        pixels = np.asarray(Image.open(path))[::2, ::2]
        assert np.abs(pixels[:, 4:].astype(int) - known[:, 4:]).max() <= 1
        assert (pixels[:, :4] != known[:, :4]).any()
    with pytest.raises(JobError, match="multiples of 8"):
        sample(pixel_run, job(tmp_path / "odd", size=9))
    with pytest.raises(SamplingError, match="pixels, not splats"):
        sample(pixel_run, job(tmp_path / "colours", known=KnownPart(str(store), "2")))
    with pytest.raises(SamplingError, match="pixels, not splats"):
        sample(pixel_run, job(tmp_path / "between", interpolate=(0, 1)))
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.slow
def test_interpolation_goes_straight_from_one_to_the_other(run: Run, tmp_path: Path) -> None:
    result = sample(run, job(tmp_path / "out", interpolate=(0, 3)))
    splats = splats_of(result.store)
    features = run.representation.encode(torch.from_numpy(splats))
    way = between(run, features[0], features[3], frames=5)
    np.testing.assert_allclose(way[[0, -1]], splats[[0, 3]], atol=1e-4)
    centres = way[..., -2:]
    np.testing.assert_allclose(
        np.diff(centres, axis=0), np.diff(centres, axis=0).mean(axis=0)[None].repeat(4, 0), atol=1e-5
    )
    assert result.strip is not None
    assert Image.open(result.strip).width > 9 * 8


@pytest.mark.slow
def test_gaussians_without_slots_go_to_their_nearest(folder: Path, store: Path) -> None:
    run = load_run(small_run(store, folder / "set", model="set"), device="cpu")
    features = run.representation.encode(torch.from_numpy(splats_of(store)[:1].astype(np.float32)))[0]
    way = between(run, features, features.flip(0))
    np.testing.assert_allclose(way, np.broadcast_to(way[0], way.shape), atol=1e-4)


def test_a_grid_shows_every_picture_at_its_place() -> None:
    images = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 3, 1), np.uint8) + np.uint8(100)
    picture, shown = grid_of(images, columns=2, smallest=8, gap=1)
    pixels = np.asarray(picture)
    assert (shown, pixels.shape) == (5, (1 + 3 * 9, 1 + 2 * 7))
    assert [pixels[1 + row * 9, 1 + column * 7] for row in range(3) for column in range(2)][:5] == [*range(100, 105)]


@pytest.mark.slow
def test_what_cannot_be_sampled_is_refused_and_leaves_nothing(run: Run, store: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(JobError, match="Allowed: 0 to 2, all, none, red, green, blue"):
        sample(run, job(out, label="purple"))
    with pytest.raises(SamplingError, match="without a label"):
        sample(run, job(out, label="none", guidance=3.0))
    with pytest.raises(JobError, match="holds nothing"):
        sample(run, job(out, known=KnownPart(str(store), "0", (90, 90, 99, 99))))
    with pytest.raises(StoreError, match="no image 'nobody'"):
        sample(run, job(out, known=KnownPart(str(store), "nobody", BOX)))
    other = tmp_path / "other.zarr"
    encode_run(other, ArrayImages(pictures(2, side=10)))
    with pytest.raises(StoreMismatchError, match="height 10"):
        sample(run, job(out, known=KnownPart(str(other), "0", BOX)))
    for wrong in ({"number": 0}, {"size": 0}, {"sampler": "best"}, {"evaluations": 0}, {"interpolate": (0, 9)}):
        with pytest.raises(JobError):
            job(out, **wrong)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("out")] == []
    out.mkdir()
    (out / "mine.txt").write_text("kept")
    with pytest.raises(StoreError, match="exists already"):
        sample(run, job(out))
    assert [path.name for path in out.iterdir()] == ["mine.txt"]


@pytest.mark.slow
def test_a_network_that_does_not_stay_finite_leaves_nothing(run: Run, tmp_path: Path) -> None:
    held = load_checkpoint(run.path / "model.safetensors")
    broken = tmp_path / "run"
    broken.mkdir()
    weights = {name: torch.full_like(value, float("nan")) for name, value in held.model.items()}
    save_checkpoint(broken / "model.safetensors", weights, held.config, held.tensors)
    with pytest.raises(SamplingError, match="not finite"):
        sample(load_run(broken, device="cpu"), job(tmp_path / "out"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_sigterm_leaves_with_130_and_no_folder(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def terminated(*_arguments: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    partial_name(tmp_path / "out").mkdir()  # what a killed sampling left
    monkeypatch.setattr("pipeline.sample.gallery.save_png", terminated)
    given = ("sample", run.path, "-n", 2, "--evaluations", 1, "--device", "cpu", "--out", tmp_path / "out")
    result = CliRunner(env={"TERM": "dumb"}).invoke(app, [str(word) for word in given])
    assert result.exit_code == 130, result.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_numbers_of_many_digits_and_guidance_without_labels_are_refused(
    run: Run, pixel_run: Run, store: Path, tmp_path: Path
) -> None:
    with pytest.raises(JobError, match="Allowed: 0 to 2, all"):
        sample(run, job(tmp_path / "out", label="9" * 5000))
    with pytest.raises(StoreError, match="no image '999"):
        read_image(store, "9" * 5000)
    pixel_run.require_guidable(1.0)
    with pytest.raises(SamplingError, match="--guidance 3 without a label to follow"):
        pixel_run.require_guidable(3.0)
    run.require_guidable(3.0)


@pytest.mark.slow
def test_a_foreign_checkpoint_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint"):
        load_run(tmp_path)
    save_checkpoint(tmp_path / "model.safetensors", {}, {"kind": "something else"})
    with pytest.raises(CheckpointError, match="describes no generator"):
        load_run(tmp_path)
    held = load_checkpoint(run.path / "model.safetensors")
    for part, name, value in (("data", "gaussians", -1), ("data", "height", 10**30), ("job", "batch", None),
                              ("representation", "kind", "other"), ("objective", "classes", "many")):  # fmt: skip
        broken = {**held.config[part]}
        broken.pop(name) if value is None else broken.update({name: value})
        save_checkpoint(tmp_path / "model.safetensors", held.model, {**held.config, part: broken}, held.tensors)
        with pytest.raises(CheckpointError):
            load_run(tmp_path)
    save_checkpoint(tmp_path / "model.safetensors", held.model, {**held.config, "codec": None}, held.tensors)
    with pytest.raises(CheckpointError, match="codec None"):
        load_run(tmp_path)
    save_checkpoint(tmp_path / "model.safetensors", held.model, {**held.config, "colours": 7}, held.tensors)
    with pytest.raises(CheckpointError, match="describes no store"):
        sample(load_run(tmp_path, device="cpu"), job(tmp_path / "out"))
    whole = (run.path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError):
        load_run(tmp_path)
    with pytest.raises(JobError, match="Device 'quantum'"):
        load_run(run.path, device="quantum")


@pytest.mark.slow
def test_the_command(run: Run, store: Path, tmp_path: Path) -> None:
    def splatspace(*arguments: object):
        return CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(app, [str(each) for each in arguments])

    common = ("sample", run.path, "-n", 2, "--evaluations", 1, "--device", "cpu")
    given = ("--inpaint", f"{store}:3", "--box", "0,0,4,8", "--hdf5", "--json")
    result = splatspace(*common, "--out", tmp_path / "a", *given)
    assert result.exit_code == 0, result.output
    content = json.loads(result.stdout)
    assert Path(content["store"]).name == "samples.h5"
    assert Path(content["grid"]).is_file()
    assert "Gaussians are drawn again" in result.stderr
    for wrong in (("--box", "0,0,4,8"), ("--inpaint", f"{store}:3"), ("--inpaint", "x", "--box", "0,0,1,1"),
                  ("--inpaint", f"{store}:3", "--box", "4,0,0,8"), ("--interpolate", "0,a")):  # fmt: skip
        refused = splatspace(*common, "--out", tmp_path / "b", *wrong)
        assert refused.exit_code == 2, refused.output
    assert not (tmp_path / "b").exists()


def test_a_program_may_name_the_folder_as_text() -> None:
    job: Any = SampleJob
    assert job("samples").out == Path("samples")
