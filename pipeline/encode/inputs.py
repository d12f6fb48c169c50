"""What a job is carried out with: its images, and its engine with the initialisation that it asks for.

The engine is the one that was named; with ``auto`` that of the store that is there, or the best one.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.locations import Location
from data_schemas.stores.open import open_store, store_exists
from encoders.base import NO_FIT, Encoder, FitSettings
from encoders.engines import ENGINE_CODECS, EngineChoice, Work, choose_engine, create_encoder
from pipeline.encode.job import EncodeJob
from pipeline.sources import open_source
from pipeline.sources.base import ImageSource
from pipeline.sources.download import Progress

if TYPE_CHECKING:
    from encoders.start.regression import StartRegression

logger = logging.getLogger("splatspace.engine")


REFINED_RATE = 0.5
"""Steps of a second fit over those of the first: it begins near its end."""


def encoder_for(job: EncodeJob, settings: FitSettings, *, workers: int, unlearned: bool = False) -> Encoder:
    """Makes the engine that a job names; the same in every process of a run.

    Args:
        job: as resolved; with ``refine`` it names its regression (``pipeline.encode.refine.with_regression``).
        settings: of the job.
        workers: threads.
        unlearned: for a look at what would be done: where the regression is not learned yet, an engine that can be
            described but does not fit.

    Raises:
        JobError: an engine that cannot run here, or a refined job without its regression.
        StoreCorruptError: a regression that is damaged.
    """
    if job.refine == "none":
        return create_encoder(job.engine, settings, workers=workers)
    if job.regression is None and not unlearned:
        raise _unlearned()
    # Inside, here and below: a job without a second fit does not load the compiled regression.
    from encoders.cpu.engine import CpuEncoder
    from encoders.recipe import Recipe
    from encoders.start.regression import RegressedStarts

    recipe = Recipe()
    recipe = replace(
        recipe,
        rate_centre=REFINED_RATE * recipe.rate_centre,
        rate_shape=REFINED_RATE * recipe.rate_shape,
        rate_colour=REFINED_RATE * recipe.rate_colour,
    )
    starts = (
        _Unlearned()
        if job.regression is None
        else RegressedStarts(read_regression(job.regression), settings, recipe.start)
    )
    return CpuEncoder(settings, workers=workers, recipe=recipe, starts=starts)


class _Unlearned:
    """Starts of a regression that is not learned yet."""

    def __call__(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        raise _unlearned()

    def recipe(self) -> dict[str, Any]:
        from encoders.start.regression import SHARE

        return {"method": "regressed", "share": SHARE, "digest": "not learned yet"}


def _unlearned() -> JobError:
    return JobError(
        "A refined job without its regression",
        allowed="a job from pipeline.encode.refine.with_regression",
        next_step="pass the job through pipeline.encode.refine.with_regression before it is planned",
    )


def read_regression(path: Location) -> StartRegression:
    """Reads the file of a regression; one read is kept for the next call of this process.

    Raises:
        JobError: it is not there, or cannot be read.
        StoreCorruptError: it is damaged.
    """
    try:
        return _parse(path.read_bytes(), str(path))
    except OSError as error:
        raise JobError(
            f"The regression {path} cannot be read ({error})",
            allowed="a file that every process of the run can read",
            next_step="run the same command again: it is learned again where it is missing",
        ) from error


@lru_cache(maxsize=1)
def _parse(content: bytes, name: str) -> StartRegression:
    from encoders.start.regression import StartRegression

    return StartRegression.from_bytes(content, name)


def source_of(job: EncodeJob, *, downloading: Progress | None = None) -> ImageSource:
    """Opens the data set of a job.

    Args:
        job: as resolved.
        downloading: told of downloads.

    Raises:
        SourceError: as ``pipeline.sources.open_source``.
    """
    return open_source(
        job.dataset,
        data_dir=job.data_dir,
        split=job.split,
        size=job.size,
        download=job.download,
        progress=downloading,
        background=job.background,
    )


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
