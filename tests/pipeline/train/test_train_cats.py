"""Trainings of the patch models: recipes, resuming, repeats, images held out, losses on how images look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_schemas.errors import JobError, StoppedError, TrainingError
from data_schemas.stores.open import open_store
from models.checkpoint import load_checkpoint
from models.image_losses import BACKBONE_FILE, SMALLEST_SIDE
from models.names import HeadName, RecipeName, model_name
from models.patches.model import HEADS, RECIPES
from pipeline.sample.run import load_run
from pipeline.train.cats_job import RECIPE_DEFAULTS, head_of, resolve_cats_job
from pipeline.train.job import TrainJob, resolve_train_job
from pipeline.train.loop import learning_rate
from pipeline.train.rows import split_rows
from pipeline.train.state import continue_job
from pipeline.train.train import train
from tests.models.vgg_weights import save_vgg, vgg_features
from tests.pipeline.encode.fakes import ArrayImages, pictures, run
from tests.pipeline.training_runs import FAST


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images, of which the last four repeat earlier ones."""
    path = tmp_path_factory.mktemp("stores") / "cats.zarr"
    images = pictures(36)
    run(path, ArrayImages(np.concatenate([images, images[:4]])), block_rows=64)
    return path


def _job(store: Path, out: Path, **options: Any) -> TrainJob:
    return resolve_cats_job(store, out, **{"head": "splats", **FAST, "steps": 4, "every": 4, **options})


def _weights(run_folder: Path, name: str = "model.safetensors") -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(run_folder / name).model)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("head", HEADS)
def test_every_head_and_recipe_trains_and_can_be_read_back(
    store: Path, tmp_path: Path, head: HeadName, recipe: RecipeName
) -> None:
    summary = train(_job(store, tmp_path / "run", head=head, recipe=recipe, steps=2, every=2))
    loaded = load_run(tmp_path / "run", device="cpu")
    assert summary.model == loaded.config["model"]
    assert summary.model == model_name(head, recipe)
    assert head_of(summary.model) == (head, recipe)
    assert loaded.objective.classes == (0 if recipe == "published" else 3)
    settings = loaded.objective.settings
    wanted = RECIPE_DEFAULTS[recipe]["objective_changes"]
    assert all(getattr(settings, name) == value for name, value in wanted.items())
    assert (tmp_path / "run" / "samples" / "0000002.png").exists()


@pytest.mark.slow
def test_repeats_are_left_out_and_some_images_kept_apart_both_counted_and_named(store: Path, tmp_path: Path) -> None:
    summary = train(_job(store, tmp_path / "run", held_out=0.25))
    assert summary.repeats == 4
    assert summary.repeats_named == tuple(f"image-{number:04d}" for number in range(36, 40))
    assert summary.held_out > 0
    assert summary.images + summary.held_out + summary.repeats == 40
    recorded = load_checkpoint(tmp_path / "run" / "model.safetensors").config["store"]
    assert (recorded["repeats"], recorded["held_out"]) == (4, summary.held_out)
    card = (tmp_path / "run" / "card.md").read_text()
    assert "| rows that repeat others, not used | 4 |" in card
    assert f"| images held out | {summary.held_out} |" in card
    assert "| loss in image space | gradient, weight 0.5 |" in card


def test_the_split_follows_the_contents_and_not_the_order(store: Path) -> None:
    with open_store(store, "r") as opened:
        hashes = opened.read(["content_hash"])["content_hash"]
    rows = np.arange(40)
    split = split_rows(rows, hashes, distinct=True, held_out=0.3)
    assert split.repeats.tolist() == [36, 37, 38, 39]
    assert sorted([*split.training, *split.held_out]) == list(range(36))
    order = np.random.default_rng(0).permutation(40)
    shuffled = split_rows(rows, hashes[order], distinct=True, held_out=0.3)
    assert {hashes[row].tobytes() for row in split.held_out} == {
        hashes[order][row].tobytes() for row in shuffled.held_out
    }
    everything = split_rows(rows, hashes, distinct=False, held_out=0.0)
    assert everything.training.tolist() == list(range(40))
    empty = split_rows(rows[:0], hashes[:0], distinct=True, held_out=0.5)
    assert len(empty.training) == len(empty.held_out) == len(empty.repeats) == 0


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_stopped_training_continues_to_the_bit(store: Path, tmp_path: Path, recipe: str) -> None:
    train(_job(store, tmp_path / "whole", recipe=recipe))
    asked = iter([False, True])
    with pytest.raises(StoppedError):
        train(_job(store, tmp_path / "parts", recipe=recipe), should_stop=lambda: next(asked))
    train(continue_job(tmp_path / "parts", {}), resume=True)
    for name in ("model.safetensors", "state.safetensors"):
        whole, parts = (_weights(tmp_path / folder, name) for folder in ("whole", "parts"))
        assert all(torch.equal(whole[key], parts[key]) for key in whole)


