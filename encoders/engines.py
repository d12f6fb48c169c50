"""The table of engines, and ``--engine auto``: which one fits, by this machine and the work to do, and why."""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, CODECS, NORMALISED, OVER, CodecName
from encoders.base import NO_FIT, Encoder, FitSettings, NoFit

logger = logging.getLogger("splatspace.engine")
"""Its lines are for whoever started the run: the command line shows them without ``--verbose``."""

CARD_START_SECONDS = 10.0
"""What the cuda engine takes until its first image is fitted: to load torch and the driver, and to compile or load its
kernels. A job that the CPU ends sooner stays there."""

_SECONDS_PER_GAUSSIAN_STEP = 1e-7
_PIXELS_PER_GAUSSIAN = 12.0
"""Time of one core for a Gaussian and a step while there are so many pixels for each (docs/results.md)."""

ENGINE_CODECS: dict[str, tuple[CodecName, ...]] = {
    "cpu": (ADDITIVE, NORMALISED),
    "reference": CODECS,
    "gsplat": (OVER,),
    "cuda": (ADDITIVE, NORMALISED),
    NO_FIT: CODECS,
}
"""The codecs that each engine fits."""

GPU_ENGINES: frozenset[str] = frozenset({"cuda", "gsplat"})
"""Engines that need a GPU for themselves: one process for each GPU."""


@dataclass(frozen=True)
class Work:
    """How much there is to fit.

    Attributes:
        images: how many.
        height: rows.
        width: columns.
        channels: 1 or 3.
        workers: threads or processes on the CPU.
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
    from encoders.autograd import gsplat_available

    return gsplat_available.missing_for_gsplat()


def fault_of_kernels(settings: FitSettings, work: Work | None) -> str | None:
    """What is wrong with the kernels of engine ``cuda`` on this GPU; None where they are right."""
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
            return EngineChoice("gsplat", f"it fits codec {OVER} on this machine's GPU"), logging.INFO
        return (
            EngineChoice("reference", f"no other fits codec {OVER} here, and it is slow ({missing.got})"),
            logging.WARNING,
        )
    if not machine.has_driver():
        return EngineChoice("cpu", "this machine has no driver of an NVIDIA GPU"), logging.INFO
    if work is not None:
        seconds = work.processor_seconds(settings)
        if seconds < CARD_START_SECONDS:
            return (
                EngineChoice("cpu", f"some {seconds:.1f} s of work, less than a GPU takes to start"),
                logging.INFO,
            )
    try:
        missing = machine.missing_for_cuda()
        if missing is not None:
            return EngineChoice("cpu", missing.got), logging.INFO
        fault = machine.fault_of_kernels(settings, work)
    # Drivers and the packages around them fail in many ways, and none of them is to keep the CPU from fitting.
    except Exception as error:
        logger.debug("engine cuda could not be looked at", exc_info=True)
        fault = f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no message')}"
    if fault is not None:
        return EngineChoice("cpu", f"the kernels of engine cuda are not used on this GPU: {fault}"), logging.WARNING
    return EngineChoice("cuda", "its kernels agree with engine cpu on this machine's GPU"), logging.INFO


def _cpu(settings: FitSettings, workers: int | None) -> Encoder:
    from encoders.cpu.engine import CpuEncoder

    return CpuEncoder(settings, workers=workers)


def _reference(settings: FitSettings, workers: int | None) -> Encoder:
    import torch

    from encoders.autograd.reference import ReferenceEncoder

    if workers is not None:
        torch.set_num_threads(workers)
    return ReferenceEncoder(settings, device="cuda" if torch.cuda.is_available() else "cpu")


def _gsplat(settings: FitSettings, workers: int | None) -> Encoder:
    from encoders.autograd.gsplat import GsplatEncoder

    return GsplatEncoder(settings)


def _cuda(settings: FitSettings, workers: int | None) -> Encoder:
    from encoders.cuda.engine import CudaEncoder

    return CudaEncoder(settings, workers=workers)


# Imports inside: torch takes seconds, and the cpu engine does without.
_ENGINES: dict[str, Callable[[FitSettings, int | None], Encoder]] = {
    "cpu": _cpu,
    "reference": _reference,
    "gsplat": _gsplat,
    "cuda": _cuda,
    NO_FIT: lambda settings, _workers: NoFit(settings),
}


ENGINES: tuple[str, ...] = ("auto", *_ENGINES)
"""Names that ``create_encoder`` knows."""


def create_encoder(engine: str, settings: FitSettings, *, workers: int | None = None) -> Encoder:
    """An engine by name.

    Args:
        engine: one of ``ENGINES``; ``auto`` takes the best of this machine for the codec and much work, and says so
            (``encoders.engines`` also knows how much work there is).
        settings: what decides the splats.
        workers: threads; None takes every core.

    Raises:
        JobError: an unknown engine, one that does not fit the codec or cannot run here, or workers below 1.
    """
    if workers is not None and workers < 1:
        raise JobError(f"{workers} workers", allowed="1 or more")
    if engine not in ENGINES:
        raise JobError(f"Unknown engine {engine!r}", allowed=", ".join(ENGINES))
    if engine == "auto":
        engine = choose_engine(settings).engine if settings.gaussians else NO_FIT
    if not settings.gaussians and engine != NO_FIT:
        raise JobError(f"Engine {engine!r} with 0 Gaussians", allowed=NO_FIT, next_step="leave --engine out")
    if settings.codec not in ENGINE_CODECS[engine]:
        able = [name for name, codecs in ENGINE_CODECS.items() if settings.codec in codecs]
        raise JobError(
            f"Engine {engine!r} does not fit codec {settings.codec}",
            allowed=f"{', '.join(able)} for this codec",
            next_step="give --engine auto",
        )
    return _ENGINES[engine](settings, workers)
