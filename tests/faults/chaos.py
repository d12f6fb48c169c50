"""Kills one encode again and again at random instants: a script in a process of its own, started by the tests.

    python -m tests.faults.chaos FOLDER zarr --kills 100 --images 2000

The process has one thread until its last fork, so that each run is a fork of it and begins at once: a hundred runs
cost no hundred imports. It leaves ``undisturbed.SUFFIX`` and ``killed.SUFFIX`` in FOLDER and prints what it did.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.run import encode
from tests.faults.phases import ENDED, PHASES, PLANNED, REFITTED, WRITTEN, Board

COPIES = 60
"""So many images are copies of others, far from them: rows that are filled from other rows."""

OPTIONS: dict[str, Any] = {"gaussians": 6, "steps": 3, "workers": 1, "block_rows": 40}
AIMED_AT_THE_END = 0.1
"""Share of the kills that come in the last moments of the run, which a random instant seldom meets."""

END_SECONDS = 0.003
"""Between the beginning of the last phase and such a kill, at most."""


def make_images(path: Path, count: int) -> None:
    """Random smooth images with labels, 12 x 12, in an .npz."""
    dice = np.random.default_rng(0)
    coarse = dice.integers(0, 256, (count, 4, 4, 3), np.uint8)
    images = coarse.repeat(3, 1).repeat(3, 2)
    images[-COPIES:] = images[:COPIES]
    np.savez(path, images=images, labels=np.arange(count) % 10)


def fork(action: Callable[[], object]) -> int:
    """Runs ``action`` in a child, which never returns."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException as error:
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
        finally:
            os._exit(status)
    return child


class Chaos:
    """One encode and its killer.

    Args:
        job: of the encode.
        dice: when the kills come.
        refits: whether rows that were done have another image now.
        keeps: whether the job goes on with what is there.
        images: of the source.
    """

    def __init__(
        self, job: EncodeJob, dice: random.Random, *, refits: bool = False, keeps: bool = True, images: int = 0
    ) -> None:
        self.job = job
        self.images = images
        self.dice = dice
        self.refits, self.keeps = refits, keeps
        self.board = Board()
        self.prepare: Callable[[], object] = lambda: None
        self.faults: list[str] = []
        self.killed: Counter[str] = Counter()
        self.kills = 0
        self.safe = 0

    def begin(self) -> int:
        """Starts a run; it ends by itself or is killed."""
        self.board.clear()

        def run() -> None:
            self.board.watch()
            self.prepare()
            encode(self.job)
            self.board.slots[ENDED] = 1

        return fork(run)

    def end(self, child: int, *, kill: bool) -> bool:
        """Kills a run (or waits for it) and looks whether it kept what was safe.

        Returns:
            Whether the kill met it alive.
        """
        active = self.board.active()
        if kill:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        alive = os.WIFSIGNALED(status)
        planned, written = int(self.board.slots[PLANNED]), int(self.board.slots[WRITTEN])
        if not alive and status:
            self.faults.append(f"after {self.kills} kills a run failed by itself")
        if self.keeps and planned and planned < self.safe:
            self.faults.append(f"after {self.kills} kills {planned} rows were left of {self.safe}")
        if self.board.slots[REFITTED] and not self.refits:
            self.faults.append(f"after {self.kills} kills {self.board.slots[REFITTED]} rows were fitted twice")
        if not self.refits:
            self.safe = max(self.safe, planned + written)
        if kill and alive:
            self.kills += 1
            self.killed.update(active or ["between phases"])
        return alive

    def kill_at_random(self, kills: int, start_seconds: float, work_seconds: float) -> None:
        """Kills runs at random instants, so spread that the work lasts until about the last of them.

        The spread follows the progress, and who has written more than a block is killed soon: how long the work takes
        changes with what else the machine does.
        """
        spread = 2.0
        while self.kills < kills and self.safe < self.images:
            left = work_seconds * (self.images - self.safe) / self.images / (kills - self.kills)
            child = self.begin()
            deadline = time.monotonic() + self.dice.uniform(0, start_seconds + spread * left)
            while time.monotonic() < deadline:
                if self.board.slots[WRITTEN] > OPTIONS["block_rows"]:
                    deadline = min(deadline, time.monotonic() + self.dice.uniform(0, left))
                time.sleep(0.001)
            self.end(child, kill=True)
            spread *= 0.9 if self.safe / self.images > self.kills / kills else 1.1

    def kill_in(self, phase: str, seconds: float) -> bool:
        """Kills a run within ``seconds`` after it has come to a phase."""
        child = self.begin()
        at = PHASES.index(phase)
        deadline = time.monotonic() + 60
        while not self.board.slots[at] and not self.board.slots[ENDED] and time.monotonic() < deadline:
            time.sleep(0.0005)
        time.sleep(self.dice.uniform(0, seconds))
        return self.end(child, kill=True)


def timed(action: Callable[[], object]) -> float:
    """Seconds that ``action`` takes in a fork."""
    began = time.perf_counter()
    if os.waitpid(fork(action), 0)[1]:
        raise SystemExit("the undisturbed run failed")
    return time.perf_counter() - began


def main(folder: Path, suffix: str, kills: int, images: int, seed: int) -> dict[str, Any]:
    """Runs it all; see the head of this file."""
    source = folder / "images.npz"
    make_images(source, images)
    # Compiled code is loaded here, once; HDF5, since zarr would start threads.
    encode(resolve_job(str(source), folder / "warm.h5", **OPTIONS, limit=17))
    undisturbed = folder / f"undisturbed.{suffix}"
    work = timed(lambda: encode(resolve_job(str(source), undisturbed, **OPTIONS)))
    start = timed(lambda: encode(resolve_job(str(source), undisturbed, **OPTIONS, limit=1)))
    job = resolve_job(str(source), folder / f"killed.{suffix}", **OPTIONS)
    chaos = Chaos(job, random.Random(seed), images=images)
    began = time.perf_counter()
    chaos.kill_at_random(kills - max(2, round(AIMED_AT_THE_END * kills)), start, work)
    at_random = chaos.kills
    # The rest of the kills: near the end of a run that has little or nothing left to do.
    for _ in range(10 * (kills - chaos.kills)):
        if chaos.kills == kills:
            break
        chaos.kill_in("finishing", END_SECONDS)
    chaos.end(chaos.begin(), kill=False)
    return {
        "images": images, "kills": chaos.kills, "at_random": at_random, "by_phase": dict(chaos.killed),
        "faults": chaos.faults, "seconds": round(time.perf_counter() - began, 1),
        "undisturbed_seconds": round(work, 2), "start_seconds": round(start, 2), "safe": chaos.safe,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("suffix", choices=["zarr", "h5"])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    sys.stdout.write(json.dumps(main(given.folder, given.suffix, given.kills, given.images, given.seed)) + "\n")