@pytest.mark.slow
def test_each_loss_and_the_mirror_change_what_is_learned(store: Path, tmp_path: Path) -> None:
    ways = {
        "plain": {"perceptual": "none", "flip": 0.0},
        "edges": {"perceptual": "gradient", "flip": 0.0},
        "waves": {"perceptual": "dct", "flip": 0.0},
        "flipped": {"perceptual": "none", "flip": 1.0},
    }
    learned = {}
    for name, options in ways.items():
        train(_job(store, tmp_path / name, learning_rate=1e-2, steps=2, every=2, **options))
        learned[name] = _weights(tmp_path / name)["head.leave.bias"]
    for name in ("edges", "waves", "flipped"):
        assert not torch.equal(learned["plain"], learned[name]), name


@pytest.mark.slow
def test_lpips_trains_with_weights_of_a_folder_and_the_published_recipe_takes_it_where_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "larger.zarr"
    run(store, ArrayImages(pictures(4, side=SMALLEST_SIDE)))
    save_vgg(vgg_features(), tmp_path / BACKBONE_FILE)
    learned = {}
    for perceptual in (None, "lpips", "none"):
        out = tmp_path / str(perceptual)
        train(_job(store, out, recipe="published", perceptual=perceptual, lpips_weights=tmp_path, steps=1, batch=2))
        learned[perceptual] = _weights(out)["head.leave.bias"]
    assert "LPIPS is off" not in caplog.text
    assert torch.equal(learned[None], learned["lpips"])
    assert not torch.equal(learned[None], learned["none"])


@pytest.mark.slow
def test_the_gram_penalty_turns_patterns_away_from_each_other(store: Path, tmp_path: Path) -> None:
    def closeness(gram: float) -> float:
        out = tmp_path / str(gram)
        changes = {"entries": 64, "gram": gram}
        train(_job(store, out, head="lut", steps=20, every=20, learning_rate=1e-2, changes=changes, ema=False))
        table = torch.nn.functional.normalize(_weights(out)["head.table"], dim=1)
        return float((table @ table.T - torch.eye(64)).square().mean())

    assert closeness(100.0) < 0.9 * closeness(0.0)


def test_the_published_rate_does_not_fall_and_the_improved_one_does(store: Path, tmp_path: Path) -> None:
    published, modern = (_job(store, tmp_path, recipe=recipe, steps=1000) for recipe in ("published", "modern"))
    assert learning_rate(published, 0) == learning_rate(published, 999) == 1e-4
    assert learning_rate(modern, 999) < 0.02 * learning_rate(modern, 100)
    assert (published.ema, published.clip, published.second_moment) == (False, 0.0, 0.999)
    other = _job(store, tmp_path, recipe="published", head="lut", ema=True)
    assert (other.learning_rate, other.ema) == (3e-4, True)


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_with_step_and_rows(store: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"loss of step \d+ is not a number: rows"):
        train(_job(store, tmp_path / "run", learning_rate=1.0, recipe="published", head="kpn", steps=60, every=60))
    assert (tmp_path / "run" / "state.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "mlp"}, "--head mlp"),
        ({"recipe": "old"}, "--recipe old"),
        ({"model": "pixel-dit"}, "--model pixel-dit with train cats"),
        ({"held_out": 1.0}, "--held-out 1.0"),
        ({"preset": "huge"}, "--preset 'huge'"),
        ({"perceptual": "vgg"}, "--perceptual 'vgg'"),
    ],
)
def test_impossible_trainings_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        _job(tmp_path / "a.zarr", tmp_path / "run", **options)


def test_splats_have_no_loss_on_pixels(tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--perceptual or --flip of splats"):
        resolve_train_job("splats", tmp_path / "a.zarr", tmp_path / "run", flip=0.5)
