"""A source of arrays and an engine of one line, so that the logic of a run can be tested without fitting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import SourceRecord
from encoders.base import Encoder, FitResult, FitSettings
from encoders.start.begin import anchors
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.records import EncodeSummary
from pipeline.encode.run import encode
from pipeline.sources.base import SourceImage

GAUSSIANS = 6


def pictures(count: int, *, side: int = 8, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Distinct random images."""
    return np.random.default_rng(seed).integers(0, 256, (count, side, side, channels), dtype=np.uint8)


class ArrayImages:
    """A data set in memory; images can be broken, changed, added and removed by name."""

    def __init__(self, images: NDArray[np.uint8], *, name: str = "arrays", attribution: str = "") -> None:
        self.pixels: dict[str, NDArray[np.uint8]] = {f"image-{i:04d}": image for i, image in enumerate(images)}
        self.labels: dict[str, int] = {name: i % 3 for i, name in enumerate(self.pixels)}
        self.broken: dict[str, str] = {}
        self.shape = tuple(int(side) for side in images.shape[1:])
        self.record = SourceRecord(name=name, licence="CC0", attribution=attribution)
        self.reads = 0

    @property
    def image_shape(self) -> tuple[int, int, int]:
        height, width, channels = self.shape
        return height, width, channels

    def __len__(self) -> int:
        return len(self.pixels)

    def identifiers(self) -> Sequence[str]:
        return list(self.pixels)

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        names = list(self.pixels)
        self.reads += len(indices)
        found = []
        for index in indices:
            name = names[index]
            if name in self.broken:
                found.append(SourceImage(name, None, self.labels[name], self.broken[name]))
            else:
                found.append(SourceImage(name, self.pixels[name], self.labels[name]))
        return found


class SamplingEncoder:
    """Puts a Gaussian on every anchor in the colour of the pixel below it. Counts and records what it fits."""

    name = "sampling"
    device = "cpu (test)"

    def __init__(self, settings: FitSettings | None = None) -> None:
        self.settings = settings or FitSettings(GAUSSIANS, steps=3)
        self.fitted = 0
        self.batches: list[int] = []
        self.at_once = 256
        self.spoil: Callable[[NDArray[np.uint8], NDArray[np.float32]], None] = lambda _image, _splats: None

    def recipe(self) -> dict[str, Any]:
        return {"sigma": 0.2}

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        return self.at_once

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        if should_stop is not None and should_stop():
            raise InterruptedError
        count, height, width, channels = images.shape
        points = anchors(self.settings.gaussians, height, width)
        splats = np.zeros((count, len(points), 5 + channels), np.float32)
        splats[..., :2] = 0.2
        splats[..., -2:] = points
        columns = ((points[:, 0] + 1) / 2 * width).astype(int)
        rows = ((points[:, 1] + 1) / 2 * height).astype(int)
        splats[..., 3:-2] = images[:, rows, columns] / np.float32(255)
        for image, numbers in zip(images, splats, strict=True):
            self.spoil(image, numbers)
        self.fitted += count
        self.batches.append(count)
        return FitResult(splats, np.full(count, 3, np.int32), 0.001 * count)


def job_for(out: Path, **options: Any) -> EncodeJob:
    """A job with small blocks."""
    return resolve_job("arrays", out, **{"gaussians": GAUSSIANS, "block_rows": 4, "workers": 1, **options})


def run(out: Path, source: ArrayImages, encoder: Encoder | None = None, **options: Any) -> EncodeSummary:
    """Encodes ``source`` into ``out``."""
    return encode(job_for(out, **options), source=source, encoder=encoder or SamplingEncoder())
