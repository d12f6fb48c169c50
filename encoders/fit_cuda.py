"""Engine ``cuda``: thousands of small images a launch, one warp an image; large ones shared out (``encoders.cuda``).

Starts ``grid`` and ``transport`` are computed on the card (``encoders.cuda.start``), ``adaptive`` on the processor.
While the card fits one slab of images, the processor prepares the next and turns the result of the last into splats;
transfers go through pinned memory on two streams. What an image becomes depends on its pixels and the settings only:
not on the slab, the memory that is free, or where launches were cut.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, NORMALISED
from encoders.base import FitResult, FitSettings
from encoders.cuda.available import require_cuda, use_cache_folder
from encoders.frame import COLOUR, to_splats
from encoders.initialise import begin
from encoders.recipe import Recipe

if TYPE_CHECKING:
    import torch

    from encoders.cuda.device_fit import DeviceBatch, DeviceFit

logger = logging.getLogger("splatspace.encode")

LAUNCH_SECONDS = 1.0
"""How long a launch should take: between launches, a fit can be stopped."""

_WARPS_PER_MULTIPROCESSOR = 16
_PAIRS_PER_MULTIPROCESSOR = 2.5e9
"""A cautious guess of pixel-Gaussian pairs per second; it decides the length of a launch, nothing else."""

_MEMORY_SHARE = 0.4
"""Of the free memory, for each of two slabs."""

_IMAGES_PER_CALL = 16


@dataclass
class _Slab:
    """A slab on its way: rows of the result, its device arrays, what is awaited, and memory for what comes back."""

    rows: slice
    batch: DeviceBatch
    stream: torch.cuda.Stream | None
    best: torch.Tensor
    taken: torch.Tensor


class CudaEncoder:
    """Fits with Triton kernels on a graphics card.

    Args:
        settings: what decides the splats.
        workers: threads for starts and results; None takes four.
        recipe: constants of the optimiser; None takes the defaults.
        device: a torch device; ``cpu`` only while Triton interprets its kernels (for tests).
        batch: images of a launch at most; ``auto`` fits the free memory. The result does not depend on it.
        banded: sum every group of 32 Gaussians over the rows that it reaches only (``BAND_CUT`` standard deviations).

    Raises:
        JobError: another codec, no CUDA device, no Triton, or a batch below 1.
    """

    name = "cuda"

    def __init__(
        self,
        settings: FitSettings,
        *,
        workers: int | None = None,
        recipe: Recipe | None = None,
        device: str = "cuda",
        batch: int | Literal["auto"] = "auto",
        banded: bool = False,
    ) -> None:
        if settings.codec not in (ADDITIVE, NORMALISED):
            raise JobError(f"Engine 'cuda' for codec {settings.codec}", allowed=f"{ADDITIVE}, {NORMALISED}")
        if device == "cpu":
            use_cache_folder()
        else:
            require_cuda()
        import torch

        if batch != "auto" and batch < 1:
            raise JobError(f"A batch of {batch} images", allowed="1 or more, or auto")
        self.settings = settings
        self.workers = max(1, workers or 4)
        self.batch: int | Literal["auto"] = batch
        self.banded = banded
        self._recipe = recipe or Recipe()
        self._device = torch.device(device)
        if device == "cpu":
            from encoders.cuda.device_fit import interpreting

            if not interpreting():
                raise JobError("Engine 'cuda' on the processor", allowed="a CUDA device", next_step="give --engine cpu")

    @property
    def device(self) -> str:
        """The card and its number of multiprocessors."""
        import torch

        if self._device.type == "cpu":
            return "cpu (interpreted kernels)"
        return f"cuda ({torch.cuda.get_device_name(self._device)}, {self._multiprocessors} multiprocessors)"

    @property
    def _multiprocessors(self) -> int:
        import torch

        if self._device.type == "cpu":
            return 1
        return torch.cuda.get_device_properties(self._device).multi_processor_count

    def recipe(self) -> dict[str, Any]:
        """Every constant of the optimiser."""
        from encoders.cuda.fused_batch import BAND_CUT
        from encoders.cuda.tiled_batch import TILE_CUT

        return {**self._recipe.as_dict(), "band_cut": BAND_CUT if self.banded else None, "tile_cut": TILE_CUT}

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """How many images ``fit`` is best given at once: two slabs, so that one is prepared while the other is fitted.

        Args:
            height: rows.
            width: columns.
            channels: 1 or 3.
        """
        return 2 * self._slab_size(self._device_fit(height, width, channels))

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """Fits a batch; see :class:`encoders.base.Encoder`.

        Args:
            images: uint8 [image, height, width, channel], channel 1 or 3.
            should_stop: polled between launches and while one runs.

        Raises:
            InterruptedError: ``should_stop`` answered True.
            JobError: not even one image fits the device's memory.
        """
        count, height, width, channels = images.shape
        fit = self._device_fit(height, width, channels)
        splats = np.empty((count, self.settings.gaussians, COLOUR + channels), np.float32)
        steps = np.zeros(count, np.int32)
        if count == 0:
            return FitResult(splats=splats, steps=steps, core_seconds=0.0)
        work = _Work(self, fit, images, splats, steps, should_stop)
        with ThreadPoolExecutor(self.workers) as pool:
            work.run(pool, self._slab_size(fit))
        return FitResult(splats=splats, steps=steps, core_seconds=work.core_seconds)

    def _device_fit(self, height: int, width: int, channels: int) -> DeviceFit:
        from encoders.cuda.launches import device_fit

        return device_fit(self.settings, self._recipe, height, width, channels, banded=self.banded)

    def _slab_size(self, fit: DeviceFit) -> int:
        import torch

        from encoders.cuda.launches import slab_size

        free = 2**30
        if self._device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(self._device)
            # What torch keeps for itself is free for the next batch too.
            free += torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        slots = _WARPS_PER_MULTIPROCESSOR * self._multiprocessors
        size = slab_size(fit, int(_MEMORY_SHARE * free), slots, self.pairs_per_second, LAUNCH_SECONDS)
        return size if self.batch == "auto" else min(size, self.batch)

    @property
    def pairs_per_second(self) -> float:
        """A cautious guess, for the length of launches."""
        return _PAIRS_PER_MULTIPROCESSOR * self._multiprocessors


class _Work:
    """One call of ``fit``."""

    def __init__(
        self,
        encoder: CudaEncoder,
        fit: DeviceFit,
        images: NDArray[np.uint8],
        splats: NDArray[np.float32],
        steps: NDArray[np.int32],
        should_stop: Callable[[], bool] | None,
    ) -> None:
        import torch

        from encoders.cuda.launches import schedule_on
        from encoders.cuda.start import starts_on_device

        self.encoder, self.fit, self.images, self.splats, self.steps = encoder, fit, images, splats, steps
        self.should_stop = should_stop
        self.device = encoder._device
        self.core_seconds = 0.0
        self.rates = schedule_on(self.device, fit.recipe, fit.settings)
        on_card = self.device.type == "cuda"
        self.starts_on_processor = not (on_card and starts_on_device(fit.settings))
        self.streams = [torch.cuda.Stream(self.device) for _ in range(2)] if on_card else [None]
        for stream in self.streams:
            if stream is not None:
                # The schedule was copied on the current stream.
                stream.wait_stream(torch.cuda.current_stream(self.device))

    def run(self, pool: ThreadPoolExecutor, size: int) -> None:
        """Every slab, at most two of them on the device; a slab that memory refuses is tried again in halves."""
        import torch

        before = time.thread_time()
        first, turn = 0, 0
        waiting: _Slab | None = None
        while first < len(self.images):
            rows = slice(first, min(first + size, len(self.images)))
            try:
                starts = self._starts(rows, pool) if self.starts_on_processor else None
                self._stop()
                slab = self._launch(rows, starts, self.streams[turn % len(self.streams)])
            except torch.OutOfMemoryError:
                if waiting is None and size == 1:
                    raise JobError(
                        "One image does not fit the memory of the graphics card",
                        allowed=f"images that need less than {self.fit.bytes_per_image:,} bytes",
                        next_step="free memory of the card, give fewer Gaussians, or give --engine cpu",
                    ) from None
                if waiting is not None:
                    self._finish(waiting, pool)
                    waiting = None
                size = max(1, size // 2)
                logger.warning("The graphics card ran out of memory: going on with %d images a launch", size)
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()
                continue
            if waiting is not None:
                self._finish(waiting, pool)
            waiting = slab
            first, turn = rows.stop, turn + 1
        if waiting is not None:
            self._finish(waiting, pool)
        self.core_seconds += time.thread_time() - before

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

    def _launch(self, rows: slice, starts: NDArray[np.float32] | None, stream: torch.cuda.Stream | None) -> _Slab:
        """Uploads and launches a slab, without waiting for it unless the fit takes several launches."""
        import torch

        from encoders.cuda.launches import steps_of_launches
        from encoders.cuda.start import begin_on_device

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
            ends = steps_of_launches(self.fit, len(pixels), self.encoder.pairs_per_second, LAUNCH_SECONDS)
            for end in ends:
                if end != ends[0]:
                    self._wait(stream)
                    self._stop()
                batch.advance(end)
            best = torch.empty(begun.shape, pin_memory=pinned)
            taken = torch.empty(len(pixels), dtype=torch.int32, pin_memory=pinned)
            best.copy_(batch.best(), non_blocking=True)
            taken.copy_(batch.taken, non_blocking=True)
        return _Slab(rows, batch, stream, best, taken)

    def _wait(self, stream: torch.cuda.Stream | None) -> None:
        """Until a stream has done what it was given; looks at ``should_stop`` meanwhile."""
        while stream is not None and not stream.query():
            self._stop()
            time.sleep(0.002)

    def _finish(self, slab: _Slab, pool: ThreadPoolExecutor) -> None:
        """Waits for a slab and puts its result in its rows."""
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
