"""GIFs of the way from data to noise and back, in splat space and in pixel space side by side."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data_schemas.durable_files import explained, write_file
from models.samplers import Trajectory, generators_for
from pipeline.generation.grids import picture_of, side_by_side
from pipeline.generation.run import Run

SIDE = 192
"""Pixels of the longer side of each picture."""

FORWARD_FRAMES = 24
MILLISECONDS, LAST_MILLISECONDS = 120, 1500

FORWARD_FILE, SAMPLING_FILE = "forward.gif", "sampling.gif"


def save_gif(frames: list[Image.Image], path: Path) -> None:
    """Writes an endless animation that rests at its last frame, whole or not at all.

    Raises:
        StoreError: the place cannot be written.
    """
    data = io.BytesIO()
    durations = [MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    reduced = [frame.quantize(256) for frame in frames]
    reduced[0].save(data, format="GIF", save_all=True, append_images=reduced[1:], duration=durations, loop=0)
    with explained("write", path):
        write_file(path, data.getvalue())


def save_gifs(
    run: Run,
    stored: NDArray[np.float32],
    draw: Callable[[Trajectory], Tensor],
    folder: Path,
    *,
    seed: int,
) -> list[Path]:
    """Writes ``forward.gif`` and ``sampling.gif`` of the first image.

    Forward: noise is added to the image in the generator's own space (of splats: ellipses and what they show) and,
    last, to its pixels. Sampling: the noisy data at each step, and what the network takes for the clean image.

    Args:
        run: the generator.
        stored: [image, ...], of which the first is shown.
        draw: samples the first image and reports each step.
        folder: where to write.
        seed: of the noise.

    Returns:
        Both paths.
    """
    forward = folder / FORWARD_FILE
    save_gif(_forward(run, stored[:1], seed), forward)
    frames: list[Image.Image] = []

    def keep(_number: int, _time: float, noisy: Tensor, clean: Tensor) -> None:
        frames.append(side_by_side([*_views(run, run.stored(noisy)), _rendering(run, run.stored(clean))]))

    result = run.stored(draw(keep))
    frames.append(side_by_side([*_views(run, result), _rendering(run, result)]))
    sampling = folder / SAMPLING_FILE
    save_gif(frames, sampling)
    return [forward, sampling]


def _forward(run: Run, stored: NDArray[np.float32], seed: int) -> list[Image.Image]:
    """Noise grows along the path on which the network was trained."""
    features = run.representation.encode(torch.from_numpy(stored))
    [generator] = generators_for(seed, 1)
    noise = torch.randn(features.shape, generator=generator)
    pixels = run.rendered(stored).astype(np.float32) / 127.5 - 1
    grain = torch.randn(pixels.shape, generator=generator).numpy()
    path = run.objective.training_path
    frames = []
    for time in torch.linspace(1, 0, FORWARD_FRAMES, dtype=torch.float64):
        signal, share = float(path.signal(time)), float(path.noise(time))
        noisy = run.stored(signal * features + share * noise)
        views = _views(run, noisy)
        if run.spec.kind == "splats":
            values = np.clip((signal * pixels + share * grain + 1) * 127.5, 0, 255).astype(np.uint8)
            views.append(_enlarged(picture_of(values[0])))
        frames.append(side_by_side(views))
    return frames


def _views(run: Run, stored: NDArray[np.float32]) -> list[Image.Image]:
    """Ellipses and rendering of splats, or the pixels."""
    rendering = _rendering(run, stored)
    if run.spec.kind == "pixels":
        return [rendering]
    # The report's package loads plotting libraries, which take longer than to sample.
    from pipeline.report.ellipses import draw_ellipses

    return [draw_ellipses(stored[0], run.splats.layout, run.spec.height, run.spec.width, SIDE), rendering]


def _rendering(run: Run, stored: NDArray[np.float32]) -> Image.Image:
    if run.spec.kind == "splats":
        return picture_of(run.rendered(stored, SIDE)[0])
    return _enlarged(picture_of(run.rendered(stored)[0]))


def _enlarged(picture: Image.Image) -> Image.Image:
    """Square pixels, ``SIDE`` on the longer side."""
    share = SIDE / max(picture.size)
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    return picture.resize(size, Image.Resampling.NEAREST)
