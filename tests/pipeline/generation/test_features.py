"""Feature extractors: what they learn, that they repeat, what they keep, and that none stands in for another."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_schemas.errors import EvaluationError
from data_schemas.stores import open_store
from models.checkpoint import read_config
from pipeline.generation import feature_training, features
from pipeline.generation.features import INCEPTION_FILE, INCEPTION_VARIABLE, build_extractor, inception_weights
from tests.pipeline.encode.fakes import ArrayImages, run

CLASSES = 3


def coloured(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise whose brightest channel is the number of the image modulo three: the label of ``ArrayImages``."""
    images = np.random.default_rng(seed).integers(0, 140, (count, 8, 8, 3), dtype=np.uint8)
    images[np.arange(count), :, :, np.arange(count) % CLASSES] += 100
    return images


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("features") / "colours.zarr"
    run(path, ArrayImages(coloured(160)), block_rows=64)
    return path


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training of few steps, where how well it learnt is not the question."""
    monkeypatch.setattr(feature_training, "_STEPS", 8)


def test_the_classifier_learns_the_labels_and_is_kept(store: Path) -> None:
    with open_store(store, "r") as opened:
        extractor = build_extractor("auto", opened)
        assert extractor.name == "classifier"
        assert extractor.facts["accuracy"] > 0.9
        images = torch.from_numpy(coloured(30, seed=5).transpose(0, 3, 1, 2).copy())
        vectors = extractor.forward(images)
        assert vectors.shape == (30, extractor.dimension)
        answers = extractor.logits(images)
        assert answers is not None
        assert (answers.argmax(dim=1) == torch.arange(30) % CLASSES).float().mean() > 0.9
        kept = list((store.parent / "colours-features").glob("classifier-*.safetensors"))
        assert len(kept) == 1
        assert read_config(kept[0])["sha"] == extractor.sha
        before = kept[0].stat().st_mtime_ns
        again = build_extractor("classifier", opened)
        assert kept[0].stat().st_mtime_ns == before
        assert again.sha == extractor.sha
        assert torch.equal(again.forward(images), vectors)


def test_a_second_training_gives_the_same_weights(store: Path, tmp_path: Path, brief: None) -> None:
    with open_store(store, "r") as opened:
        for name in ("classifier", "selfsup"):
            one = build_extractor(name, opened, cache=tmp_path / "one")
            torch.rand(7)  # the state of torch's own generator must not matter
            other = build_extractor(name, opened, cache=tmp_path / "other")
            assert one.sha == other.sha


def test_damaged_features_are_learnt_again_and_said(
    store: Path, tmp_path: Path, brief: None, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(store, "r") as opened:
        sha = build_extractor("selfsup", opened, cache=tmp_path).sha
        [kept] = tmp_path.iterdir()
        kept.write_bytes(kept.read_bytes()[:500])
        with caplog.at_level(logging.WARNING, "splatspace"):
            assert build_extractor("selfsup", opened, cache=tmp_path).sha == sha
    assert "learnt again" in caplog.text


def test_features_follow_the_images(store: Path, tmp_path: Path, brief: None) -> None:
    other = tmp_path / "other.zarr"
    run(other, ArrayImages(coloured(160, seed=9)), block_rows=64)
    with open_store(store, "r") as first, open_store(other, "r") as second:
        cache = tmp_path / "cache"
        assert build_extractor("selfsup", first, cache=cache).sha != build_extractor("selfsup", second, cache=cache).sha
    assert len(list(cache.iterdir())) == 2


def test_images_without_labels_and_oblong_ones_get_self_supervised_features(tmp_path: Path, brief: None) -> None:
    source = ArrayImages(np.random.default_rng(0).integers(0, 256, (40, 6, 10, 1), dtype=np.uint8))
    source.labels = dict.fromkeys(source.labels, -1)
    run(tmp_path / "grey.zarr", source)
    with open_store(tmp_path / "grey.zarr", "r") as opened:
        extractor = build_extractor("auto", opened)
        assert extractor.name == "selfsup"
        assert extractor.logits(torch.zeros(2, 1, 6, 10, dtype=torch.uint8)) is None
        assert torch.isfinite(extractor.forward(torch.zeros(2, 1, 6, 10, dtype=torch.uint8))).all()
        with pytest.raises(EvaluationError, match="no labels"):
            build_extractor("classifier", opened)


def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "few.zarr", ArrayImages(coloured(19)))
    run(tmp_path / "bare.zarr", ArrayImages(coloured(40)), images=False)
    with (
        open_store(tmp_path / "few.zarr", "r") as opened,
        pytest.raises(EvaluationError, match=r"19 finished images .* 20 or more"),
    ):
        build_extractor("auto", opened)
    with open_store(tmp_path / "bare.zarr", "r") as opened, pytest.raises(EvaluationError, match="no source images"):
        build_extractor("auto", opened)


def test_inception_is_never_replaced(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"no weights")
    monkeypatch.setenv(INCEPTION_VARIABLE, str(tmp_path / "absent.pth"))
    with open_store(store, "r") as opened:
        with pytest.raises(EvaluationError, match=r"absent\.pth"):
            build_extractor("inception", opened)
        with pytest.raises(EvaluationError, match=r"torch-fidelity|could not be used"):
            build_extractor("inception", opened, weights=weights)


def test_where_the_weights_of_inception_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(INCEPTION_VARIABLE, raising=False)
    monkeypatch.setattr(features, "get_dir", lambda: str(tmp_path))

    def refused(url: str, place: str, **_options: object) -> None:
        raise OSError(f"no network for {url}")

    monkeypatch.setattr(features, "download_url_to_file", refused)
    with pytest.raises(EvaluationError, match="could not be downloaded"):
        inception_weights()
    cached = tmp_path / "checkpoints" / INCEPTION_FILE
    cached.write_bytes(b"cached")
    assert inception_weights() == cached
    named = tmp_path / "named.pth"
    named.write_bytes(b"named")
    monkeypatch.setenv(INCEPTION_VARIABLE, str(named))
    assert inception_weights() == named
    assert inception_weights(cached) == cached


def test_inception_gets_three_channels_and_scores_photographs_only(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Wide(torch.nn.Module):
        """As many features as the real one, of the images as they come."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert images.dtype == torch.uint8
            assert images.shape[1] == 3
            return images.float().mean(dim=(1, 2, 3))[:, None].expand(-1, 2048)

    monkeypatch.setattr(features, "_inception", lambda _weights, _output: Wide())
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"weights")
    grey = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    plain, scored = (features.InceptionExtractor(weights, scored=wanted) for wanted in (False, True))
    assert plain.forward(grey).shape == (2, plain.dimension)
    assert plain.logits(grey) is None
    assert scored.logits(grey) is not None
    assert len(plain.sha) == 16
