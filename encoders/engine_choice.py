"""``--engine auto``: which engine fits, by what this machine has and how much there is to do, and why."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass

from data_schemas.errors import JobError
from data_schemas.splats import OVER
from encoders.base import FitSettings

logger = logging.getLogger("splatspace.engine")
"""Its lines are for whoever started the run: the command line shows them without ``--verbose``."""

CARD_START_SECONDS = 10.0
"""What the cuda engine takes until its first image is fitted: to load torch and the driver, and to compile or load its
kernels. A job that the processor ends sooner stays there."""

_SECONDS_PER_GAUSSIAN_STEP = 1e-7
_PIXELS_PER_GAUSSIAN = 12.0
"""Time of one core for a Gaussian and a step while there are so many pixels for each (docs/results.md)."""


@dataclass(frozen=True)
class Work:
    """How much there is to fit.

    Attributes:
        images: how many.
        height: rows.
        width: columns.
        channels: 1 or 3.
        workers: threads or processes on the processor.
    """

    images: int
    height: int
    width: int
    channels: int
    workers: int

    def processor_seconds(self, settings: FitSettings) -> float:
        """Roughly how long the cpu engine takes."""
        sparse = max(1.0, self.height * self.width / settings.gaussians / _PIXELS_PER_GAUSSIAN)
        each = settings.gaussians * settings.steps * _SECONDS_PER_GAUSSIAN_STEP * sparse
        return self.images * each / max(1, min(self.workers, self.images))


@dataclass(frozen=True)
class EngineChoice:
    """An engine and why it was taken.

    Attributes:
        engine: its name.
        reason: for people, to follow "engine NAME: ".
    """

    engine: str
    reason: str

    def __str__(self) -> str:
        return f"engine {self.engine}: {self.reason}"


def has_driver() -> bool:
    """Whether an NVIDIA driver is installed; found out without torch, which takes seconds to load."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def missing_for_cuda() -> JobError | None:
    """What keeps engine ``cuda`` from running here, as the error to raise; None where nothing does."""
    from encoders.cuda.available import require_cuda

    try:
        require_cuda()
    except JobError as error:
        return error
    return None


def missing_for_gsplat() -> JobError | None:
    """What keeps engine ``gsplat`` from running here, as the error to raise; None where nothing does."""
    from encoders import gsplat_available

    return gsplat_available.missing_for_gsplat()


def fault_of_kernels(settings: FitSettings, work: Work | None) -> str | None:
    """What is wrong with the kernels of engine ``cuda`` on this card; None where they are right."""
    from encoders.cuda.self_check import fault_on_this_card

    if work is None:
        return fault_on_this_card(settings, 32, 32, 3)
    return fault_on_this_card(settings, work.height, work.width, work.channels)


@dataclass(frozen=True)
class Machine:
    """What is asked of a machine; each question may take longer than the one before."""

    has_driver: Callable[[], bool] = has_driver
    missing_for_gsplat: Callable[[], JobError | None] = missing_for_gsplat
    missing_for_cuda: Callable[[], JobError | None] = missing_for_cuda
    fault_of_kernels: Callable[[FitSettings, Work | None], str | None] = fault_of_kernels


def choose_engine(settings: FitSettings, work: Work | None = None, *, machine: Machine | None = None) -> EngineChoice:
    """The engine that ``auto`` takes; never another codec than the one asked for. Says so in one line.

    Args:
        settings: what decides the splats.
        work: how much there is to fit; None where that is not known, and may be much.
        machine: answers what is there; None asks this one.
    """
    machine = machine or Machine()
    choice, level = _choose(settings, work, machine)
    logger.log(level, "%s", choice)
    return choice


def _choose(settings: FitSettings, work: Work | None, machine: Machine) -> tuple[EngineChoice, int]:
    """The choice and how loudly it is to be said."""
    if settings.codec == OVER:
        missing = machine.missing_for_gsplat()
        if missing is None:
            return EngineChoice("gsplat", f"it fits codec {OVER} on this machine's graphics card"), logging.INFO
        return (
            EngineChoice("reference", f"no other fits codec {OVER} here, and it is slow ({missing.got})"),
            logging.WARNING,
        )
    if not machine.has_driver():
        return EngineChoice("cpu", "this machine has no driver of an NVIDIA card"), logging.INFO
    if work is not None:
        seconds = work.processor_seconds(settings)
        if seconds < CARD_START_SECONDS:
            return (
                EngineChoice("cpu", f"some {seconds:.1f} s of work, less than a graphics card takes to start"),
                logging.INFO,
            )
    try:
        missing = machine.missing_for_cuda()
        if missing is not None:
            return EngineChoice("cpu", missing.got), logging.INFO
        fault = machine.fault_of_kernels(settings, work)
    # Drivers and the packages around them fail in many ways, and none of them is to keep the processor from fitting.
    except Exception as error:
        logger.debug("engine cuda could not be looked at", exc_info=True)
        fault = f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no message')}"
    if fault is not None:
        return EngineChoice("cpu", f"the kernels of engine cuda are not used on this card: {fault}"), logging.WARNING
    return EngineChoice("cuda", "its kernels agree with engine cpu on this machine's graphics card"), logging.INFO
