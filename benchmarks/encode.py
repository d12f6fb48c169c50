"""Quality and cost of the CPU engine on the real data sets, the dense-autograd baseline beside it.

    python -m benchmarks.encode --data-dir ../shared/data
    python -m benchmarks.encode --data-dir ../shared/data --images 200 --only mnist

The folder holds one folder for each set (mnist, sprites, cifar10; docs/data.md). Every PSNR is of the decoded stored
numbers after rounding to 8 bits. Costs are CPU time of the engine's threads, starts included, compilation not.
Prints Markdown and writes the curve of quality over cost beside ``--plot``.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from data_schemas.records import SourceRecord, StoreHeader
from data_schemas.splats import ADDITIVE, NORMALISED, CodecName, ColourRange, SplatDtype, StartName, layout_for
from encoders.autograd.reference import ReferenceEncoder
from encoders.base import FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.decode import decode_with_dead, to_uint8
from encoders.quality import psnr, psnr_of_mean_error
from pipeline.encode.block_decision import quantise
from pipeline.report.predictability import predictability_of
from pipeline.sources import open_source

STARTS: tuple[StartName, ...] = ("transport", "adaptive", "grid")
SETS = {"mnist": 70, "sprites": 150, "cifar10": 200}
STEPS = 400


@dataclass(frozen=True)
class Fit:
    """One fit of a set.

    Attributes:
        mean_error_db: PSNR of the mean squared error.
        p1: first percentile of the PSNR.
        mean: mean PSNR, lossless images counted as 100 dB.
        core_ms: CPU time per image.
        dead: mean number of Gaussians that cannot be seen.
        splats: as fitted, float32 [image, gaussian, parameter].
    """

    mean_error_db: float
    p1: float
    mean: float
    core_ms: float
    dead: float
    splats: NDArray[np.float32]


def load(name: str, folder: Path, images: int) -> NDArray[np.uint8]:
    """The first images of a set: uint8 [image, height, width, channel]."""
    whole = name in ("sprites", "sprites64", "cats")
    place = folder / {"cats": "cats64", "sprites64": "sprites"}.get(name, name)
    source = open_source(name, data_dir=place, split="all" if whole else "train", size=None)
    return np.stack([item.pixels for item in source.read(range(min(images, len(source)))) if item.pixels is not None])


def fit(
    images: NDArray[np.uint8],
    gaussians: int,
    *,
    steps: int = STEPS,
    start: StartName = "transport",
    codec: CodecName = ADDITIVE,
    colours: ColourRange = "bounded",
    dtype: SplatDtype = "float16",
) -> Fit:
    """Fits, stores in ``dtype``, decodes and measures."""
    encoder = CpuEncoder(FitSettings(gaussians, steps, codec=codec, colours=colours, start=start))
    encoder.fit(images[:1])
    result = encoder.fit(images)
    _, height, width, channels = images.shape
    layout = layout_for(channels)
    shape = {"layout": layout, "codec": codec, "height": height, "width": width}
    header = StoreHeader(
        codec=codec,
        layout=layout.name,
        gaussians=gaussians,
        height=height,
        width=width,
        channels=channels,
        dtype=dtype,
        colours=colours,
        source=SourceRecord(name="benchmark"),
    )
    stored, problems = quantise(result.splats, header)
    if any(problems):
        raise SystemExit(f"not storable: {next(filter(None, problems))}")
    decoded, dead = decode_with_dead(stored, **shape)
    values = psnr(to_uint8(decoded), images)
    return Fit(
        mean_error_db=psnr_of_mean_error(values),
        p1=float(np.percentile(values, 1)),
        mean=float(np.minimum(values, 100).mean()),
        core_ms=1e3 * result.core_seconds / len(images),
        dead=float(dead.mean()),
        splats=result.splats,
    )


def dense_autograd_ms(images: NDArray[np.uint8], gaussians: int, steps: int) -> float:
    """CPU milliseconds per image and step of the batched dense autograd fit, in a batch of all images."""
    import torch

    torch.set_num_threads(1)
    encoder = ReferenceEncoder(FitSettings(gaussians, steps))
    encoder.fit(images[:2])
    return 1e3 * min(encoder.fit(images).core_seconds for _ in range(3)) / len(images) / steps


def markdown(rows: list[list[str]]) -> str:
    """Rows as a Markdown table, the first one as the header."""
    head, *body = (" | ".join(row) for row in rows)
    return "\n".join(f"| {line} |" for line in (head, " | ".join("---" for _ in rows[0]), *body))


def show(tables: dict[str, list[dict[str, str]]], title: str, rows: list[list[str]]) -> None:
    """Prints a table under its title and keeps it, row by row, for ``--json``."""
    print(f"\n## {title}\n")
    print(markdown(rows))
    tables[title] = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]


def curve_plot(curves: dict[str, list[tuple[int, float, float, float]]], path: Path) -> None:
    """PSNR over CPU time per image, one line a set."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "splatspace"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for name, points in curves.items():
        steps, mean_error, p1, cost = zip(*points, strict=True)
        (line,) = axes.plot(cost, mean_error, marker="o", label=f"{name} (K={SETS[name]})")
        axes.plot(cost, p1, marker=".", linestyle=":", color=line.get_color(), alpha=0.7)
        for text, x, y in zip(steps, cost, mean_error, strict=True):
            axes.annotate(str(text), (x, y), textcoords="offset points", xytext=(4, -11), fontsize=8)
    axes.set(
        xscale="log",
        xlabel="CPU time per image (ms)",
        ylabel="PSNR (dB)",
        title="Quality over cost: of the mean error (solid), first percentile (dotted); numbers are steps",
    )
    axes.title.set_fontsize(10)
    axes.grid(alpha=0.3)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the folders mnist, sprites and cifar10.")],
    images: Annotated[int, typer.Option(min=1, help="How many images of each set.")] = 1000,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets.")] = None,
    baseline_images: Annotated[int, typer.Option(min=1, help="Images of the dense-autograd baseline.")] = 64,
    baseline_steps: Annotated[int, typer.Option(min=1, help="Steps of the baseline.")] = 5,
    plot: Annotated[Path | None, typer.Option(help="Where to write the curve (SVG or PNG).")] = None,
    json_out: Annotated[Path | None, typer.Option("--json", help="Where to write the numbers as JSON.")] = None,
) -> None:
    """Prints the tables of docs/results.md."""
    names = only or list(SETS)
    sets = {name: load(name, data_dir, images) for name in names}
    tables: dict[str, list[dict[str, str]]] = {}

    starts = [["set", "K", "codec", "start", "PSNR of mean error", "p1", "mean", "core-ms/image", "dead", "R2"]]
    best: dict[str, Fit] = {}
    for name, pixels in sets.items():
        codecs: tuple[CodecName, ...] = (ADDITIVE, NORMALISED) if name == "cifar10" else (ADDITIVE,)
        for codec in codecs:
            for start in STARTS:
                done = fit(pixels, SETS[name], start=start, codec=codec)
                learned = predictability_of(done.splats, pixels, layout_for(pixels.shape[3])).figures
                starts.append(
                    [
                        name,
                        str(SETS[name]),
                        codec,
                        start,
                        f"{done.mean_error_db:.2f} dB",
                        f"{done.p1:.2f} dB",
                        f"{done.mean:.2f} dB",
                        f"{done.core_ms:.2f}",
                        f"{done.dead:.1f}",
                        f"{learned.r2:.2f}" if learned else "-",
                    ]
                )
                if codec == ADDITIVE and start == "transport":
                    best[name] = done
    show(tables, f"Starts: {STEPS} steps, bounded colours, stored as float16, first {images} images", starts)

    curves: dict[str, list[tuple[int, float, float, float]]] = {}
    rows = [["set", "steps", "PSNR of mean error", "p1", "core-ms/image"]]
    for name, pixels in sets.items():
        for steps in (100, 200, 400, 1000):
            done = best[name] if steps == STEPS else fit(pixels, SETS[name], steps=steps)
            curves.setdefault(name, []).append((steps, done.mean_error_db, done.p1, done.core_ms))
            rows.append([name, str(steps), f"{done.mean_error_db:.2f} dB", f"{done.p1:.2f} dB", f"{done.core_ms:.2f}"])
    show(tables, "Steps: start transport, bounded colours, stored as float16", rows)

    rows = [["set", "colours", "stored as", "PSNR of mean error", "p1"]]
    for name, pixels in sets.items():
        colour_ranges: tuple[ColourRange, ...] = ("bounded", "signed")
        dtypes: tuple[SplatDtype, ...] = ("float16", "float32")
        for colours in colour_ranges:
            for dtype in dtypes:
                done = fit(pixels, SETS[name], colours=colours, dtype=dtype)
                rows.append([name, colours, dtype, f"{done.mean_error_db:.2f} dB", f"{done.p1:.2f} dB"])
    show(tables, f"Colours and stored type: {STEPS} steps, start transport", rows)

    rows = [["set", "cpu engine, us/image-step", "dense autograd, us/image-step", "ratio"]]
    for name, pixels in sets.items():
        single = CpuEncoder(FitSettings(SETS[name], STEPS), workers=1)
        sample = pixels[:baseline_images]
        single.fit(sample[:1])
        fastest = min(single.fit(sample).core_seconds for _ in range(7)) / len(sample) / STEPS
        dense = dense_autograd_ms(sample, SETS[name], baseline_steps)
        rows.append([name, f"{1e6 * fastest:.1f}", f"{1e3 * dense:.0f}", f"{1e-3 * dense / fastest:.0f}"])
    show(tables, "One core, against dense autograd", rows)

    if plot is not None:
        curve_plot(curves, plot)
    if json_out is not None:
        machine = platform.processor() or platform.machine()
        json_out.write_text(
            json.dumps({"machine": machine, "cores": os.cpu_count(), "tables": tables}, indent=2) + "\n"
        )


if __name__ == "__main__":
    typer.run(main)
