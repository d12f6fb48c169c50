"""The compiled CPU engine on one core: share of the CPU's peak, where the time goes, what each codec costs.

    python -m benchmarks.cpu --data-dir ../shared/data
    python -m benchmarks.cpu --data-dir ../shared/data --only sprites --repeats 20

The folder holds one folder for each set (mnist, sprites, cifar10, cats64; docs/data.md). What is compared is timed in
turns, in CPU time, and the least of several repetitions counts: other work on the machine only ever adds.
Prints Markdown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.cpu.operations import operations_per_step, peak_of_eight_lanes, peak_of_matrix_product
from benchmarks.cpu.stages import MIDDLE, limits, stages
from benchmarks.encode import load, markdown
from benchmarks.harness import STEPS, Set, fits, least_seconds
from data_schemas.splats import ADDITIVE, NORMALISED, NORMALISED_EPSILON, StartName, layout_for
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.cpu.fit import fit_images
from encoders.decode import decode, to_uint8
from encoders.quality import psnr, psnr_of_mean_error
from encoders.recipe import CUT, Recipe
from encoders.start.begin import begin

SETS = {"mnist": 70, "sprites": 150, "cifar10": 200, "cats": 500}
ROUNDS, FIRST_ROUND = 3, 200
STARTS: tuple[StartName, ...] = ("transport", "adaptive", "grid")

Table = list[list[str]]


def share_of_peak(sets: list[Set], repeats: int) -> tuple[str, Table]:
    """Operations counted over time taken, against what the CPU can do."""
    eight, widest = peak_of_eight_lanes(), peak_of_matrix_product()
    rows = [["set", "K", "us/image-step", "kFLOP/step", "GFLOP/s", "of 8-lane peak", "of widest peak"]]
    for data in sets:
        height, width, _ = data.shape
        seconds = least_seconds({"fit": fits(data, data.settings())}, repeats)["fit"] / len(data.pixels) / STEPS
        ends = [operations_per_step(data.frames(steps), height, width) for steps in (0, STEPS)]
        rate = sum(ends) / 2 / seconds / 1e9
        rows.append(
            [
                data.name,
                str(data.gaussians),
                f"{1e6 * seconds:.1f}",
                f"{sum(ends) / 2e3:.0f}",
                f"{rate:.1f}",
                f"{rate / eight:.0%}",
                f"{rate / widest:.0%}",
            ]
        )
    return f"Share of peak: {eight:.0f} GFLOP/s with 8 lanes, {widest:.0f} in a matrix product", rows


def held(
    data: Set, frames: NDArray[np.float32], *, normalised: bool, bounded: bool, steps: int, cut: float = CUT
) -> Callable[[], object]:
    """Steps of a codec on Gaussians that stay where they are: the cost of the codec, not of where it leads."""
    _, _, channels = data.shape
    recipe = Recipe()
    result = np.empty_like(frames)
    taken, errors = np.zeros(len(frames), np.int32), np.zeros(len(frames), np.float32)
    return lambda: fit_images(
        data.pixels,
        frames,
        result,
        taken,
        errors,
        np.zeros((steps, 3), np.float32),
        np.array([recipe.beta1, recipe.beta2, recipe.epsilon], np.float32),
        np.array([recipe.margin, recipe.least_log, recipe.greatest_log, recipe.greatest_slope], np.float32),
        np.float32(-1),
        (1,) * (channels + normalised),
        bounded,
        np.float32(NORMALISED_EPSILON),
        np.float32(cut),
        steps // 2,
        0,
        0,
        np.float32(-1),
    )


def codecs(sets: list[Set], repeats: int) -> tuple[str, Table]:
    """What bounded colours and the codec ``normalised`` cost above ``additive`` with signed colours."""
    names = {"signed": False, "bounded": True}
    rows = [["set", "codec", "colours", "same Gaussians", "whole fit", "us/image-step of the fit"]]
    for data in sets:
        frames = data.frames(MIDDLE)
        variants = [(codec, colours) for codec in (ADDITIVE, NORMALISED) for colours in names]
        key = "{} {}".format
        same = least_seconds(
            {
                key(*pair): held(data, frames, normalised=pair[0] == NORMALISED, bounded=names[pair[1]], steps=100)
                for pair in variants
            },
            repeats,
        )
        whole = least_seconds(
            {key(*pair): fits(data, data.settings(MIDDLE, codec=pair[0], colours=pair[1])) for pair in variants},
            repeats,
        )
        base = key(ADDITIVE, "signed")
        for pair in variants:
            name = key(*pair)
            step = 1e6 * whole[name] / len(data.pixels) / MIDDLE
            rows.append(
                [data.name, *pair, f"{same[name] / same[base]:.2f}", f"{whole[name] / whole[base]:.2f}", f"{step:.1f}"]
            )
    return "Codecs: cost over additive with signed colours", rows


def starting(sets: list[Set], repeats: int) -> tuple[str, Table]:
    """What a start costs, and its share of a whole fit."""
    rows = [["set", "size", "K", "start", "start, ms/image", "fit, ms/image", "share"]]
    for data in sets:
        height, width, _ = data.shape
        sample = data.first(8)
        calls: dict[str, Callable[[], object]] = {}
        for start in STARTS:
            settings = sample.settings(start=start)
            calls[f"{start} start"] = partial(begin, sample.pixels, settings)
            calls[f"{start} fit"] = fits(sample, settings)
        best = least_seconds(calls, repeats)
        for start in STARTS:
            alone, whole = best[f"{start} start"], best[f"{start} fit"]
            each = [f"{1e3 * seconds / len(sample.pixels):.2f}" for seconds in (alone, whole)]
            rows.append([data.name, f"{height}x{width}", str(data.gaussians), start, *each, f"{alone / whole:.0%}"])
    return f"Starts within whole fits of {STEPS} steps", rows


def qualities(data: Set, settings: FitSettings) -> tuple[NDArray[np.float32], float]:
    """PSNR [image] of a fit stored as float16, and the mean steps."""
    height, width, channels = data.shape
    result = CpuEncoder(settings).fit(data.pixels)
    stored = result.splats.astype(np.float16).astype(np.float32)
    decoded = decode(stored, layout=layout_for(channels), codec=ADDITIVE, height=height, width=width)
    return psnr(to_uint8(decoded), data.pixels), float(result.steps.mean())


def target_for(data: Set, steps: int) -> float:
    """The highest target, in quarters of a dB, whose rounds take at most so many steps of an image on average."""
    low, high = 4 * 20, 4 * 90
    while high - low > 1:
        middle = (low + high) // 2
        settings = data.settings(FIRST_ROUND, target_psnr=middle / 4, rounds=ROUNDS)
        if CpuEncoder(settings).fit(data.pixels).steps.mean() <= steps:
            low = middle
        else:
            high = middle
    return low / 4


def rounds(sets: list[Set]) -> tuple[str, Table]:
    """Even steps for all images against rounds of the same mean length.

    The target is chosen on every other image, the figures are those of the rest.
    """
    rows = [["set", "settings", "mean steps", "p1", "p5", "least", "PSNR of mean error", "mean"]]
    for data in sets:
        chosen, shown = (replace(data, pixels=np.ascontiguousarray(data.pixels[part::2])) for part in (0, 1))
        target = target_for(chosen, STEPS)
        for settings, words in (
            (shown.settings(), f"--steps {STEPS}"),
            (
                shown.settings(FIRST_ROUND, target_psnr=target, rounds=ROUNDS),
                f"--steps {FIRST_ROUND} --rounds {ROUNDS} --target-psnr {target:g}",
            ),
        ):
            values, steps = qualities(shown, settings)
            capped = np.minimum(values, 100)
            figures = [*np.percentile(capped, [1, 5]), capped.min(), psnr_of_mean_error(values), capped.mean()]
            rows.append([data.name, words, f"{steps:.0f}", *(f"{figure:.2f} dB" for figure in figures)])
    return "Rounds at equal cost", rows


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the folders mnist, sprites, cifar10 and cats64.")],
    images: Annotated[int, typer.Option(min=8, help="Images of each set that are timed.")] = 16,
    rounds_images: Annotated[int, typer.Option(min=8, help="Images of each set for the table of rounds.")] = 400,
    repeats: Annotated[int, typer.Option(min=1, help="Timings of which the least counts.")] = 9,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets.")] = None,
) -> None:
    """Prints the tables of docs/performance.md."""
    whole = [Set(name, SETS[name], load(name, data_dir, 10 * rounds_images)) for name in only or SETS]
    spread = [replace(data, pixels=np.ascontiguousarray(data.pixels[::10])) for data in whole]
    timed = [
        replace(data, pixels=np.ascontiguousarray(data.pixels[:: max(1, len(data.pixels) // images)][:images]))
        for data in spread
    ]
    for measure in (
        partial(share_of_peak, timed, repeats),
        partial(stages, timed, repeats),
        partial(limits, repeats),
        partial(codecs, timed, repeats),
        partial(starting, timed, repeats),
        partial(rounds, spread),
    ):
        title, rows = measure()
        typer.echo(f"\n### {title}\n\n{markdown(rows)}")


if __name__ == "__main__":
    typer.run(main)
