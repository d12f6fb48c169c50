"""Samples of a generator: images, splats, how long they took, the way that they went; from noise or an init image.

Interpolated images lie between two samples.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from data_schemas.errors import SamplingError
from data_schemas.splats import OVER
from models.diffusion.samplers import generators_for, sample
from models.diffusion.schedules import StraightPath
from models.features.pixels import PixelRepresentation
from models.registry import model_named
from pipeline.sample.run import Run
from pipeline.store_images import as_channels_first
from pipeline.train.rows import order_by_anchors

FRAMES = 9


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


def sketch_features(run: Run, path: Path) -> Tensor:
    """An image as the generator's features, brought to its size and colours.

    Args:
        run: a generator of pixels on the straight path.
        path: of the image, of any size.

    Returns:
        float32 [1, channel, row, column].

    Raises:
        SamplingError: a generator that cannot begin with an image, or a file that is none.
    """
    representation = run.representation
    if not isinstance(representation, PixelRepresentation) or not isinstance(run.objective.sampling_path, StraightPath):
        raise SamplingError(
            f"--sketch with {run.path}, which makes {run.spec.kind} by objective {run.objective.settings.name}",
            allowed="a generator of pixels whose path is straight, as of train cats",
            next_step="leave --sketch out",
        )
    try:
        with Image.open(path) as picture:
            colours = picture.convert("L" if run.spec.channels == 1 else "RGB")
            small = colours.resize((run.spec.width, run.spec.height), Image.Resampling.LANCZOS)
    except (OSError, UnidentifiedImageError) as error:
        raise SamplingError(f"--sketch {path} cannot be read: {error}", allowed="an image") from error
    pixels = np.asarray(small).reshape(1, run.spec.height, run.spec.width, run.spec.channels)
    return representation.encode(torch.from_numpy(pixels.copy()))


def between(run: Run, first: Tensor, second: Tensor, *, frames: int = FRAMES) -> NDArray[np.float32]:
    """Moves every Gaussian straight from one sample to the other, in the features of the network.

    Slot by slot where the index of a Gaussian means the same in both; else each Gaussian of the second is given to
    the nearest of the first (in codec ``over/1`` the index is the depth and stays).

    Args:
        run: a generator of splats.
        first: features [gaussian, feature].
        second: features [gaussian, feature].
        frames: images, both ends included.

    Returns:
        Splats [frame, gaussian, parameter].

    Raises:
        SamplingError: a generator of pixels.
    """
    representation = run.splats
    slots = model_named(run.config["model"]).needs_slots or representation.anchors is not None
    if not slots and run.codec != OVER:
        splats: NDArray[Any] = run.stored(torch.stack([first, second]))
        layout = representation.layout
        centres = splats[0][:, [layout.index("x"), layout.index("y")]]
        matched = order_by_anchors(splats[1:], layout, centres)
        second = representation.encode(torch.from_numpy(matched))[0]
    share = torch.linspace(0, 1, frames)[:, None, None]
    return run.stored((1 - share) * first + share * second)
