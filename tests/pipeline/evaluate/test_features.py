"""Feature extractors: what they learn, that they repeat, what they keep, and that none stands in for another."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_schemas.errors import DownloadError, EvaluationError
from data_schemas.files import CACHE_VARIABLE
from data_schemas.stores.open import open_store
from models.checkpoint import read_config
from pipeline.evaluate import feature_training, features
from pipeline.evaluate.features import (
    INCEPTION,
    INCEPTION_FILE,
    INCEPTION_VARIABLE,
    build_extractor,
    inception_weights,
)
from pipeline.sources.download import fetch
from tests.pipeline.encode.fakes import ArrayImages, run
from tests.pipeline.mirrors import Mirror

CLASSES = 3
PUBLISHED = b"published weights" * 40_000


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
    """Training of few steps, where how well it learned is not the question."""
    monkeypatch.setattr(feature_training, "_STEPS", 8)


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_second_training_gives_the_same_weights(store: Path, tmp_path: Path, brief: None) -> None:
    with open_store(store, "r") as opened:
        for name in ("classifier", "selfsup"):
            one = build_extractor(name, opened, cache=tmp_path / "one")
            torch.rand(7)  # the state of torch's own generator must not matter
            other = build_extractor(name, opened, cache=tmp_path / "other")
            assert one.sha == other.sha


@pytest.mark.slow
def test_damaged_features_are_learned_again_and_said(
    store: Path, tmp_path: Path, brief: None, caplog: pytest.LogCaptureFixture
) -> None:
    with open_store(store, "r") as opened:
        sha = build_extractor("selfsup", opened, cache=tmp_path).sha
        [kept] = tmp_path.iterdir()
        kept.write_bytes(kept.read_bytes()[:500])
        with caplog.at_level(logging.WARNING, "splatspace"):
            assert build_extractor("selfsup", opened, cache=tmp_path).sha == sha
    assert "learned again" in caplog.text


@pytest.mark.slow
def test_features_follow_the_images(store: Path, tmp_path: Path, brief: None) -> None:
    other = tmp_path / "other.zarr"
    run(other, ArrayImages(coloured(160, seed=9)), block_rows=64)
    with open_store(store, "r") as first, open_store(other, "r") as second:
        cache = tmp_path / "cache"
        assert build_extractor("selfsup", first, cache=cache).sha != build_extractor("selfsup", second, cache=cache).sha
    assert len(list(cache.iterdir())) == 2


@pytest.mark.slow
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


@pytest.mark.slow
def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "few.zarr", ArrayImages(coloured(19)))
    run(tmp_path / "bare.zarr", ArrayImages(coloured(40)), images=False)
    with (
        open_store(tmp_path / "few.zarr", "r") as opened,
        pytest.raises(EvaluationError, match=r"19 finished images .* 20 or more"),
    ):
        build_extractor("auto", opened)
    with open_store(tmp_path / "bare.zarr", "r") as opened, pytest.raises(EvaluationError, match="no source images"):
        build_extractor("auto", opened)


@pytest.mark.slow
def test_inception_is_never_replaced(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"no weights")
    monkeypatch.setenv(INCEPTION_VARIABLE, str(tmp_path / "absent.pth"))
    with open_store(store, "r") as opened:
        with pytest.raises(EvaluationError, match=r"absent\.pth"):
            build_extractor("inception", opened)
        with pytest.raises(EvaluationError, match=r"torch-fidelity|could not be used"):
            build_extractor("inception", opened, weights=weights)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's cache, empty; torch's, which holds nothing either, is beside it."""
    monkeypatch.delenv(INCEPTION_VARIABLE, raising=False)
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr(features, "fetch", functools.partial(fetch, pause=0.0))
    return tmp_path / "cache"


