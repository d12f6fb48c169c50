"""The engine of a run: the one that was named, or with ``auto`` that of the store that is there, or the best one."""

from __future__ import annotations

import logging

from data_schemas.stores import open_store, store_exists
from encoders.base import FitSettings
from encoders.engine_choice import EngineChoice, Work, choose_engine
from encoders.engines import ENGINE_CODECS
from encoders.no_fit import NO_FIT
from pipeline.jobs import EncodeJob

logger = logging.getLogger("splatspace.engine")


def engine_for(job: EncodeJob, settings: FitSettings, images: int, shape: tuple[int, int, int]) -> EngineChoice:
    """Names the engine and, where ``auto`` was asked for, the reason; the line is logged.

    Args:
        job: as asked for.
        settings: of the fit.
        images: of the job.
        shape: height, width and channels of an image.

    Returns:
        The choice; without a reason where the job names its engine.
    """
    if not settings.gaussians and job.engine == "auto":
        return EngineChoice(NO_FIT, "")
    if job.engine != "auto":
        return EngineChoice(job.engine, "")
    if not job.overwrite and store_exists(job.out):
        with open_store(job.out, "r") as store:
            there = store.header.engine
        # Rows of two engines are not mixed. One that does not fit the codec is no answer, whatever made the store.
        if there != NO_FIT and settings.codec in ENGINE_CODECS.get(there, ()):
            choice = EngineChoice(there, f"it made the rows that {job.out.name} holds")
            logger.info("%s", choice)
            return choice
    height, width, channels = shape
    return choose_engine(settings, Work(images, height, width, channels, job.workers))
