"""Where the weights of LPIPS come from: a file, a folder, the cache, the network; what is said where they do not."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from pathlib import Path

import pytest
import torch

from data_schemas.errors import CheckpointError, DownloadError, JobError
from data_schemas.files import CACHE_VARIABLE
from models.image_losses import BACKBONE_FILE, Lpips
from pipeline.sources.download import fetch
from pipeline.train import losses as perceptual
from pipeline.train.losses import VGG16, distance_named, linear_weights
from tests.models.small_networks import noise
from tests.models.vgg_weights import save_vgg, vgg_features
from tests.pipeline.mirrors import Mirror

SIZE = (3, 32, 32)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / BACKBONE_FILE
    save_vgg(vgg_features(), path)
    return path


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(perceptual, "fetch", functools.partial(fetch, pause=0.0))
    return tmp_path / "cache"


@pytest.fixture
def published_at(mirror: Mirror, backbone: Path, monkeypatch: pytest.MonkeyPatch) -> Mirror:
    """The mirror, asked for the weights instead of their publisher."""
    mirror.content[BACKBONE_FILE] = backbone.read_bytes()
    digest = hashlib.sha256(mirror.content[BACKBONE_FILE]).hexdigest()
    here = dataclasses.replace(VGG16, urls=(mirror.url(BACKBONE_FILE),), checksum=f"sha256:{digest}")
    monkeypatch.setattr(perceptual, "VGG16", here)
    return mirror


def kept(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.rglob("*") if path.is_file() and path.suffix != ".lock")


def same_distances(one: object, backbone: Path) -> bool:
    other = Lpips.of_files(backbone, linear_weights())
    assert isinstance(one, Lpips)
    image, target = noise(1, 3, 16, 16), noise(1, 3, 16, 16, seed=2)
    return torch.equal(one(image, target), other(image, target))


def test_the_checksum_is_that_of_the_name_which_torchvision_gives() -> None:
    assert VGG16.checksum is not None
    assert VGG16.checksum.startswith("sha256:" + BACKBONE_FILE.removeprefix("vgg16-").removesuffix(".pth"))
    assert len(VGG16.checksum) == len("sha256:") + 64


@pytest.mark.slow
def test_lpips_downloads_once_and_goes_on_where_it_was_cut(
    published_at: Mirror, cache: Path, backbone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    published_at.cuts[BACKBONE_FILE] = [20_000_000]
    with caplog.at_level(logging.WARNING, logger="splatspace.train"):
        assert same_distances(distance_named("lpips", None, SIZE), backbone)
    assert "downloaded for LPIPS" in caplog.text
    assert kept(cache) == [BACKBONE_FILE]
    assert [asked != "" for _, asked in published_at.requests] == [False, True]
    caplog.clear()
    assert same_distances(distance_named("lpips", None, SIZE), backbone)
    assert same_distances(distance_named("lpips-if-there", None, SIZE), backbone)
    assert len(published_at.requests) == 2
    assert not caplog.records


@pytest.mark.slow
def test_other_bytes_are_refused_and_not_kept(published_at: Mirror, cache: Path) -> None:
    published_at.content[BACKBONE_FILE] = b"other bytes"
    with pytest.raises(DownloadError, match="wrong checksum") as caught:
        distance_named("lpips", None, SIZE)
    assert published_at.url(BACKBONE_FILE) in str(caught.value)
    assert kept(cache) == []


@pytest.mark.slow
def test_without_network_the_error_says_how_to_go_on(
    cache: Path, backbone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(perceptual, "VGG16", dataclasses.replace(VGG16, urls=("http://127.0.0.1:9/vgg16.pth",)))
    with pytest.raises(DownloadError, match="connection failed") as caught:
        distance_named("lpips", None, SIZE)
    assert caught.value.next_step.endswith("give its folder with --lpips-weights")
    assert kept(cache) == []
    assert same_distances(distance_named("lpips", backbone.parent, SIZE), backbone)
    assert same_distances(distance_named("lpips", backbone, SIZE), backbone)


@pytest.mark.slow
def test_what_is_named_is_never_downloaded(published_at: Mirror, cache: Path, tmp_path: Path) -> None:
    for named in (tmp_path, tmp_path / "gone.pth"):
        with pytest.raises(CheckpointError, match=r"\.pth cannot be read"):
            distance_named("lpips", named, SIZE)
    assert not published_at.requests
    assert kept(cache) == []


def test_lpips_if_there_downloads_nothing_and_the_log_says_so(
    published_at: Mirror, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="splatspace.train"):
        assert distance_named("lpips-if-there", None, SIZE) is None
    assert "LPIPS is off" in caplog.text
    assert str(cache / "lpips" / BACKBONE_FILE) in caplog.text
    assert not published_at.requests


def test_images_that_lpips_cannot_see_are_refused_before_any_download(
    published_at: Mirror, cache: Path, backbone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for size in ((1, 32, 32), (3, 15, 32)):
        with pytest.raises(JobError, match="LPIPS of images of " + "x".join(map(str, size))):
            distance_named("lpips", None, size)
        caplog.clear()
        assert distance_named("lpips-if-there", backbone, size) is None
        assert "LPIPS is off" in caplog.text
    assert not published_at.requests
    assert kept(cache) == []
