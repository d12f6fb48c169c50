"""The table of engines."""

from __future__ import annotations

from collections.abc import Callable

from data_schemas.errors import JobError
from data_schemas.splats import ADDITIVE, CODECS, NORMALISED, OVER, CodecName
from encoders.base import Encoder, FitSettings
from encoders.engine_choice import choose_engine
from encoders.no_fit import NO_FIT, NoFit


def _cpu(settings: FitSettings, workers: int | None) -> Encoder:
    from encoders.fit_cpu import CpuEncoder

    return CpuEncoder(settings, workers=workers)


def _reference(settings: FitSettings, workers: int | None) -> Encoder:
    import torch

    from encoders.fit_reference import ReferenceEncoder

    if workers is not None:
        torch.set_num_threads(workers)
    return ReferenceEncoder(settings, device="cuda" if torch.cuda.is_available() else "cpu")


def _gsplat(settings: FitSettings, workers: int | None) -> Encoder:
    from encoders.fit_gsplat import GsplatEncoder

    return GsplatEncoder(settings)


def _cuda(settings: FitSettings, workers: int | None) -> Encoder:
    from encoders.fit_cuda import CudaEncoder

    return CudaEncoder(settings, workers=workers)


# Imports inside: torch takes seconds, and the cpu engine does without.
_ENGINES: dict[str, Callable[[FitSettings, int | None], Encoder]] = {
    "cpu": _cpu,
    "reference": _reference,
    "gsplat": _gsplat,
    "cuda": _cuda,
    NO_FIT: lambda settings, _workers: NoFit(settings),
}

ENGINE_CODECS: dict[str, tuple[CodecName, ...]] = {
    "cpu": (ADDITIVE, NORMALISED),
    "reference": CODECS,
    "gsplat": (OVER,),
    "cuda": (ADDITIVE, NORMALISED),
    NO_FIT: CODECS,
}
"""The codecs that each engine fits."""

ENGINES: tuple[str, ...] = ("auto", *_ENGINES)
"""Names that ``create_encoder`` knows."""

GPU_ENGINES: frozenset[str] = frozenset({"cuda", "gsplat"})
"""Engines that need a graphics card for themselves: one process for each card."""


def create_encoder(engine: str, settings: FitSettings, *, workers: int | None = None) -> Encoder:
    """An engine by name.

    Args:
        engine: one of ``ENGINES``; ``auto`` takes the best of this machine for the codec and much work, and says so
            (``encoders.engine_choice`` also knows how much work there is).
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
