"""Processor time of an image, of several generators in turns, so that a busy machine is unkind to all alike."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from pipeline.generation.draws import Settings, draw
from pipeline.generation.run import load_run


def alternate_times(runs: Mapping[str, tuple[Path, int]], *, images: int, rounds: int) -> dict[str, float]:
    """Times sampling and rendering.

    Args:
        runs: folder and evaluations of the network by name.
        images: of each round, in one batch.
        rounds: in which each generator takes its turn, after one of one image that does not count.

    Returns:
        Median over the rounds of the processor seconds per image, by name.
    """
    held = {name: (load_run(folder, device="cpu"), evaluations) for name, (folder, evaluations) in runs.items()}
    taken: dict[str, list[float]] = {name: [] for name in held}
    for turn in range(rounds + 1):
        for name, (run, evaluations) in held.items():
            count = images if turn else 1
            settings = Settings(run.objective.settings.sampler, evaluations if turn else 1, 1.0, turn, count)
            used = time.process_time()
            draw(run, settings, None, count, lambda _done: None)
            if turn:
                taken[name].append((time.process_time() - used) / count)
    return {name: float(np.median(values)) for name, values in taken.items()}
