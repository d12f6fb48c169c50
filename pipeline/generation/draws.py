"""Samples of a generator for its evaluation: images, splats, how long they took, and the way that they went."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.samplers import generators_for, sample
from pipeline.generation.real_images import as_channels_first
from pipeline.generation.run import Run


@dataclass(frozen=True)
class Settings:
    """How samples are drawn.

    Attributes:
        sampler: by name.
        evaluations: of the network.
        guidance: 1 for none.
        seed: sample i follows from it and from i alone.
        batch: images at once.
    """

    sampler: str
    evaluations: int
    guidance: float
    seed: int
    batch: int


@dataclass(frozen=True)
class Drawn:
    """Samples.

    Attributes:
        images: uint8 [image, channel, row, column].
        seconds: wall time of sampling and rendering.
        rendering_seconds: of rendering alone.
    """

    images: Tensor
    seconds: float
    rendering_seconds: float


def draw(
    run: Run,
    settings: Settings,
    labels: NDArray[np.int64] | None,
    count: int,
    report: Callable[[int], None],
) -> Drawn:
    """Samples and renders.

    Args:
        run: the generator.
        settings: see there.
        labels: int64 [image] of classes for conditional generators, else None.
        count: how many.
        report: called with the number of images so far after each batch.

    Raises:
        SamplingError: samples that are not finite.
    """
    images: list[NDArray[np.uint8]] = []
    rendering = 0.0
    began = time.perf_counter()
    for first in range(0, count, settings.batch):
        size = min(settings.batch, count - first)
        wanted = None if labels is None else torch.from_numpy(labels[first : first + size])
        features = _sampled(run, settings, first, size, wanted)
        stored = run.stored(features)
        before = time.perf_counter()
        images.append(run.rendered(stored))
        rendering += time.perf_counter() - before
        report(first + size)
    return Drawn(as_channels_first(np.concatenate(images)), time.perf_counter() - began, rendering)


def roll_out(
    run: Run, settings: Settings, labels: NDArray[np.int64] | None, count: int
) -> list[tuple[float, NDArray[np.float32]]]:
    """The way of the first samples: what the network takes for the clean data at each step, and the result.

    Returns:
        (time, stored data [image, ...]) in order; the last has time 1.
    """
    way: list[tuple[float, NDArray[np.float32]]] = []

    def keep(_number: int, moment: float, _noisy: Tensor, clean: Tensor) -> None:
        way.append((moment, run.stored(clean)))

    wanted = None if labels is None else torch.from_numpy(labels[:count])
    result = _sampled(run, settings, 0, count, wanted, keep)
    way.append((1.0, run.stored(result)))
    return way


def _sampled(
    run: Run,
    settings: Settings,
    first: int,
    count: int,
    label: Tensor | None,
    trajectory: Callable[[int, float, Tensor, Tensor], None] | None = None,
) -> Tensor:
    return sample(
        run.objective,
        run.model,
        (count, *run.representation.shape),
        generators=generators_for(settings.seed, count, first=first),
        evaluations=settings.evaluations,
        sampler=settings.sampler,
        label=label,
        guidance=settings.guidance,
        trajectory=trajectory,
    )
