"""Evaluation of patch models: seams, and images that were held out, on a store of images only."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.evaluate.evaluate import evaluate
from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.job import EvaluateJob
from pipeline.evaluate.seams import seam_ratio
from pipeline.train.cats_job import resolve_cats_job
from pipeline.train.state import TrainSummary
from pipeline.train.train import train
from tests.pipeline.encode.fakes import ArrayImages, pictures

pytestmark = pytest.mark.usefixtures("brief_features")

IMAGES = 68


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stores") / "images.zarr"
    job = resolve_job("arrays", path, gaussians=0, workers=1, block_rows=64)
    images = pictures(200)
    encode(job, source=ArrayImages(np.concatenate([images, images[:6]])))
    return path


def _evaluated(store: Path, folder: Path, *, head: str, held_out: float) -> tuple[TrainSummary, Evaluation]:
    options = {"preset": "tiny", "steps": 1, "batch": 4, "device": "cpu", "held_out": held_out}
    summary = train(resolve_cats_job(store, folder / "run", head=head, **options))
    job = EvaluateJob(folder / "run", str(store), folder / "out", images=IMAGES, evaluations=3, sweep=())
    return summary, evaluate(job, device="cpu")


@pytest.mark.slow
def test_images_kept_apart_are_the_reference_and_the_others_are_searched(store: Path, tmp_path: Path) -> None:
    summary, found = _evaluated(store, tmp_path, head="splats", held_out=0.75)
    assert summary.repeats == 6
    assert summary.images + summary.held_out == 200
    assert found.neighbours.references == summary.images
    assert found.seams is not None
    assert found.seams.patch == 4
    assert found.seams.generated is not None
    assert found.seams.enlarged is not None
    assert found.seams.originals == pytest.approx(1, abs=0.1), "noise has no seams"
    assert found.reconstruction_floor.fid == pytest.approx(0, abs=1e-6), "images only are their own rendering"
    page = (tmp_path / "out" / "evaluation.html").read_text()
    assert "<h2>Seams</h2>" in page


@pytest.mark.slow
def test_too_few_images_kept_apart_are_said(store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="splatspace.evaluate"):
        _, found = _evaluated(store, tmp_path, head="lut", held_out=0.1)
    assert "images were held out in training" in caplog.text
    assert found.seams is not None
    assert found.seams.enlarged is None
    assert found.neighbours.references == 200 - IMAGES


def test_a_seam_is_measured_as_steps_across_over_steps_inside() -> None:
    row, column = np.indices((16, 16))
    smooth = np.repeat((row + column)[None, ..., None] * 4, 3, axis=3).astype(np.uint8)
    assert seam_ratio(smooth, 8) == pytest.approx(1)
    tiled = (smooth + 40 * ((row // 8 + column // 8) % 2)[None, ..., None]).astype(np.uint8)
    ratio = seam_ratio(tiled, 8)
    assert ratio is not None
    assert ratio == pytest.approx((44 + 36) / 2 / 4)
    assert seam_ratio(smooth, 16) is None
    assert seam_ratio(np.zeros_like(smooth), 8) is None
