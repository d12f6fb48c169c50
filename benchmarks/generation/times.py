"""CPU time of an image, of several generators in turns, so that a busy machine is unkind to all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.sample.draws import Settings, draw
from pipeline.sample.fit import sample_fit
from pipeline.sample.run import load_run
from pipeline.store_images import as_channels_last


class Timed(NamedTuple):
    """What is timed.

    Attributes:
        run: folder of the generator.
        evaluations: of the network.
        fit: whether its pixels are fitted, rounded, decoded and measured as well.
    """

    run: Path
    evaluations: int
    fit: bool = False


def alternate_times(runs: Mapping[str, Timed], *, images: int, rounds: int) -> dict[str, float]:
    """Times sampling, the fit where there is one, and rendering.

    Args:
        runs: by name.
        images: of each round, in one batch.
        rounds: in which each generator takes its turn, after one of one image that does not count.

    Returns:
        Median over the rounds of the CPU seconds per image, by name.
    """
    held = {name: load_run(one.run, device="cpu") for name, one in runs.items()}
    fits = {name: sample_fit(held[name]) for name, one in runs.items() if one.fit}
    taken: dict[str, list[float]] = {name: [] for name in held}
    for turn in range(rounds + 1):
        for name, run in held.items():
            count = images if turn else 1
            evaluations = runs[name].evaluations if turn else run.objective.settings.distilled or 1
            settings = Settings(run.objective.settings.sampler, evaluations, 1.0, turn, count)
            used = time.process_time()
            drawn = draw(run, settings, None, count, lambda _done: None)
            if name in fits:
                fits[name].rows(as_channels_last(drawn.images))
            if turn:
                taken[name].append((time.process_time() - used) / count)
    return {name: float(np.median(values)) for name, values in taken.items()}
