"""Engine ``cpu``: images in parallel over the cores, each in one compiled call; large ones are shared by threads."""

from __future__ import annotations

import logging
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.splats import NORMALISED
from encoders.base import LARGE_PIXELS, FitResult, FitSettings, FitStoppedError, images_for_processor
from encoders.cpu.rule import FitRule, rule_of
from encoders.frame import to_splats
from encoders.recipe import CUT, NORMALISED_CUT, Recipe
from encoders.start.begin import Starts, begin

logger = logging.getLogger("splatspace.engine")

_IMAGES_PER_CALL = 8
"""Images fitted at most between two looks at ``should_stop``: well under a second of work at 64x64."""

_LOOKS_PER_CALL = 8
"""Looks at ``should_stop`` in a second or so, where images are costly."""


class CpuEncoder:
    """Fits with ``encoders.cpu.fit`` on a pool of threads; the compiled code holds no interpreter lock.

    Images of ``encoders.base.LARGE_PIXELS`` and more are fitted with ``encoders.cpu.large``: one a thread while there
    are as many as threads, the rest one after the other by all threads together.

    Args:
        settings: what decides the splats.
        workers: threads; None takes every core. The result does not depend on it.
        recipe: constants of the optimiser; None takes the defaults.
        starts: where Gaussians begin; None takes ``encoders.start.begin.begin``.
    """

    name = "cpu"

    def __init__(
        self,
        settings: FitSettings,
        *,
        workers: int | None = None,
        recipe: Recipe | None = None,
        starts: Starts | None = None,
    ) -> None:
        self.settings = settings
        self.workers = max(1, workers or os.cpu_count() or 1)
        self._recipe = recipe or Recipe()
        self._cut = NORMALISED_CUT if settings.codec == NORMALISED else CUT
        self._starts = starts

    @property
    def device(self) -> str:
        """The CPU and the number of threads."""
        return f"cpu ({platform.machine()}, {self.workers} threads)"

    def recipe(self) -> dict[str, Any]:
        """Every constant of the optimiser, and of starts that were handed in."""
        constants = {**self._recipe.as_dict(), "cut": self._cut}
        return constants if self._starts is None else {**constants, "refine": self._starts.recipe()}

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """About a second of work; see :class:`encoders.base.Encoder`."""
        return images_for_processor(self.settings.gaussians, height, width)

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """Fits a batch; see :class:`encoders.base.Encoder`.

        Args:
            images: uint8 [image, height, width, channel], channel 1 or 3.
            should_stop: polled between handfuls of images; those that are under way are finished.

        Raises:
            FitStoppedError: ``should_stop`` answered True.
        """
        # Inside, as in ``begin``: a run that finds every image done makes an engine, and needs no Numba.
        from encoders.compiled import is_compiled
        from encoders.cpu.fit import fit_images
        from encoders.cpu.large import fit_large
        from encoders.cpu.shares import sum_rows
        from encoders.team import Team

        count, height, width, channels = images.shape
        if not is_compiled(sum_rows if height * width >= LARGE_PIXELS else fit_images):
            logger.info("the kernels are compiled for this machine before the first fit: once, which may take a minute")
        settings, recipe = self.settings, self._recipe
        frames = np.zeros((count, settings.gaussians, 5 + channels), np.float32)
        steps_taken = np.zeros(count, np.int32)
        errors = np.zeros(count, np.float32)
        rule = rule_of(settings, recipe, self._cut, height, width, channels)
        finished = np.zeros(count, np.bool_)

        def part(rows: slice) -> float:
            if should_stop is not None and should_stop():
                return 0.0
            before = time.thread_time()
            batch = np.ascontiguousarray(images[rows])
            starts = begin(batch, settings, recipe.start) if self._starts is None else self._starts(batch)
            fit_images(batch, starts, frames[rows], steps_taken[rows], errors[rows], *rule)
            finished[rows] = True
            return time.thread_time() - before

        def large(row: int, threads: int) -> float:
            if should_stop is not None and should_stop():
                return 0.0
            before = time.thread_time()
            with Team(threads) as team:
                batch = np.ascontiguousarray(images[row : row + 1])
                starts = begin(batch, settings, recipe.start, team) if self._starts is None else self._starts(batch)
                steps_taken[row] = fit_large(batch[0], starts[0], frames[row], team, rule)
            finished[row] = True
            return time.thread_time() - before + team.seconds

        if height * width >= LARGE_PIXELS:
            self._compile_large(channels, rule)
            core_seconds = _fit_in_turns(large, count, self.workers)
        else:
            # No images: compiles, or loads what was compiled, before any time is taken and on one thread.
            part(slice(0, 0))
            handful = max(1, min(_IMAGES_PER_CALL, self.images_per_call(height, width, channels) // _LOOKS_PER_CALL))
            parts = [slice(first, first + handful) for first in range(0, count, handful)]
            if self.workers == 1 or len(parts) <= 1:
                core_seconds = sum(map(part, parts))
            else:
                with ThreadPoolExecutor(self.workers) as pool:
                    core_seconds = sum(pool.map(part, parts))
        result = FitResult(splats=to_splats(frames, height, width), steps=steps_taken, core_seconds=core_seconds)
        if not finished.all():
            raise FitStoppedError(result, finished)
        return result

    def _compile_large(self, channels: int, rule: FitRule) -> None:
        """Compiles, or loads what was compiled, before any time is taken and on one thread: fits a tiny image."""
        from encoders.cpu.large import fit_large
        from encoders.team import Team

        image = np.zeros((1, 9, 9, channels), np.uint8)
        once = rule._replace(rates=rule.rates[:1], tail=0, reseed_every=1, reseed_until=1)
        with Team(1) as team:
            starts = begin(image, replace(self.settings, gaussians=9), self._recipe.start, team)
            fit_large(image[0], starts[0], np.empty_like(starts[0]), team, once)


def _fit_in_turns(fit: Callable[[int, int], float], images: int, threads: int) -> float:
    """Fits images by number, one a thread while that keeps all busy, then each by all threads; sums the seconds."""
    alone = images - images % threads if threads > 1 else 0
    seconds = 0.0
    if alone:
        with ThreadPoolExecutor(threads) as pool:
            seconds = sum(pool.map(lambda row: fit(row, 1), range(alone)))
    return seconds + sum(fit(row, threads) for row in range(alone, images))
