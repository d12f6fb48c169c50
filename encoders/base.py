"""The contract of an engine that fits Gaussians, its settings, and the engine that fits nothing (images only)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, CODECS, CodecName, ColourRange, StartName, layout_of

MAX_GAUSSIANS = 100_000
MAX_STEPS = 1_000_000
MAX_ROUNDS = 10

PIXEL_GAUSSIANS_PER_CALL = 40_000_000
"""Work that an engine on the processor is handed at once (pixels times Gaussians): about a second of all cores."""

FEWEST_PER_CALL, MOST_PER_CALL = 16, 256

NO_FIT = "none"


@dataclass(frozen=True)
class FitSettings:
    """What decides the splats of an image, whatever the engine.

    Attributes:
        gaussians: K, exactly this many per image; 0 for images without a fit.
        steps: optimiser steps per image; with ``rounds``, those of the first round.
        target_psnr: stop an image at this PSNR in dB (None: never stop early).
        rounds: an image that misses ``target_psnr`` begins another round, twice as long as the last, until it has had
            so many: easy images leave their steps to hard ones, and each image is still fitted by itself.
        codec: ``additive/1``, ``normalised/1`` or ``over/1``; not every engine fits every one (encoders.engines).
        colours: ``bounded`` (each colour in [0, 1]) or ``signed``.
        start: where Gaussians begin: ``transport``, ``grid`` or ``adaptive``.
        seed: seeds the ``adaptive`` start together with the image's content.
    """

    gaussians: int
    steps: int = 400
    target_psnr: float | None = None
    rounds: int = 1
    codec: CodecName = ADDITIVE
    colours: ColourRange = "bounded"
    start: StartName = "transport"
    seed: int = 0

    def __post_init__(self) -> None:
        """Checks every field.

        Raises:
            JobError: a value outside its range.
        """
        if not 0 <= self.gaussians <= MAX_GAUSSIANS:
            raise JobError(f"{self.gaussians} Gaussians per image", allowed=f"0 to {MAX_GAUSSIANS}")
        if not 0 <= self.steps <= MAX_STEPS:
            raise JobError(f"{self.steps} optimiser steps", allowed=f"0 to {MAX_STEPS:,}")
        if self.target_psnr is not None and not (math.isfinite(self.target_psnr) and 0 < self.target_psnr <= 120):
            raise JobError(f"a target PSNR of {self.target_psnr} dB", allowed="more than 0 and at most 120 dB")
        if not 1 <= self.rounds <= MAX_ROUNDS:
            raise JobError(f"{self.rounds} rounds", allowed=f"1 to {MAX_ROUNDS}")
        if self.rounds > 1 and self.target_psnr is None:
            raise JobError(
                f"{self.rounds} rounds for images that miss a target, and no target",
                next_step="give --target-psnr, or more --steps for every image",
            )
        if self.most_steps > MAX_STEPS:
            raise JobError(
                f"{self.rounds} rounds from {self.steps} steps are {self.most_steps:,} steps",
                allowed=f"{MAX_STEPS:,} in all",
            )
        if self.codec not in CODECS:
            raise JobError(f"codec {self.codec!r} cannot be fitted", allowed=", ".join(CODECS))
        if self.colours not in ("bounded", "signed"):
            raise JobError(f"colours {self.colours!r}", allowed="bounded, signed")
        if self.start not in ("transport", "grid", "adaptive"):
            raise JobError(f"start {self.start!r}", allowed="transport, grid, adaptive")
        if not 0 <= self.seed < 2**63:
            raise JobError(f"seed {self.seed}", allowed="0 to 2^63 - 1")

    @property
    def most_steps(self) -> int:
        """Optimiser steps of an image that goes through every round."""
        return self.steps * (2**self.rounds - 1)

    def as_dict(self) -> dict[str, Any]:
        """For the store's attributes."""
        return asdict(self)


@dataclass
class FitResult:
    """Splats of a batch of images.

    Attributes:
        splats: float32 [image, gaussian, parameter] in ``layout_of(codec, channels)``.
        steps: int32 [image], optimiser steps taken.
        core_seconds: processor time used by the engine's threads.
    """

    splats: NDArray[np.float32]
    steps: NDArray[np.int32]
    core_seconds: float


class FitStoppedError(InterruptedError):
    """A fit that was asked to stop, with the images that were finished by then, so that none is fitted twice.

    Args:
        result: of the batch; what it says of images that are not finished means nothing.
        finished: bool [image].

    Attributes:
        result: as given.
        finished: as given.
    """

    def __init__(self, result: FitResult, finished: NDArray[np.bool_]) -> None:
        super().__init__("the fit was asked to stop")
        self.result = result
        self.finished = finished


def images_for_processor(gaussians: int, height: int, width: int) -> int:
    """How many images an engine on the processor is best given at once, so that progress shows every second or so.

    Args:
        gaussians: K.
        height: rows of the images.
        width: columns of the images.
    """
    return min(max(PIXEL_GAUSSIANS_PER_CALL // (height * width * gaussians), FEWEST_PER_CALL), MOST_PER_CALL)


class Encoder(Protocol):
    """Fits exactly K Gaussians to every image of a batch."""

    name: str
    settings: FitSettings

    @property
    def device(self) -> str:
        """Where it runs, for people: 'cpu (Intel Xeon, AVX-512, 4 workers)'."""
        ...

    def recipe(self) -> dict[str, Any]:
        """Every constant of the optimiser, for the store's attributes (JSON types only)."""
        ...

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """How many images ``fit`` is best given at once: enough to keep the device busy, some seconds of work.

        What an image becomes does not depend on it. A stopped run loses a call at most (an engine that raises
        ``FitStoppedError`` loses less), and progress shows after each.

        Args:
            height: rows of the images.
            width: columns of the images.
            channels: 1 or 3.

        Returns:
            At least 1.
        """
        ...

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """Fits a batch.

        The result of an image depends on its pixels and the settings only, never on the batch around it, its
        place in it, or the number of workers.

        Args:
            images: uint8 [image, height, width, channel], channel 1 or 3.
            should_stop: polled between images; when it answers True the fit raises InterruptedError.

        Raises:
            FitStoppedError: ``should_stop`` answered True after some of the images were finished.
            InterruptedError: ``should_stop`` answered True; nothing of the batch is kept.
        """
        ...


class NoFit:
    """Answers every image with no Gaussian at all.

    Args:
        settings: with 0 Gaussians.

    Raises:
        JobError: settings that ask for Gaussians.
    """

    name = NO_FIT
    device = "none"

    def __init__(self, settings: FitSettings) -> None:
        if settings.gaussians:
            raise JobError(
                f"Engine none with {settings.gaussians} Gaussians", allowed="0", next_step="give --engine auto"
            )
        self.settings = settings

    def recipe(self) -> dict[str, Any]:
        """No constants."""
        return {}

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """See :class:`encoders.base.Encoder`."""
        return MOST_PER_CALL

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """See :class:`encoders.base.Encoder`.

        Raises:
            InterruptedError: ``should_stop`` answered True.
        """
        if should_stop is not None and should_stop():
            raise InterruptedError
        width = layout_of(self.settings.codec, images.shape[3]).width
        return FitResult(np.zeros((len(images), 0, width), np.float32), np.zeros(len(images), np.int32), 0.0)
