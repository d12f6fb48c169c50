"""Photographs on the CPU engine: PSNR over K, steps and seconds, and what a second core brings.

    python -m benchmarks.cpu.photographs
    python -m benchmarks.cpu.photographs --only coffee --gaussians 5000 --steps 200 --repeats 1

The photographs ship with scikit-image, which names their owners: all are CC0 or in the public domain. Seconds are those
of a whole fit, its start included, by the clock; whatever else the machine does is in them. CPU time is not disturbed
so: "on two" it is what the busier of two threads has to do, without the hand-overs. Prints Markdown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Self

import numpy as np
import skimage.data
import typer
from numpy.typing import NDArray

from benchmarks.encode import markdown
from data_schemas.splats import ADDITIVE, CodecName, StartName, layout_of
from encoders.base import FitResult, FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.cpu.large import fit_large
from encoders.cpu.rule import rule_of
from encoders.decode import decode, to_uint8
from encoders.quality import psnr
from encoders.recipe import CUT, Recipe
from encoders.start.begin import begin
from encoders.team import Team

PHOTOGRAPHS = {
    "astronaut": "public domain, NASA",
    "chelsea": "CC0, Stefan van der Walt",
    "coffee": "CC0, Rachel Michetti",
    "rocket": "public domain, SpaceX",
    "retina": "CC0, the middle 512x768 pixels",
    "hubble_deep_field": "public domain, NASA, the middle 512x768 pixels",
}
KODAK = 512, 768
"""Rows and columns of a photograph of the Kodak set, which published methods report; larger ones are cut to it."""


def photograph(name: str) -> NDArray[np.uint8]:
    """A photograph of scikit-image, uint8 [1, height, width, channel], its middle where it is larger than ``KODAK``."""
    pixels = getattr(skimage.data, name)()
    top, left = (max(0, (has - most) // 2) for has, most in zip(pixels.shape, KODAK, strict=False))
    return np.ascontiguousarray(pixels[None, top : top + KODAK[0], left : left + KODAK[1], :3])


def timed_fit(pixels: NDArray[np.uint8], settings: FitSettings, workers: int) -> tuple[FitResult, float]:
    """A whole fit and its seconds by the clock."""
    encoder = CpuEncoder(settings, workers=workers)
    before = time.perf_counter()
    result = encoder.fit(pixels)
    return result, time.perf_counter() - before


def stored_psnr(result: FitResult, pixels: NDArray[np.uint8], codec: CodecName) -> float:
    """PSNR in dB of splats stored as float16 and decoded to 8 bits."""
    _, height, width, channels = pixels.shape
    splats = result.splats.astype(np.float16).astype(np.float32)
    decoded = decode(splats, layout=layout_of(codec, channels), codec=codec, height=height, width=width)
    return float(psnr(to_uint8(decoded), pixels)[0])


def compile_all(codec: CodecName, start: StartName) -> None:
    """Compiles, or loads, what is timed below."""
    CpuEncoder(FitSettings(8, 1, codec=codec, start=start)).fit(photograph("chelsea"))


def quality_table(
    names: list[str], gaussians: list[int], steps: list[int], codec: CodecName, start: StartName
) -> list[list[str]]:
    """PSNR and seconds of every photograph, K and number of steps, on all cores."""
    rows = [["photograph", "size", "K", *(f"{number} steps" for number in steps)]]
    for name in names:
        pixels = photograph(name)
        for count in gaussians:
            cells = []
            for number in steps:
                settings = FitSettings(count, number, codec=codec, start=start)
                result, seconds = timed_fit(pixels, settings, os.cpu_count() or 1)
                quality = stored_psnr(result, pixels, codec)
                cells.append(f"{quality:.2f} dB, {seconds:.1f} s ({result.core_seconds:.1f} core-s)")
            rows.append([name, f"{pixels.shape[1]}x{pixels.shape[2]}", f"{count:,}", *cells])
    return rows


class OneAfterTheOther(Team):
    """One thread that makes the calls of several, and counts what they would wait for: the longest of them each time.

    Args:
        threads: that the work is cut for.

    Attributes:
        saved: CPU time of the calls beside the longest thread's.
    """

    def __init__(self, threads: int) -> None:
        super().__init__(1)
        self.threads = threads
        self.saved = 0.0

    def __enter__(self) -> Self:
        threads, self.threads = self.threads, 1  # no thread beside this one
        super().__enter__()
        self.threads = threads
        return self

    def share(self, calls: Sequence[Callable[[], object]]) -> None:
        """Makes the calls in order, each on the thread that would be free first."""
        busy = [0.0] * self.threads
        for call in calls:
            before = time.thread_time()
            call()
            busy[busy.index(min(busy))] += time.thread_time() - before
        self.saved += sum(busy) - max(busy)


def path_seconds(pixels: NDArray[np.uint8], settings: FitSettings, threads: int) -> float:
    """CPU time along the busiest thread of a whole fit: seconds by the clock on idle cores, but for the hand-overs."""
    recipe = Recipe()
    rule = rule_of(settings, recipe, CUT, *pixels.shape[1:])
    with OneAfterTheOther(threads) as team:
        before = time.thread_time()
        starts = begin(pixels, settings, recipe.start, team)
        fit_large(pixels[0], starts[0], np.empty_like(starts[0]), team, rule)
        return time.thread_time() - before - team.saved


def speed_up_table(name: str, count: int, steps: int, starts: list[StartName], repeats: int) -> list[list[str]]:
    """Least seconds of a fit on one thread and on two, in turns, by the clock and by CPU time; are the bytes equal?"""
    pixels = photograph(name)
    rows = [["start", "seconds on one thread", "on two", "ratio", "CPU time on one thread", "on two", "ratio", "bytes"]]
    for start in starts:
        settings = FitSettings(count, steps, start=start)
        compile_all(ADDITIVE, start)
        clock, path = {1: np.inf, 2: np.inf}, {1: np.inf, 2: np.inf}
        found = set()
        for _ in range(repeats):
            for workers in clock:
                result, seconds = timed_fit(pixels, settings, workers)
                clock[workers] = min(clock[workers], seconds)
                path[workers] = min(path[workers], path_seconds(pixels, settings, workers))
                found.add(result.splats.tobytes())
        figures = [f"{value:.2f}" for best in (clock, path) for value in (best[1], best[2], best[1] / best[2])]
        rows.append([start, *figures, "equal" if len(found) == 1 else "DIFFERENT"])
    return rows


def main(
    only: Annotated[list[str] | None, typer.Option(help="Only these photographs.")] = None,
    gaussians: Annotated[list[int] | None, typer.Option(help="K; may be repeated.")] = None,
    steps: Annotated[list[int] | None, typer.Option(help="Optimiser steps; may be repeated.")] = None,
    start: Annotated[str, typer.Option(help="transport, adaptive or grid.")] = "adaptive",
    codec: Annotated[str, typer.Option(help="additive/1 or normalised/1.")] = ADDITIVE,
    repeats: Annotated[int, typer.Option(min=0, help="Timings of which the least counts; 0: none.")] = 3,
    speed_up_of: Annotated[str, typer.Option(help="The photograph that is timed on one thread and two.")] = "retina",
    speed_up_starts: Annotated[list[str] | None, typer.Option(help="Starts that are timed so.")] = None,
) -> None:
    """Prints the tables of docs/performance.md."""
    names = only or list(PHOTOGRAPHS)
    compile_all(codec, start)  # type: ignore[arg-type]
    if repeats:
        starts: list[StartName] = speed_up_starts or ["adaptive", "grid"]  # type: ignore[assignment]
        table = markdown(speed_up_table(speed_up_of, 10_000, 200, starts, repeats))
        typer.echo(f"\n### {speed_up_of}, K=10,000, 200 steps: one thread and two\n\n{table}")
    rows = quality_table(names, gaussians or [2_000, 5_000, 10_000], steps or [200, 400, 1000], codec, start)  # type: ignore[arg-type]
    typer.echo(f"\n### PSNR of {codec}, start {start}, {os.cpu_count()} cores\n\n{markdown(rows)}")


if __name__ == "__main__":
    typer.run(main)
