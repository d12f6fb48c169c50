"""Where the time of a step of the compiled CPU engine goes."""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from numpy.typing import NDArray

from benchmarks.cpu.operations import boxes_of, vectors_of
from benchmarks.harness import Set, least_seconds
from encoders.cpu.boxes import DERIVED, derive, room
from encoders.cpu.moments import MOMENTS, backward
from encoders.cpu.moves import adam
from encoders.cpu.sums import forward, residual
from encoders.frame import COLOUR, LOG_A, LOG_C, X, Y
from encoders.recipe import CUT, Recipe
from encoders.vector import LANES, flush_denormals, restore_denormals

STAGES = ("boxes", "forward", "residual", "backward", "Adam")
STAGE_CALLS = 50
"""How often a stage is run again within one timing."""

MIDDLE = 200
"""Steps after which a fit is looked at: boxes have found their sizes."""


@numba.njit(error_model="numpy", nogil=True)
def _run_stages(
    calls, theta, derived, planes, target, low, high, mask, moments, mean, square, betas, limits, sizes, tag
):
    """The stages of a step, each ``calls[i]`` times; rates of 0 keep Gaussians where they are."""
    count, padded, height, width = sizes
    channels = len(tag)
    before = flush_denormals()
    room_for = (0, 0, 0)
    for _ in range(calls[0]):
        derive(theta, derived, padded, height, width, np.float32(CUT))
        room_for = room(derived, count, padded)
    chains, spans = np.empty(room_for[0], np.float32), np.empty(room_for[1], np.float32)
    layout = np.empty(2 * room_for[2], np.float32)
    for _ in range(calls[1]):
        forward(theta, derived, planes, chains, spans, layout, count, padded, height, width, tag, channels)
    for _ in range(calls[2]):
        residual(planes, target, low, high, mask, height, width, tag, channels, np.float32(0))
    for _ in range(calls[3]):
        backward(theta, derived, planes, chains, spans, layout, moments, count, padded, height, width, tag, channels)
    still = np.zeros(3, np.float32)
    for _ in range(calls[4]):
        adam(theta, mean, square, derived, moments, padded, height, width, channels, still, betas, limits, True)
    restore_denormals(before)


def stage_seconds(data: Set, frame: NDArray[np.float32], image: NDArray[np.uint8], repeats: int) -> NDArray[np.float64]:
    """Seconds of each of ``STAGES`` in one step of one image: what further calls of it add.

    Args:
        data: the set that the image is of.
        frame: float32 [gaussian, 5 + channel].
        image: uint8 [height, width, channel].
        repeats: timings of which the least counts.
    """
    height, width, channels = data.shape
    recipe = Recipe()
    count, parameters = frame.shape
    theta, derived = boxes_of(frame, height, width)
    padded = len(derived) // DERIVED
    planes = np.zeros((channels, height, width + LANES), np.float32)
    planes[..., :width] = image.transpose(2, 0, 1) / 255
    target = np.concatenate([planes.ravel(), np.zeros(LANES, np.float32)])
    mask = np.zeros(width + 2 * LANES, np.float32)
    mask[:width] = 1
    arguments = (
        theta,
        derived,
        np.zeros_like(target),
        target,
        np.where(target == 0, 0, -1e30).astype(np.float32),
        np.where(target == 1, 1, 1e30).astype(np.float32),
        mask,
        np.zeros(MOMENTS * padded, np.float32),
        np.zeros(parameters * padded, np.float32),
        np.zeros(parameters * padded, np.float32),
        np.array([recipe.beta1, recipe.beta2, recipe.epsilon], np.float32),
        np.array([recipe.margin, recipe.least_log, recipe.greatest_log, recipe.greatest_slope], np.float32),
        (count, padded, height, width),
        (1,) * channels,
    )
    once = np.ones(len(STAGES), np.int64)

    def call(calls: NDArray[np.int64]) -> Callable[[], object]:
        return lambda: _run_stages(calls, *arguments)

    calls = {"once": call(once)}
    calls |= {name: call(once + STAGE_CALLS * np.eye(len(STAGES), dtype=np.int64)[i]) for i, name in enumerate(STAGES)}
    best = least_seconds(calls, repeats)
    return np.array([max(best[name] - best["once"], 0) / STAGE_CALLS for name in STAGES])


def stages(sets: list[Set], repeats: int) -> tuple[str, list[list[str]]]:
    """Where the time of a step goes, in the middle of a fit."""
    rows = [["set", *(f"{name}, us" for name in STAGES), "Gaussians", "vectors of a Gaussian", "ns per vector"]]
    for data in sets:
        sample = data.first(8)
        height, width, _ = data.shape
        frames = sample.frames(MIDDLE)
        seconds = np.mean(
            [stage_seconds(sample, frame, image, repeats) for frame, image in zip(frames, sample.pixels, strict=True)],
            axis=0,
        )
        vectors = np.mean([vectors_of(frame, height, width) for frame in frames])
        both = seconds[1] + seconds[3]
        rows.append(
            [
                data.name,
                *(f"{1e6 * value:.2f}" for value in seconds),
                str(data.gaussians),
                f"{vectors:.1f}",
                f"{1e9 * both / data.gaussians / vectors:.1f}",
            ]
        )
    return f"Where the time of a step goes after {MIDDLE} steps; vectors of both passes", rows


def equal_boxes(rows: int, vectors: int, channels: int, *, count: int = 200, side: int = 32) -> NDArray[np.float32]:
    """Round Gaussians anywhere in an image whose boxes all have so many rows (odd) and vectors of a row.

    Returns:
        float32 [gaussian, 5 + channel], pixel-frame parameters.
    """
    rng = np.random.default_rng(0)
    high, wide = rows / 2 - 0.1, vectors * LANES / 2 - 0.1
    frame = np.zeros((count, COLOUR + channels), np.float32)
    # Centred on a pixel along y and between two along x, so that the box is cut to exactly these pixels.
    frame[:, X] = rng.integers(np.ceil(wide), side - np.ceil(wide) + 1, count)
    frame[:, Y] = rng.integers(np.ceil(high), side - np.ceil(high), count) + 0.5
    frame[:, LOG_A], frame[:, LOG_C] = np.log(CUT / wide), np.log(CUT / high)
    frame[:, COLOUR:] = 0.01
    return frame


def limits(repeats: int) -> tuple[str, list[list[str]]]:
    """What a Gaussian costs before its first row, and what a further row costs."""
    boxes = [(1, 1), (9, 1), (17, 1), (9, 2)]
    rows = [["channels", "pass", *(f"{high} x {wide}" for high, wide in boxes), "a further row", "a box without rows"]]
    for channels in (1, 3):
        data = Set("equal boxes", 200, np.full((1, 32, 32, channels), 100, np.uint8))
        seconds = [
            stage_seconds(data, equal_boxes(high, wide, channels), data.pixels[0], repeats) / data.gaussians
            for high, wide in boxes
        ]
        for name in ("forward", "backward"):
            each = [1e9 * times[STAGES.index(name)] for times in seconds]
            row = (each[2] - each[0]) / 16
            rows.append([str(channels), name, *(f"{cost:.1f}" for cost in each), f"{row:.2f}", f"{each[0] - row:.1f}"])
    return "What limits it: nanoseconds for a Gaussian with a box of rows x vectors", rows
