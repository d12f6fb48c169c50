"""GIFs of the way from data to noise and back, in splat space and in pixel space side by side."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data_schemas.errors import JobError
from data_schemas.files import wrap_os_errors, write_file
from models.diffusion.samplers import Trajectory, generators_for
from pipeline.images import picture_of, side_by_side
from pipeline.sample.run import Run

SIDE = 192
"""Pixels of the longer side of each image."""

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
    with wrap_os_errors("write", path):
        write_file(path, data.getvalue())


@dataclass(frozen=True)
class Drawing:
    """A generator, and how it draws the image that is shown.

    Attributes:
        run: the generator.
        draw: samples that image and reports each step.
    """

    run: Run
    draw: Callable[[Trajectory], Tensor]


def require_beside(run: Run, other: Run) -> None:
    """Refuses a second generator that cannot be shown beside the first.

    Raises:
        JobError: not splats beside pixels, or images of another size.
    """
    shapes = [(one.spec.height, one.spec.width, one.spec.channels) for one in (run, other)]
    if (run.spec.kind, other.spec.kind) != ("splats", "pixels") or shapes[0] != shapes[1]:
        found = " beside ".join(
            f"{one.spec.kind} of {height} x {width} x {channels}"
            for one, (height, width, channels) in zip((run, other), shapes, strict=True)
        )
        raise JobError(
            f"--beside shows {found}",
            allowed="a generator of pixels beside one of splats, for images of one size",
            next_step=f"train the other on the same store: splatspace train pixels; sample from {run.path} otherwise",
        )


def save_gifs(
    drawing: Drawing, stored: NDArray[np.float32], folder: Path, *, seed: int, beside: Drawing | None = None
) -> list[Path]:
    """Writes ``forward.gif`` and ``sampling.gif`` of the first image.

    Forward: noise is added to the image in the generator's own space (of splats: ellipses and what they show) and,
    last, to its pixels. Sampling: the noisy data at each step, and what the network takes for the clean image; with
    a second generator the same of that one, at the time that is nearest.

    Args:
        drawing: the generator.
        stored: [image, ...], of which the first is shown.
        folder: where to write.
        seed: of the noise.
        beside: a generator of pixels. The noise on the pixels then grows along its path.

    Returns:
        Both paths.
    """
    forward = folder / FORWARD_FILE
    save_gif(_forward(drawing.run, stored[:1], seed, drawing.run if beside is None else beside.run), forward)
    way = _way(drawing)
    frames = [pictures for _, pictures in way]
    if beside is not None:
        other = _way(beside)
        # Every step of either is shown once; the other waits meanwhile.
        times = sorted({moment for moment, _ in (*way, *other)})
        frames = [[*_at(way, moment), *_at(other, moment)] for moment in times]
    sampling = folder / SAMPLING_FILE
    save_gif([side_by_side(pictures) for pictures in frames], sampling)
    return [forward, sampling]


def save_fitted_gifs(
    drawing: Drawing,
    view: Run,
    fit: Callable[[NDArray[np.uint8]], NDArray[np.float32]],
    folder: Path,
    *,
    seed: int,
) -> list[Path]:
    """Writes ``forward.gif`` and ``sampling.gif`` of the first image of a generator of pixels and of splats for it.

    Forward: noise is added to the pixels; beside them are the splats that fit them then, as ellipses and as what they
    show. Sampling: the noisy pixels at each step, what the network takes for the clean image, and the splats that fit
    that.

    Args:
        drawing: the generator of pixels.
        view: renders the splats.
        fit: uint8 [image, row, column, channel] to splats [image, gaussian, parameter].
        folder: where to write.
        seed: of the noise.

    Returns:
        Both paths.

    Raises:
        SamplingError: a step that cannot be fitted.
    """
    run = drawing.run
    noisy: list[Tensor] = []
    clean: list[Tensor] = []

    def keep(_number: int, _time: float, state: Tensor, prediction: Tensor) -> None:
        noisy.append(state)
        clean.append(prediction)

    result = drawing.draw(keep)
    states, predictions = (run.rendered(run.stored(torch.cat([*steps, result]))) for steps in (noisy, clean))
    [generator] = generators_for(seed, 1)
    features = result.float().cpu()
    grain = torch.randn(features.shape, generator=generator)
    path = run.objective.training_path
    forward = []
    for time in torch.linspace(1, 0, FORWARD_FRAMES, dtype=torch.float64):
        forward.append(run.stored(float(path.signal(time)) * features + float(path.noise(time)) * grain))
    grown = run.rendered(np.concatenate(forward))
    paths = [folder / FORWARD_FILE, folder / SAMPLING_FILE]
    for place, pictures, fitted in ((paths[0], (grown,), grown), (paths[1], (states, predictions), predictions)):
        splats = fit(fitted)
        frames = [
            [*(_enlarge(picture_of(part[step])) for part in pictures), *_views(view, splats[step : step + 1])]
            for step in range(len(splats))
        ]
        save_gif([side_by_side(frame) for frame in frames], place)
    return paths


def _way(drawing: Drawing) -> list[tuple[float, list[Image.Image]]]:
    """(time, images) of every step, and of the result."""
    run = drawing.run
    found: list[tuple[float, list[Image.Image]]] = []

    def keep(_number: int, time: float, noisy: Tensor, clean: Tensor) -> None:
        found.append((time, [*_views(run, run.stored(noisy)), _rendering(run, run.stored(clean))]))

    result = run.stored(drawing.draw(keep))
    return [*found, (1.0, [*_views(run, result), _rendering(run, result)])]


def _at(way: list[tuple[float, list[Image.Image]]], moment: float) -> list[Image.Image]:
    """The latest images up to a time; the first ones before that."""
    return next((pictures for time, pictures in reversed(way) if time <= moment), way[0][1])


def _forward(run: Run, stored: NDArray[np.float32], seed: int, pixel_run: Run) -> list[Image.Image]:
    """Noise grows along the path on which the network was trained, that on pixels along the path of ``pixel_run``."""
    features = run.representation.encode(torch.from_numpy(stored))
    [generator] = generators_for(seed, 1)
    noise = torch.randn(features.shape, generator=generator)
    pixels = run.rendered(stored).astype(np.float32) / 127.5 - 1
    grain = torch.randn(pixels.shape, generator=generator).numpy()
    path, pixel_path = run.objective.training_path, pixel_run.objective.training_path
    frames = []
    for time in torch.linspace(1, 0, FORWARD_FRAMES, dtype=torch.float64):
        signal, share = float(path.signal(time)), float(path.noise(time))
        noisy = run.stored(signal * features + share * noise)
        views = _views(run, noisy)
        if run.spec.kind == "splats":
            signal, share = float(pixel_path.signal(time)), float(pixel_path.noise(time))
            values = np.clip((signal * pixels + share * grain + 1) * 127.5, 0, 255).astype(np.uint8)
            views.append(_enlarge(picture_of(values[0])))
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
    return _enlarge(picture_of(run.rendered(stored)[0]))


def _enlarge(picture: Image.Image) -> Image.Image:
    """Square pixels, ``SIDE`` on the longer side."""
    share = SIDE / max(picture.size)
    size = max(1, round(picture.width * share)), max(1, round(picture.height * share))
    return picture.resize(size, Image.Resampling.NEAREST)
