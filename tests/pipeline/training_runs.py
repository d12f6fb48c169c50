"""Small stores and jobs for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.train.job import TrainJob, resolve_train_job
from pipeline.train.state import TrainSummary
from pipeline.train.train import train
from tests.pipeline.encode.fakes import ArrayImages, pictures, run

STEPS = 6
FAST = {"preset": "tiny", "steps": STEPS, "batch": 8, "every": 3, "device": "cpu"}


def make_store(path: Path, *, count: int = 24, **options: Any) -> Path:
    """A store of random images whose Gaussians sit on their anchors.

    Of large blocks: a training does not see them, and each takes a tenth of a second to write.
    """
    run(path, ArrayImages(pictures(count)), **{"block_rows": 64, **options})
    return path


def job_of(store: Path, out: Path, *, kind: Any = "splats", **options: Any) -> TrainJob:
    """A job of seconds; of splats by the model that learns from their numbers."""
    model = {"model": "splatdit"} if kind == "splats" else {}
    return resolve_train_job(kind, store, out, **{**FAST, **model, **options})


def trained(store: Path, out: Path, **options: Any) -> TrainSummary:
    """A run of seconds."""
    return train(job_of(store, out, **options))
