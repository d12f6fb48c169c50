"""One call of the cuda engine: its images in slabs, of which two are on the GPU at once.

While the GPU fits one, the CPU prepares the next and turns the result of the last into splats.

How images and steps are divided into launches; no result depends on it.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.errors import JobError
from encoders.base import FitSettings
from encoders.cuda.device_fit import DeviceBatch, DeviceFit
from encoders.cuda.fused_batch import FusedFit
from encoders.cuda.start import begin_on_device, starts_on_device
from encoders.cuda.tiled_batch import TiledFit
from encoders.frame import to_splats
from encoders.recipe import Recipe
from encoders.start.begin import begin

logger = logging.getLogger("splatspace.encode")


FUSED_PIXELS, FUSED_GAUSSIANS = 128 * 128, 2048
"""Up to here an image is fitted by one program; larger ones are shared out over many."""

MOST_IMAGES = 65_535
"""Of a launch: images are numbered along an axis of the grid that holds no more."""

LAUNCH_SECONDS = 1.0
"""How long a launch should take: between launches, a fit can be stopped."""

_IMAGES_PER_CALL = 16


def is_fused(settings: FitSettings, height: int, width: int) -> bool:
    """Whether an image of this shape is fitted by one program."""
    return height * width <= FUSED_PIXELS and settings.gaussians <= FUSED_GAUSSIANS


def device_fit(settings: FitSettings, recipe: Recipe, height: int, width: int, channels: int) -> DeviceFit:
    """The fit for images of one shape: fused where an image is small, else tiled; by shape and settings alone."""
    if is_fused(settings, height, width):
        return FusedFit.of(settings, recipe, height, width, channels)
    return TiledFit(settings, recipe, height, width, channels)


def slab_size(fit: DeviceFit, device_bytes: int, slots: int, pairs_per_second: float, seconds: float) -> int:
    """Images of a launch: whole waves of programs that take about ``seconds``, as far as memory goes.

    Args:
        fit: what is fitted.
        device_bytes: memory that may be used.
        slots: programs that run at once.
        pairs_per_second: pixel-Gaussian pairs that the device handles, roughly.
        seconds: how long a launch should take.

    Returns:
        At least 1: the first allocation tells whether even that is too much.
    """
    by_memory = device_bytes // fit.bytes_per_image
    by_time = seconds * pairs_per_second / (fit.pairs_per_step * max(1, fit.settings.most_steps))
    wave = max(1, slots // fit.programs)
    return max(1, min(by_memory, MOST_IMAGES, wave * max(1, math.floor(by_time / wave))))


def steps_of_launches(fit: DeviceFit, images: int, pairs_per_second: float, seconds: float) -> list[int]:
    """Where launches end: one for the whole fit, unless it takes much longer than ``seconds``.

    Returns:
        Values for ``DeviceBatch.advance``, rising; the last is ``most_steps`` + 1.
    """
    whole = images * fit.pairs_per_step * (fit.settings.most_steps + 1) / pairs_per_second
    parts = min(max(1, round(whole / (2 * seconds))), fit.settings.most_steps + 1)
    return [(part + 1) * (fit.settings.most_steps + 1) // parts for part in range(parts)]


def schedule_on(device: torch.device, recipe: Recipe, settings: FitSettings) -> Tensor:
    """``Recipe.schedule`` on a device, at least one row."""
    rates: NDArray[np.float32] = recipe.schedule(max(1, settings.steps), settings.rounds)
    return torch.from_numpy(rates).to(device)


def is_idle(stream: torch.cuda.Stream | None) -> bool:
    """Whether a stream has done what it was given; without one nothing is ever under way."""
    return stream is None or stream.query()


@dataclass
class Slab:
    """A slab on its way: rows of the result, its device arrays, what is awaited, and memory for what comes back."""

    rows: slice
    batch: DeviceBatch
    stream: torch.cuda.Stream | None
    best: torch.Tensor
    taken: torch.Tensor


class Slabs:
    """One call of ``fit``.

    Args:
        fit: of images of this shape.
        images: uint8 [image, height, width, channel].
        splats: float32 [image, gaussian, parameter], to be filled.
        steps: int32 [image], to be filled.
        device: where the fit runs.
        pairs_per_second: pixel-Gaussian pairs that the device handles, roughly.
        too_large: makes the error of one image that does not fit the device's memory.
        should_stop: polled between launches and while one runs.

    Attributes:
        core_seconds: CPU time so far.
        finished: bool [image], whether its result is in ``splats`` and ``steps``.
    """

    def __init__(
        self,
        fit: DeviceFit,
        images: NDArray[np.uint8],
        splats: NDArray[np.float32],
        steps: NDArray[np.int32],
        *,
        device: torch.device,
        pairs_per_second: float,
        too_large: Callable[[], JobError],
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self.fit, self.images, self.splats, self.steps = fit, images, splats, steps
        self.device = device
        self.pairs_per_second = pairs_per_second
        self.too_large = too_large
        self.should_stop = should_stop
        self.core_seconds = 0.0
        self.finished = np.zeros(len(images), np.bool_)
        self._waiting: Slab | None = None
        self.rates = schedule_on(self.device, fit.recipe, fit.settings)
        on_card = self.device.type == "cuda"
        self.starts_on_processor = not (on_card and starts_on_device(fit.settings))
        self.streams = [torch.cuda.Stream(self.device) for _ in range(2)] if on_card else [None]
        for stream in self.streams:
            if stream is not None:
                # The schedule was copied on the current stream.
                stream.wait_stream(torch.cuda.current_stream(self.device))

    def run(self, pool: ThreadPoolExecutor, size: int) -> None:
        """Every slab, at most two of them on the device; a slab that memory refuses is tried again in halves.

        Raises:
            InterruptedError: ``should_stop`` answered True; ``finished`` says of which images there is a result.
        """
        before = time.thread_time()
        try:
            self._fit_all(pool, size)
        except InterruptedError:
            # What the device has done by now costs nothing but its way back.
            if self._waiting is not None and is_idle(self._waiting.stream):
                self._finish_waiting(pool)
            raise
        finally:
            self.core_seconds += time.thread_time() - before

    def _fit_all(self, pool: ThreadPoolExecutor, size: int) -> None:
        first, turn = 0, 0
        while first < len(self.images):
            rows = slice(first, min(first + size, len(self.images)))
            starts = self._starts(rows, pool) if self.starts_on_processor else None
            self._stop()
            slab = self._launch_if_it_fits(rows, starts, self.streams[turn % len(self.streams)])
            if slab is None:
                # Out of the handler of the error, which holds on to the tensors of the failed attempt.
                if self._waiting is None and size == 1:
                    raise self.too_large()
                self._finish_waiting(pool)
                size = max(1, size // 2)
                logger.warning("The GPU ran out of memory: going on with %d images a launch", size)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            self._finish_waiting(pool)
            self._waiting = slab
            first, turn = rows.stop, turn + 1
        self._finish_waiting(pool)

    def _stop(self) -> None:
        if self.should_stop is not None and self.should_stop():
            raise InterruptedError("the fit was asked to stop")

    def _starts(self, rows: slice, pool: ThreadPoolExecutor) -> NDArray[np.float32]:
        """Where the Gaussians of a slab begin, on the pool's threads."""
        parts = [
            slice(first, min(first + _IMAGES_PER_CALL, rows.stop))
            for first in range(rows.start, rows.stop, _IMAGES_PER_CALL)
        ]

        def part(these: slice) -> tuple[NDArray[np.float32], float]:
            self._stop()
            before = time.thread_time()
            frames = begin(self.images[these], self.fit.settings, self.fit.recipe.start)
            return frames, time.thread_time() - before

        found = list(pool.map(part, parts))
        self.core_seconds += sum(seconds for _, seconds in found)
        return np.concatenate([frames for frames, _ in found])

    def _launch_if_it_fits(
        self, rows: slice, starts: NDArray[np.float32] | None, stream: torch.cuda.Stream | None
    ) -> Slab | None:
        """Uploads and launches a slab; None where memory does not hold it."""
        try:
            return self._launch(rows, starts, stream)
        except torch.OutOfMemoryError:
            return None
        except RuntimeError as error:
            # Pinned memory and Triton's own calls say it in other words.
            if "out of memory" not in str(error):
                raise
            return None

    def _launch(self, rows: slice, starts: NDArray[np.float32] | None, stream: torch.cuda.Stream | None) -> Slab:
        """Uploads and launches a slab, without waiting for it unless the fit takes several launches."""
        pinned = stream is not None

        def upload(array: NDArray[Any]) -> torch.Tensor:
            here = torch.from_numpy(np.ascontiguousarray(array))
            return (here.pin_memory() if pinned else here).to(self.device, non_blocking=True)

        with torch.cuda.stream(stream):
            pixels = upload(self.images[rows])
            if starts is None:
                begun = begin_on_device(pixels, self.fit.settings, self.fit.recipe.start)
            else:
                begun = upload(starts)
            batch = self.fit.batch(pixels, begun, self.rates)
            ends = steps_of_launches(self.fit, len(pixels), self.pairs_per_second, LAUNCH_SECONDS)
            for end in ends:
                if end != ends[0]:
                    self._wait(stream)
                    self._stop()
                batch.advance(end)
            best = torch.empty(begun.shape, pin_memory=pinned)
            taken = torch.empty(len(pixels), dtype=torch.int32, pin_memory=pinned)
            best.copy_(batch.best(), non_blocking=True)
            taken.copy_(batch.taken, non_blocking=True)
        return Slab(rows, batch, stream, best, taken)

    def _wait(self, stream: torch.cuda.Stream | None) -> None:
        """Until a stream has done what it was given; looks at ``should_stop`` meanwhile."""
        while not is_idle(stream):
            self._stop()
            time.sleep(0.002)

    def _finish_waiting(self, pool: ThreadPoolExecutor) -> None:
        """Waits for the slab that was launched last, if there is one, and puts its result in its rows."""
        slab = self._waiting
        if slab is None:
            return
        self._wait(slab.stream)
        frames, first = slab.best.numpy(), slab.rows.start
        self.steps[slab.rows] = slab.taken.numpy()

        def part(at: int) -> float:
            before = time.thread_time()
            these = slice(at, min(at + _IMAGES_PER_CALL, len(frames)))
            self.splats[first + these.start : first + these.stop] = to_splats(
                frames[these], self.fit.height, self.fit.width
            )
            return time.thread_time() - before

        self.core_seconds += sum(pool.map(part, range(0, len(frames), _IMAGES_PER_CALL)))
        self.finished[slab.rows] = True
        self._waiting = None
