"""Samples of a generator for its evaluation: images, splats, how long they took, and the way that they went."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.records import StoreHeader
from encoders.decode import decode, to_uint8
from models.base import Denoiser
from models.objectives import Objective
from models.pixel_representation import PixelRepresentation
from models.representation import SplatRepresentation
from models.samplers import generators_for, sample
from pipeline.generation.real_images import as_channels_first


@dataclass(frozen=True)
class Subject:
    """What is evaluated.

    Attributes:
        name: for people.
        model: the network, on its device.
        objective: that it was trained with.
        representation: between features and stored data, on the CPU.
        codec: renders the splats; "" for pixel models.
        facts: whatever the report shall say of it.
    """

    name: str
    model: Denoiser
    objective: Objective
    representation: SplatRepresentation | PixelRepresentation
    codec: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def stored(self, features: Tensor) -> NDArray[np.float32]:
        """Splats [image, gaussian, parameter] or pixels [image, row, column, channel] of clean features."""
        return self.representation.decode(features.float().cpu()).detach().numpy()

    def rendered(self, stored: NDArray[np.float32], height: int, width: int) -> NDArray[np.uint8]:
        """uint8 [image, row, column, channel] of what :meth:`stored` gives."""
        if isinstance(self.representation, PixelRepresentation):
            return to_uint8(stored)
        layout = self.representation.layout
        return to_uint8(decode(stored, layout=layout, codec=self.codec, height=height, width=width))


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
    subject: Subject,
    header: StoreHeader,
    settings: Settings,
    labels: NDArray[np.int64] | None,
    count: int,
    report: Callable[[int], None],
) -> Drawn:
    """Samples and renders.

    Args:
        subject: the generator.
        header: of the store; decides the size of the images.
        settings: see there.
        labels: int64 [image] for conditional generators, else None.
        count: how many.
        report: called with the number of images after each batch.

    Raises:
        SamplingError: samples that are not finite.
    """
    images: list[NDArray[np.uint8]] = []
    rendering = 0.0
    began = time.perf_counter()
    for first in range(0, count, settings.batch):
        size = min(settings.batch, count - first)
        wanted = None if labels is None else torch.from_numpy(labels[first : first + size])
        features = _sampled(subject, settings, first, size, wanted)
        stored = subject.stored(features)
        before = time.perf_counter()
        images.append(subject.rendered(stored, header.height, header.width))
        rendering += time.perf_counter() - before
        report(size)
    return Drawn(as_channels_first(np.concatenate(images)), time.perf_counter() - began, rendering)


def roll_out(
    subject: Subject, settings: Settings, labels: NDArray[np.int64] | None, count: int
) -> list[tuple[float, NDArray[np.float32]]]:
    """The way of the first samples: what the network takes for the clean data at each step, and the result.

    Returns:
        (time, stored data [image, ...]) in order; the last has time 1.
    """
    way: list[tuple[float, NDArray[np.float32]]] = []

    def keep(_number: int, moment: float, _noisy: Tensor, clean: Tensor) -> None:
        way.append((moment, subject.stored(clean)))

    wanted = None if labels is None else torch.from_numpy(labels[:count])
    result = _sampled(subject, settings, 0, count, wanted, keep)
    way.append((1.0, subject.stored(result)))
    return way


def _sampled(
    subject: Subject,
    settings: Settings,
    first: int,
    count: int,
    label: Tensor | None,
    trajectory: Callable[[int, float, Tensor, Tensor], None] | None = None,
) -> Tensor:
    return sample(
        subject.objective,
        subject.model,
        (count, *subject.representation.shape),
        generators=generators_for(settings.seed, count, first=first),
        evaluations=settings.evaluations,
        sampler=settings.sampler,
        label=label,
        guidance=settings.guidance,
        trajectory=trajectory,
    )
