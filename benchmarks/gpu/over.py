"""Quality of alpha-composited stores beside added and averaged ones, on the same images.

    python -m benchmarks.gpu.over --data-dir ../shared/data

``additive/1`` and ``normalised/1`` by the compiled engine, ``over/1`` by the engine that is named (the reference engine
takes seconds for each image). Every PSNR is of the decoded stored numbers after rounding to 8 bits, every cost the
CPU time of the engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.encode import SETS, STEPS, load, markdown
from data_schemas.records import SourceRecord, StoreHeader
from data_schemas.splats import CODECS, OVER, CodecName, layout_of
from encoders.base import FitSettings
from encoders.decode import decode_with_dead, to_uint8
from encoders.engines import create_encoder
from encoders.quality import psnr, psnr_of_mean_error
from pipeline.encode.block_decision import quantise


def measure(images: NDArray[np.uint8], settings: FitSettings, engine: str) -> list[str]:
    """Fits, stores as float16, decodes and measures: one row of the table after the name of the set."""
    encoder = create_encoder(engine, settings, workers=1)
    encoder.fit(images[:1])
    result = encoder.fit(images)
    _, height, width, channels = images.shape
    layout = layout_of(settings.codec, channels)
    header = StoreHeader(
        codec=settings.codec,
        layout=layout.name,
        gaussians=settings.gaussians,
        height=height,
        width=width,
        channels=channels,
        dtype="float16",
        source=SourceRecord(name="benchmark"),
    )
    stored, problems = quantise(result.splats, header)
    if any(problems):
        raise SystemExit(f"not storable: {next(filter(None, problems))}")
    decoded, dead = decode_with_dead(stored, layout=layout, codec=settings.codec, height=height, width=width)
    values = psnr(to_uint8(decoded), images)
    return [
        settings.codec,
        engine,
        str(settings.gaussians * layout.width),
        f"{psnr_of_mean_error(values):.2f} dB",
        f"{np.percentile(values, 1):.2f} dB",
        f"{np.minimum(values, 100).mean():.2f} dB",
        f"{dead.mean():.1f}",
        f"{1e3 * result.core_seconds / len(images):.3g}",
    ]


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the folders sprites and cifar10.")],
    images: Annotated[int, typer.Option(min=1, help="How many images of each set, spread over its first 1,000.")] = 64,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets.")] = None,
    engine: Annotated[str, typer.Option(help="Engine for over/1: reference or gsplat.")] = "reference",
    steps: Annotated[int, typer.Option(min=0, help="Optimiser steps.")] = STEPS,
) -> None:
    """Prints the table of docs/results.md."""
    rows = [["set", "codec", "engine", "numbers", "PSNR of mean error", "p1", "mean", "dead", "core-ms/image"]]
    for name in only or ["sprites", "cifar10"]:
        pixels = load(name, data_dir, 1000)
        pixels = pixels[:: max(1, len(pixels) // images)][:images]
        # Equal K, and for over/1 also the K that makes its numbers as many as those of the others.
        fair = SETS[name] * layout_of(CODECS[0], pixels.shape[3]).width // layout_of(OVER, pixels.shape[3]).width
        trials: list[tuple[CodecName, int]] = [*((codec, SETS[name]) for codec in CODECS), (OVER, fair)]
        for codec, gaussians in trials:
            settings = FitSettings(gaussians, steps, codec=codec)
            rows.append([f"{name}, K={gaussians}", *measure(pixels, settings, engine if codec == OVER else "cpu")])
            print("|", " | ".join(rows[-1]), "|", flush=True)
    print(f"\n{markdown(rows)}")


if __name__ == "__main__":
    typer.run(main)
