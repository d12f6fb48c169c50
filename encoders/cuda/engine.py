"""Engine ``cuda``: thousands of small images a launch, one warp an image; large ones shared out (``encoders.cuda``).

Starts ``grid`` and ``transport`` are computed on the GPU (``encoders.cuda.start``), ``adaptive`` on the CPU.
While the GPU fits one slab of images, the CPU prepares the next and turns the result of the last into splats;
transfers go through pinned memory on two streams. What an image becomes depends on its pixels and the settings only:
not on the slab, the memory that is free, or where launches were cut.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, NORMALISED
from encoders.base import FitResult, FitSettings, FitStoppedError
from encoders.cuda.available import require_cuda, use_cache_folder
from encoders.frame import COLOUR
from encoders.recipe import Recipe

if TYPE_CHECKING:
    from encoders.cuda.device_fit import DeviceFit

_WARPS_PER_MULTIPROCESSOR = 16
_PAIRS_PER_MULTIPROCESSOR = 2.5e9
"""A cautious guess of pixel-Gaussian pairs per second; it decides the length of a launch, nothing else."""

_MEMORY_SHARE = 0.4
"""Of the free memory, for each of two slabs."""

_START_BYTES = 2**30
"""What starts on the GPU take beside (``encoders.cuda.start``)."""


class CudaEncoder:
    """Fits with Triton kernels on a GPU.

    Args:
        settings: what decides the splats.
        workers: threads for starts and results; None takes four.
        recipe: constants of the optimiser; None takes the defaults.
        device: a torch device; ``cpu`` only while Triton interprets its kernels (for tests).
        batch: images of a launch at most; ``auto`` fits the free memory. The result does not depend on it.

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
        self._recipe = recipe or Recipe()
        self._device = torch.device(device)
        if device == "cpu":
            from encoders.cuda.device_fit import interpreting

            if not interpreting():
                raise JobError("Engine 'cuda' on the CPU", allowed="a CUDA device", next_step="give --engine cpu")

    @property
    def device(self) -> str:
        """The GPU and its number of multiprocessors."""
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
        from encoders.cuda.tiled_batch import TILE_CUT

        # Stores hold "band_cut", and go on with this very recipe only.
        return {**self._recipe.as_dict(), "band_cut": None, "tile_cut": TILE_CUT}

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
            FitStoppedError: ``should_stop`` answered True; slabs that are done are kept.
            JobError: not even one image fits the device's memory.
        """
        count, height, width, channels = images.shape
        fit = self._device_fit(height, width, channels)
        splats = np.zeros((count, self.settings.gaussians, COLOUR + channels), np.float32)
        steps = np.zeros(count, np.int32)
        if count == 0:
            return FitResult(splats=splats, steps=steps, core_seconds=0.0)
        from encoders.cuda.slabs import Slabs

        work = Slabs(
            fit,
            images,
            splats,
            steps,
            device=self._device,
            pairs_per_second=self.pairs_per_second,
            too_large=lambda: self._too_large(fit, self.free_bytes),
            should_stop=should_stop,
        )
        with ThreadPoolExecutor(self.workers) as pool:
            try:
                work.run(pool, self._slab_size(fit))
            except InterruptedError:
                result = FitResult(splats=splats, steps=steps, core_seconds=work.core_seconds)
                raise FitStoppedError(result, work.finished) from None
        return FitResult(splats=splats, steps=steps, core_seconds=work.core_seconds)

    def _device_fit(self, height: int, width: int, channels: int) -> DeviceFit:
        from encoders.cuda.slabs import device_fit

        return device_fit(self.settings, self._recipe, height, width, channels)

    def _slab_size(self, fit: DeviceFit) -> int:
        from encoders.cuda.slabs import LAUNCH_SECONDS, slab_size

        free = self.free_bytes
        if fit.bytes_per_image > free:
            raise self._too_large(fit, free)
        slots = _WARPS_PER_MULTIPROCESSOR * self._multiprocessors
        size = slab_size(
            fit, int(_MEMORY_SHARE * max(free - _START_BYTES, 0)), slots, self.pairs_per_second, LAUNCH_SECONDS
        )
        return size if self.batch == "auto" else min(size, self.batch)

    @property
    def free_bytes(self) -> int:
        """Memory of the device that a batch may take."""
        import torch

        if self._device.type == "cpu":
            return 2**31
        free, _ = torch.cuda.mem_get_info(self._device)
        # What torch keeps for itself is free for the next batch too.
        return free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def _too_large(self, fit: DeviceFit, free: int) -> JobError:
        return JobError(
            f"One image of {fit.height}x{fit.width} with {self.settings.gaussians} Gaussians takes "
            f"{fit.bytes_per_image / 2**20:,.0f} MiB of the GPU, which has {free / 2**20:,.0f} free",
            allowed="images that fit the free memory of the GPU",
            next_step="free memory of the GPU, give fewer --gaussians or a smaller --size, or give --engine cpu",
        )

    @property
    def pairs_per_second(self) -> float:
        """A cautious guess, for the length of launches."""
        return _PAIRS_PER_MULTIPROCESSOR * self._multiprocessors
