"""What is learned from: rows, order, batches; and what happens where they are bad."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from data_schemas.errors import JobError, StoreMismatchError, TrainingError
from data_schemas.splats import RGB
from data_schemas.stores.open import open_store
from encoders.render import render
from encoders.start.begin import anchors
from models.checkpoint import load_checkpoint
from models.diffusion.objectives import Objective
from models.registry import model_named
from pipeline.train.job import resolve_train_job
from pipeline.train.loader import Loader
from pipeline.train.rows import TrainingRows, order_by_anchors, slots_for
from pipeline.train.train import train
from tests.pipeline.encode.fakes import ArrayImages, pictures
from tests.pipeline.encode.fakes import run as encode
from tests.pipeline.training_runs import job_of, make_store, trained


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "a.zarr")


@pytest.fixture(scope="module")
def slotless(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same store, whose index of a Gaussian means nothing."""
    path = make_store(tmp_path_factory.mktemp("stores") / "slotless.zarr")
    with open_store(path, "a") as store:
        store.set_header(store.header.model_copy(update={"anchors": None, "start": "adaptive"}))
        random = np.random.default_rng(0)
        for block in range(-(-len(store) // store.header.block_rows)):
            rows = store.read_block(block)
            for image in rows.splats:
                image[:] = random.permutation(image)
            store.write_block(block, rows)
    return path


def _loader(store: Any, tmp_path: Path, *, most: int = 2**30, batch: int = 5, **share: int) -> Loader:
    rows = TrainingRows(store, job_of(Path(str(store.path)), tmp_path / "run"))
    representation = rows.fitted_representation()
    return Loader(rows, representation, device=torch.device("cpu"), batch=batch, seed=1, most_bytes=most, **share)


@pytest.mark.slow
@pytest.mark.parametrize("most", [2**30, 2 * 8 * 6 * 8 * 4])
def test_every_epoch_shows_every_image_once(store: Path, tmp_path: Path, most: int) -> None:
    with open_store(store) as opened:
        loader = _loader(opened, tmp_path, most=most)
        assert loader.resident == (most == 2**30)
        seen = np.concatenate([loader.rows(step) for step in range(24)])
        batches = [loader.batch(step) for step in range(24)]
        loader.close()
    assert (np.concatenate([batch.rows for batch in batches]) == seen).all()
    orders = seen.reshape(5, 24)
    assert all(sorted(order) == list(range(24)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5
    with open_store(store) as opened:
        rows = TrainingRows(opened, job_of(store, tmp_path / "run"))
        representation = rows.fitted_representation()
        expected = representation.encode(torch.from_numpy(rows.stored(batches[7].rows)))
        labels = opened.read(["label"], batches[7].rows.tolist())["label"]
    torch.testing.assert_close(batches[7].clean, expected)
    assert batches[7].label is not None
    assert batches[7].label.tolist() == labels.tolist()


def test_processes_share_a_batch(store: Path, tmp_path: Path) -> None:
    with open_store(store) as opened:
        whole = _loader(opened, tmp_path, batch=6)
        parts = [_loader(opened, tmp_path, batch=6, rank=rank, world=2) for rank in range(2)]
        for step in range(9):
            assert np.concatenate([part.rows(step) for part in parts]).tolist() == whole.rows(step).tolist()
        for loader in (whole, *parts):
            loader.close()


@pytest.mark.slow
def test_a_store_without_slots_is_refused_with_a_way_out(slotless: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="no slot identity") as caught:
        trained(slotless, tmp_path / "run")
    assert "--order anchors" in str(caught.value)
    assert not list(tmp_path.glob("run/*"))


@pytest.mark.parametrize("order", ["auto", "stored", "anchors"])
def test_a_store_of_images_only_has_no_gaussians_to_learn(order: str, store: Path, tmp_path: Path) -> None:
    with open_store(store) as opened:
        header = opened.header.model_copy(update={"gaussians": 0, "anchors": None, "start": ""})
    with pytest.raises(JobError, match=r"holds images only.*--gaussians 1 or more"):
        slots_for(job_of(store, tmp_path / "run", order=order), header, model_named("splatdit"))


@pytest.mark.slow
def test_reordering_finds_the_anchors_again(slotless: Path, store: Path, tmp_path: Path) -> None:
    with open_store(slotless) as shuffled, open_store(store) as original:
        rows = TrainingRows(shuffled, job_of(slotless, tmp_path / "run", order="anchors"))
        expected = original.read(["splats"])["splats"]
        assert not np.array_equal(shuffled.read(["splats"])["splats"], expected)
        np.testing.assert_array_equal(rows.stored(slice(None)), expected)
    trained(slotless, tmp_path / "run", order="anchors", steps=2)
    config = load_checkpoint(tmp_path / "run" / "model.safetensors").config
    assert config["store"]["order"].startswith("assigned to anchors")
    assert len(config["data"]["anchors"]) == 6


def test_an_order_shows_the_same_picture() -> None:
    random = np.random.default_rng(0)
    splats = random.uniform(0.1, 0.9, (2, 12, 8)).astype(np.float32)
    splats[..., -2:] = random.uniform(-1, 1, (2, 12, 2))
    ordered = order_by_anchors(splats, RGB, anchors(12, 8, 8))
    assert not np.array_equal(ordered, splats)
    before, after = (render(torch.from_numpy(each), RGB, "additive/1", 8, 8) for each in (splats, ordered))
    torch.testing.assert_close(before, after)


@pytest.mark.slow
def test_order_as_stored_can_be_insisted_on(slotless: Path, tmp_path: Path) -> None:
    trained(slotless, tmp_path / "run", order="stored", steps=2)
    assert load_checkpoint(tmp_path / "run" / "model.safetensors").config["data"]["anchors"] is None


@pytest.mark.slow
@pytest.mark.parametrize(("model", "order"), [("set", "auto"), ("set-induced", "auto"), ("splatdit", "anchors")])
def test_what_would_lose_the_order_of_layers_is_refused(tmp_path: Path, model: str, order: str) -> None:
    path = make_store(tmp_path / "over.zarr", count=4)
    with open_store(path, "r") as store:
        header = store.header.model_copy(update={"codec": "over/1", "layout": "rgb_alpha"})
    with pytest.raises(JobError, match="over/1"):
        slots_for(job_of(path, tmp_path / "run", model=model, order=order), header, model_named(model))


@pytest.mark.slow
def test_unfinished_rows_are_counted_and_named(tmp_path: Path) -> None:
    source = ArrayImages(pictures(12))
    source.broken["image-0005"] = "cannot be read"
    encode(tmp_path / "a.zarr", source)
    summary = trained(tmp_path / "a.zarr", tmp_path / "run", steps=2)
    assert (summary.images, summary.unfinished) == (11, 1)
    assert summary.unfinished_named == ("image-0005",)
    assert "unfinished rows, not used | 1" in (tmp_path / "run" / "card.md").read_text()


@pytest.mark.parametrize("kind", ["splats", "pixels"])
@pytest.mark.parametrize(("limit", "said"), [(23, ""), (24, ""), (1000, "limit 1,000 is more than ")])
def test_a_limit_above_the_number_of_images_is_told(
    store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, limit: int, said: str
) -> None:
    with open_store(store) as opened:
        rows = TrainingRows(opened, job_of(store, tmp_path / "run", kind=kind, limit=limit))
    assert len(rows) == min(limit, 24)
    [message] = [record.getMessage() for record in caplog.records] or [""]
    assert message.startswith(said)
    assert bool(said) == message.endswith("a.zarr has: all of its 24 images to learn from are used")


@pytest.mark.slow
def test_too_few_images(tmp_path: Path) -> None:
    path = make_store(tmp_path / "one.zarr", count=1)
    with pytest.raises(TrainingError, match="1 finished images"):
        trained(path, tmp_path / "run")


@pytest.mark.slow
def test_pixels_need_images(tmp_path: Path) -> None:
    path = make_store(tmp_path / "bare.zarr", images=False)
    with pytest.raises(StoreMismatchError, match="no source images"):
        trained(path, tmp_path / "run", kind="pixels")


@pytest.mark.slow
def test_labels_that_are_not_there(tmp_path: Path) -> None:
    source = ArrayImages(pictures(6))
    source.labels = dict.fromkeys(source.labels, -1)
    encode(tmp_path / "a.zarr", source)
    with pytest.raises(JobError, match="no labels"):
        trained(tmp_path / "a.zarr", tmp_path / "run", classes=True)
    trained(tmp_path / "a.zarr", tmp_path / "run", steps=1)
    assert load_checkpoint(tmp_path / "run" / "model.safetensors").config["data"]["classes"] == 0


@pytest.mark.slow
def test_a_loss_that_is_not_a_number_stops_and_keeps_the_checkpoint(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Objective.loss
    calls = 0

    def spoilt(self: Objective, *arguments: Any, **options: Any) -> Tensor:
        nonlocal calls
        calls += 1
        losses = whole(self, *arguments, **options)
        return losses * torch.tensor([1.0, float("nan")] + [1.0] * 6) if calls == 5 else losses

    monkeypatch.setattr(Objective, "loss", spoilt)
    job = job_of(store, tmp_path / "run")
    with open_store(store) as opened:
        loader = Loader(
            rows := TrainingRows(opened, job),
            rows.fitted_representation(),
            device=torch.device("cpu"),
            batch=8,
            seed=0,
            most_bytes=2**30,
        )
        row = loader.rows(4)[1]
        name = opened.read(["source_id"], [row])["source_id"][0]
        loader.close()
    with pytest.raises(TrainingError, match=rf"step 5 is not a number: rows {row} \({re.escape(name)}\);"):
        train(job)
    checkpoint = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert checkpoint.config["step"] == 3
    assert all(torch.isfinite(value).all() for value in checkpoint.model.values())
    assert load_checkpoint(tmp_path / "run" / "state.safetensors").config["step"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "nothing"}, "model 'nothing'"),
        ({"model": "pixel-unet"}, "which makes pixels"),
        ({"objective": "nothing"}, "Objective 'nothing'"),
        ({"covariance": "nothing"}, "--covariance 'nothing'"),
        ({"normalisation": "nothing"}, "--normalisation 'nothing'"),
        ({"steps": 0}, "--steps 0"),
        ({"learning_rate": 2.0}, "--learning-rate"),
        ({"model": "published", "classes": True}, "--classes"),
        ({"kind": "pixels", "render_loss": 1.0}, "--render-loss"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobError, match=message):
        job_of(tmp_path / "a.zarr", tmp_path / "run", **options)


@pytest.mark.parametrize(
    ("options", "rate"),
    [({"preset": "tiny"}, 3e-3), ({"preset": "small"}, 1e-3), ({"preset": "tiny", "model": "set"}, 1e-3),
     ({"preset": "tiny", "learning_rate": 5e-4}, 5e-4)],
)  # fmt: skip
def test_the_learning_rate_follows_model_and_preset(tmp_path: Path, options: dict[str, Any], rate: float) -> None:
    assert resolve_train_job("splats", tmp_path / "a.zarr", tmp_path / "run", **options).learning_rate == rate
