"""Runs of one step on a small store, with weights drawn again so that samples differ."""

from __future__ import annotations

from pathlib import Path

import torch

from data_schemas.records import SourceRecord
from models.checkpoint import load_checkpoint, save_checkpoint
from pipeline.train.job import resolve_train_job
from pipeline.train.train import train
from tests.pipeline.encode.fakes import ArrayImages, pictures, run

CLASSES = ("red", "green", "blue")


def small_store(path: Path, *, images: int = 8) -> Path:
    """Six Gaussians for each of some images of 8 x 8 pixels in three classes."""
    source = ArrayImages(pictures(images))
    source.record = SourceRecord(name="arrays", licence="CC0", attribution="nobody", label_names=CLASSES)
    run(path, source, block_rows=64)
    return path


def small_run(store: Path, out: Path, *, model: str, classes: bool = True, **options: object) -> Path:
    """A run whose network answers something for every input."""
    kind = "pixels" if model.startswith("pixel") else "splats"
    job = resolve_train_job(
        kind, store, out, model=model, preset="tiny", steps=1, batch=4, device="cpu", classes=classes, **options
    )
    train(job)
    path = out / "model.safetensors"
    held = load_checkpoint(path)
    generator = torch.Generator().manual_seed(0)
    weights = {
        name: value if name.startswith("slots.") else torch.randn(value.shape, generator=generator) * 0.05
        for name, value in held.model.items()
    }
    save_checkpoint(path, weights, held.config, held.tensors)
    return out