@pytest.fixture
def published_at(mirror: Mirror, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """Two addresses on this machine in place of the publishers'; only the second has the file."""
    mirror.content["second.pth"] = PUBLISHED
    here = dataclasses.replace(
        INCEPTION,
        urls=(mirror.url("first.pth"), mirror.url("second.pth")),
        checksum=f"sha256:{hashlib.sha256(PUBLISHED).hexdigest()}",
    )
    monkeypatch.setattr(features, "INCEPTION", here)
    return mirror


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def copy_of_torch(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "torch" / "hub" / "checkpoints" / INCEPTION_FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def test_the_checksum_of_inception_is_that_of_its_names() -> None:
    assert INCEPTION.checksum is not None
    digest = INCEPTION.checksum.removeprefix("sha256:")
    assert len(digest) == 64
    for name in (INCEPTION_FILE, *INCEPTION.urls):
        assert name.endswith(f"-{digest[:8]}.pth")


def test_inception_is_downloaded_once_and_goes_on_where_it_was_cut(
    published_at: Mirror, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published_at.cuts["second.pth"] = [600_000]
    with caplog.at_level(logging.WARNING, logger="splatspace.evaluate"):
        weights = inception_weights()
    assert "Inception are downloaded" in caplog.text
    assert str(weights) in caplog.text
    assert weights == cache / "inception" / INCEPTION_FILE
    assert weights.read_bytes() == PUBLISHED
    assert kept(cache) == [INCEPTION_FILE]
    assert [name for name, _ in published_at.requests] == ["first.pth", "second.pth", "second.pth"]
    assert [asked != "" for _, asked in published_at.requests] == [False, False, True]
    caplog.clear()
    assert inception_weights() == weights
    assert len(published_at.requests) == 3
    assert not caplog.records


def test_other_bytes_than_inceptions_are_refused_and_not_kept(published_at: Mirror, cache: Path) -> None:
    published_at.content.update({"first.pth": b"other bytes", "second.pth": b"others still"})
    with pytest.raises(DownloadError, match="wrong checksum") as caught:
        inception_weights()
    assert all(published_at.url(name) in str(caught.value) for name in ("first.pth", "second.pth"))
    assert kept(cache) == []


def test_without_network_the_error_says_how_to_have_inception(
    cache: Path, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(features, "INCEPTION", dataclasses.replace(INCEPTION, urls=("http://127.0.0.1:9/none.pth",)))
    with open_store(store, "r") as opened, pytest.raises(DownloadError, match="connection failed") as caught:
        build_extractor("inception", opened)
    assert caught.value.next_step.endswith(f"give its folder with --weights or ${INCEPTION_VARIABLE}")
    assert kept(cache) == []


def test_weights_of_inception_that_are_named_are_never_downloaded(
    published_at: Mirror, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "named"
    folder.mkdir()
    for missing in (folder, tmp_path / "absent.pth"):
        with pytest.raises(EvaluationError, match=r"No weights of the Inception network at .*\.pth"):
            inception_weights(missing)
    named = folder / INCEPTION_FILE
    named.write_bytes(b"named")
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    monkeypatch.setenv(INCEPTION_VARIABLE, str(folder))
    assert inception_weights() == named
    assert inception_weights(other) == other
    monkeypatch.setenv(INCEPTION_VARIABLE, str(tmp_path / "absent.pth"))
    assert inception_weights(folder) == named
    with pytest.raises(EvaluationError, match=r"absent\.pth"):
        inception_weights()
    assert not published_at.requests
    assert kept(cache) == []


def test_the_copy_of_torch_is_used_where_it_is_whole(
    published_at: Mirror, cache: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    copy = copy_of_torch(tmp_path, PUBLISHED)
    assert inception_weights() == copy
    assert not published_at.requests
    copy.write_bytes(PUBLISHED[:-1])
    with caplog.at_level(logging.WARNING, logger="splatspace.evaluate"):
        assert inception_weights().read_bytes() == PUBLISHED
    assert f"{copy} is not used" in caplog.text
    assert kept(cache) == [INCEPTION_FILE]
    assert copy.read_bytes() == PUBLISHED[:-1]


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
