"""Kills runs that change a store which is there: it grows, its images change, it is replaced. A script, as ``chaos``.

The killed runs live under a clock that is set forward and back all the time.

    python -m tests.faults.chaos_of_changes FOLDER zarr --kills 20

It leaves ``undisturbed-STAGE.SUFFIX`` and ``killed-STAGE.SUFFIX`` in FOLDER, one pair for each stage.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.errors import StoreMismatchError
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.run import encode
from tests.faults.chaos import Chaos, timed
from tests.faults.clocks import jumping

FEW, ALL = 500, 800
CHANGED = range(100, 700)
OPTIONS: dict[str, Any] = {"gaussians": 6, "steps": 3, "workers": 1, "block_rows": 50}
REPLACED: dict[str, Any] = {**OPTIONS, "gaussians": 5}
STAGES = ("grown", "changed", "replaced")


def make_source(path: Path, *, images: int, changed: bool) -> None:
    """Random images with labels in an .npz; some of them differ from those of the other state."""
    pixels = np.random.default_rng(1).integers(0, 256, (images, 10, 10, 3), np.uint8)
    labels = np.arange(images) % 7
    if changed:
        pixels[CHANGED.start : CHANGED.stop] = np.random.default_rng(2).integers(
            0, 256, (len(CHANGED), 10, 10, 3), np.uint8
        )
        labels = labels + 1
    partial = path.with_name("written.npz")
    np.savez(partial, images=pixels, labels=labels)
    partial.replace(path)


def job_of(stage: str, source: Path, out: Path) -> EncodeJob:
    """What is run in a stage, again and again."""
    if stage == "replaced":
        return resolve_job(str(source), out, **REPLACED, overwrite=True)
    return resolve_job(str(source), out, **OPTIONS)


def continued(job: EncodeJob) -> None:
    """Goes on after a killed replacement, as a user may who forgets ``--overwrite``."""
    try:
        encode(job.model_copy(update={"overwrite": False}))
    except StoreMismatchError:
        return  # the old store is still there, and is told apart


def copy(store: Path, to: Path) -> None:
    """Keeps a stage's result for the comparison."""
    shutil.copytree(store, to) if store.is_dir() else shutil.copy(store, to)


def main(folder: Path, suffix: str, kills: int) -> dict[str, Any]:
    """Runs all stages with and without kills; see the head of this file."""
    source = folder / "images.npz"
    make_source(source, images=FEW, changed=False)
    encode(resolve_job(str(source), folder / "warm.h5", **OPTIONS, limit=17))
    undisturbed, path = folder / f"undisturbed.{suffix}", folder / f"killed.{suffix}"
    for store in (undisturbed, path):
        timed(lambda store=store: encode(resolve_job(str(source), store, **OPTIONS)))
    dice = random.Random(3)
    told: dict[str, Any] = {"faults": []}
    for stage in STAGES:
        make_source(source, images=ALL, changed=stage != "grown")
        seconds = timed(lambda stage=stage: encode(job_of(stage, source, undisturbed)))
        chaos = Chaos(job_of(stage, source, path), dice, refits=stage != "grown", keeps=stage != "replaced")
        chaos.prepare = lambda: jumping(random.Random(dice.random()))
        for number in range(3 * kills):
            if chaos.kills == kills:
                break
            child = chaos.begin()
            time.sleep(dice.uniform(0, 0.5 * seconds))
            chaos.end(child, kill=True)
            if stage == "replaced" and number % 4 == 3:
                timed(lambda chaos=chaos: continued(chaos.job))
        chaos.end(chaos.begin(), kill=False)
        told["faults"] += [f"{stage}: {fault}" for fault in chaos.faults]
        told[stage] = {"kills": chaos.kills, "by_phase": dict(chaos.killed), "undisturbed_seconds": round(seconds, 2)}
        copy(undisturbed, folder / f"undisturbed-{stage}.{suffix}")
        copy(path, folder / f"killed-{stage}.{suffix}")
    return told


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("suffix", choices=["zarr", "h5"])
    parser.add_argument("--kills", type=int, default=12)
    given = parser.parse_args()
    sys.stdout.write(json.dumps(main(given.folder, given.suffix, given.kills)) + "\n")
