"""How much the constants of the start ``transport`` matter: PSNR and predictability, one constant changed at a time.

    python -m benchmarks.starts.tuning --data-dir ../shared/data --images 400

R2 (docs/report.md) stands in for the generators of ``benchmarks.starts.__main__``, which take minutes each.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.encode import SETS, STEPS, markdown
from data_schemas.splats import ADDITIVE, layout_for
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode, to_uint8
from encoders.quality import psnr, psnr_of_mean_error
from encoders.recipe import Recipe
from pipeline.encode.presets import preset_for
from pipeline.report.predictability import predictability_of
from pipeline.sources import open_source
from pipeline.sources.base import DrawnSource

DEFAULT = Recipe()


def _start(**changes: float | tuple[float, ...]) -> Recipe:
    return replace(DEFAULT, start=replace(DEFAULT.start, **changes))


TRIALS: dict[str, Recipe] = {
    "defaults": DEFAULT,
    "floor 0.12": _start(floor=0.12),
    "floor 0.3": _start(floor=0.3),
    "density: brightness twice as heavy": _start(ink=2.0),
    "density: brightness half as heavy": _start(ink=0.5),
    "anneal: ends blunter": _start(epsilons=(0.2, 0.06, 0.06)),
    "anneal: ends sharper": _start(epsilons=(0.2, 0.06, 0.02, 0.01)),
    "anneal: twice the iterations": _start(iterations=12),
    "size 0.35 of the spacing": _start(spread=0.35),
    "dark ones moved half as far": replace(DEFAULT, reseed_reach=DEFAULT.reseed_reach / 2),
    "dark ones moved twice as far": replace(DEFAULT, reseed_reach=DEFAULT.reseed_reach * 2),
}


def measure(images: NDArray[np.uint8], gaussians: int, recipe: Recipe, steps: int) -> list[str]:
    """Fits and measures: PSNR of the mean error, its first percentile, and R2."""
    _, height, width, channels = images.shape
    fitted = CpuEncoder(FitSettings(gaussians, steps), workers=1, recipe=recipe).fit(images)
    splats = fitted.splats.astype(np.float16).astype(np.float32)
    layout = layout_for(channels)
    values = psnr(to_uint8(decode(splats, layout=layout, codec=ADDITIVE, height=height, width=width)), images)
    found = predictability_of(splats, images, layout).figures
    return [
        f"{psnr_of_mean_error(values):.2f} dB",
        f"{np.percentile(values, 1):.2f} dB",
        "" if found is None else f"{found.r2:.3f}",
    ]


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the folders mnist, sprites and cifar10.")],
    images: Annotated[int, typer.Option(min=1, help="How many images of each set, drawn by a seed.")] = 400,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets.")] = None,
    steps: Annotated[int, typer.Option(min=0, help="Optimiser steps.")] = STEPS,
) -> None:
    """Prints a table for each set."""
    for name in only or list(SETS):
        source = DrawnSource(open_source(name, data_dir=data_dir / name, split=preset_for(name).split), images)
        read = source.read(range(len(source)))
        pixels = np.stack([image.pixels for image in read if image.pixels is not None])
        rows = [[f"{name}, K={SETS[name]}", "PSNR of mean error", "p1", "R2"]]
        for trial, recipe in TRIALS.items():
            rows.append([trial, *measure(pixels, SETS[name], recipe, steps)])
            print("|", " | ".join(rows[-1]), "|", flush=True)
        print(f"\n{markdown(rows)}\n", flush=True)


if __name__ == "__main__":
    typer.run(main)
