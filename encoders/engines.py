"""The table of engines."""

from __future__ import annotations

from collections.abc import Callable

from data_schemas.errors import JobError
from encoders.base import Encoder, FitSettings


def _cpu(settings: FitSettings, workers: int | None) -> Encoder:
    from encoders.fit_cpu import CpuEncoder

    return CpuEncoder(settings, workers=workers)


def _reference(settings: FitSettings, workers: int | None) -> Encoder:
    import torch

    from encoders.fit_reference import ReferenceEncoder

    if workers is not None:
        torch.set_num_threads(workers)
    return ReferenceEncoder(settings, device="cuda" if torch.cuda.is_available() else "cpu")


# Imports inside: torch takes seconds, and the cpu engine does without.
_ENGINES: dict[str, Callable[[FitSettings, int | None], Encoder]] = {"cpu": _cpu, "reference": _reference}

ENGINES: tuple[str, ...] = ("auto", *_ENGINES)
"""Names that ``create_encoder`` knows."""

GPU_ENGINES: frozenset[str] = frozenset()
"""Engines that need a graphics card for themselves: one process for each card."""


def create_encoder(engine: str, settings: FitSettings, *, workers: int | None = None) -> Encoder:
    """An engine by name.

    Args:
        engine: ``auto`` (takes ``cpu``), ``cpu`` or ``reference``.
        settings: what decides the splats.
        workers: threads; None takes every core.

    Raises:
        JobError: an unknown engine, or a number of workers below 1.
    """
    if workers is not None and workers < 1:
        raise JobError(f"{workers} workers", allowed="1 or more")
    if engine not in ENGINES:
        raise JobError(f"Unknown engine {engine!r}", allowed=", ".join(ENGINES))
    return _ENGINES["cpu" if engine == "auto" else engine](settings, workers)
