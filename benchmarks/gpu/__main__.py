"""Engine ``cuda`` on the GPU of this machine: whether it is right, then how fast it is.

    python -m benchmarks.gpu --data-dir ../shared/data --out encode_gpu.md
    python -m benchmarks.gpu --data-dir ../shared/data --images 4000 --only cifar10 --minutes 3

The folder holds one folder for each set (mnist, sprites, cifar10; docs/data.md); a set that is not there is left out
and named. First parity with the compiled CPU engine and equal bytes in a second run, without which nothing is timed
(status 1); then one table for each question, the most important first. No part is begun after ``--minutes``, and a part
that fails says so and does not keep the others from being measured (status 3). Every PSNR is of the decoded numbers
after rounding to 8 bits; times include starts and transfers, not compilation. Tables are printed, and written to
``--out`` as soon as they are there. Without a card it says what is missing and ends with status 2. Needs no network.

gsplat compiles its kernels for some ten minutes the first time: it is left out unless ``--gsplat`` asks for it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from benchmarks.encode import SETS, load
from benchmarks.gpu.report import Card, Report, card, heading
from data_schemas.errors import JobError, SourceError
from data_schemas.splats import ADDITIVE, NORMALISED, OVER, CodecName, layout_for
from encoders.base import Encoder, FitSettings
from encoders.cpu.engine import CpuEncoder
from encoders.cuda.engine import CudaEncoder
from encoders.decode import decode, to_uint8
from encoders.quality import psnr, psnr_of_mean_error

TARGETS = {"mnist": (44.0, 15_000), "sprites": (46.0, 5_000), "cifar10": (40.0, 3_000)}
"""PSNR of the mean error in dB, and images per second on one H100, that the project aims at."""

STEPS_TRIED = (50, 75, 100, 150, 200, 300, 400)
INSTRUCTIONS = {1: (5.75, 9.5), 3: (7.3, 16.0)}
"""Warp instructions per 32 pixel-Gaussian pairs of the forward and the backward pass by channels (additive codec).

Read off the machine code for sm_90 (tests/encoders/test_fit_cuda_compiled.py), rows and blocks included.
"""

PARITY_DB = 0.3

LONG_SECONDS = 20.0

LARGE = ((512, 5_000), (1024, 20_000), (2048, 100_000))
"""Side in pixels and K of the large images."""


def quality(encoder: Encoder, images: NDArray[np.uint8]) -> float:
    """PSNR of the mean error of a fit in dB."""
    _, height, width, channels = images.shape
    splats = encoder.fit(images).splats
    codec = encoder.settings.codec
    decoded = decode(splats, layout=layout_for(channels), codec=codec, height=height, width=width)
    return psnr_of_mean_error(psnr(to_uint8(decoded), images))


def seconds(fit: Callable[[], Any], repeats: int = 2) -> float:
    """Least wall time of some calls, after one that is not counted; of one call where that took long."""
    before = time.perf_counter()
    fit()
    repeats = 1 if time.perf_counter() - before > LONG_SECONDS else repeats
    times = []
    for _ in range(repeats):
        before = time.perf_counter()
        fit()
        times.append(time.perf_counter() - before)
    return min(times)


def instructions_per_step(gaussians: int, height: int, width: int, channels: int) -> float:
    """Counted warp instructions of one image and step."""
    from encoders.cuda.slabs import device_fit
    from encoders.recipe import Recipe

    fit = device_fit(FitSettings(gaussians), Recipe(), height, width, channels)
    forward, backward = INSTRUCTIONS[channels]
    pairs = fit.pairs_per_step / 32
    return pairs * (forward * (-(-gaussians // 8) * 8) / (-(-gaussians // 32) * 32) + backward)


def check(name: str, codec: CodecName, images: NDArray[np.uint8]) -> tuple[list[str], bool]:
    """Parity with the CPU engine, and equal bytes again and in other batches."""
    settings = FitSettings(SETS[name], 100, codec=codec)
    cpu = quality(CpuEncoder(settings), images)
    cuda = quality(CudaEncoder(settings), images)
    first = CudaEncoder(settings).fit(images).splats
    same = all(
        first.tobytes() == CudaEncoder(settings, batch=batch).fit(images).splats.tobytes() for batch in ("auto", 100)
    )
    right = same and abs(cuda - cpu) <= PARITY_DB
    return [
        f"{name}, K={SETS[name]}",
        codec,
        f"{cpu:.2f}",
        f"{cuda:.2f}",
        "yes" if same else "NO",
        "yes" if right else "NO",
    ], right


def throughput(name: str, images: NDArray[np.uint8], here: Card) -> list[str]:
    """Images per second at the fewest steps that reach the target."""
    aim, wanted = TARGETS[name]
    gaussians = SETS[name]
    steps, reached = 0, 0.0
    for steps in STEPS_TRIED:
        reached = quality(CudaEncoder(FitSettings(gaussians, steps)), images[:1000])
        if reached >= aim:
            break
    rate = len(images) / seconds(lambda: CudaEncoder(FitSettings(gaussians, steps)).fit(images))
    _, height, width, channels = images.shape
    share = "?"
    if here.clock is not None:
        peak = 4 * here.multiprocessors * here.clock
        share = f"{100 * rate * steps * instructions_per_step(gaussians, height, width, channels) / peak:.0f} %"
    row = [f"{name}, K={gaussians}", str(steps), f"{reached:.2f} (aim {aim:.0f})"]
    return [*row, f"{rate:,.0f} (aim {wanted:,})", f"{rate * steps / 1e6:.2f}", share]


def ratios(name: str, images: NDArray[np.uint8], *, gsplat: bool, steps: int = 40) -> list[str]:
    """Against dense autograd and gsplat's rasteriser on the same card, the same images, K and steps."""
    from encoders.autograd.reference import ReferenceEncoder

    settings = FitSettings(SETS[name], steps, start="grid")
    fused = len(images) / seconds(lambda: CudaEncoder(settings).fit(images))
    some = images[:512]
    dense = len(some) / seconds(lambda: ReferenceEncoder(settings, device="cuda").fit(some), repeats=1)
    against = rate_of_gsplat(name, images, steps, fused) if gsplat else "not asked for"
    return [name, f"{fused:,.0f}", f"{dense:,.0f} ({fused / dense:.0f}x, aim 30x)", against]


def rate_of_gsplat(name: str, images: NDArray[np.uint8], steps: int, fused: float) -> str:
    """Images per second through gsplat and their ratio to those of engine cuda, or why there are none."""
    from encoders.autograd.gsplat import GsplatEncoder
    from encoders.autograd.gsplat_available import missing_for_gsplat

    missing = missing_for_gsplat()
    if missing is not None:
        return f"not measured: {missing.got}"
    over = FitSettings(SETS[name], steps, start="grid", codec=OVER)
    try:
        rate = len(images) / seconds(lambda: GsplatEncoder(over).fit(images), repeats=1)
    except JobError as error:
        return f"not measured: {error.got}"
    return f"{rate:,.0f} ({fused / rate:.1f}x, aim 10x)"


def variants(images: NDArray[np.uint8], gaussians: int, steps: int = 40) -> list[list[str]]:
    """Kernel time of other divisions among lanes and warps; transfers and starts left out."""
    import torch

    from encoders.cuda.device_fit import Tiles, tiles_for
    from encoders.cuda.fused_batch import FusedFit
    from encoders.cuda.slabs import schedule_on
    from encoders.cuda.start import begin_on_device
    from encoders.recipe import Recipe

    _, height, width, channels = images.shape
    recipe, settings = Recipe(), FitSettings(gaussians, steps)
    pixels = torch.tensor(images, device="cuda")
    starts = begin_on_device(pixels, settings, recipe.start)
    rates = schedule_on(pixels.device, recipe, settings)
    standard = tiles_for(height, width)
    choices = {
        "standard": standard,
        "runs of 32": Tiles(strip=8, run=32),
        "strips of 4, runs of 16": Tiles(strip=4, run=16),
        "strips of 4, runs of 4": Tiles(strip=4, run=4),
        "4 Gaussians together": Tiles(strip=standard.strip, run=standard.run, together=4),
        "two warps": Tiles(group=64, strips=64, strip=standard.strip, run=standard.run, warps=2),
    }
    rows = []
    for label, tiles in choices.items():
        fit = FusedFit.of(settings, recipe, height, width, channels, tiles=tiles)
        times, error = [], 0.0
        for _ in range(3):
            batch = fit.batch(pixels, starts, rates)
            torch.cuda.synchronize()
            before = time.perf_counter()
            batch.advance(steps + 1)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - before)
            error = float(batch.least.double().mean())
        rows.append([label, f"{len(images) * steps / min(times) / 1e6:.2f}", f"{error:.5f}"])
    return rows


def end_to_end(name: str, data_dir: Path, images: int) -> list[str]:
    """From the files of a set to a finished zarr store."""
    from pipeline.encode.job import resolve_job
    from pipeline.encode.run import encode

    with tempfile.TemporaryDirectory() as folder:
        job = resolve_job(
            name, Path(folder, "store.zarr"), data_dir=data_dir / name, limit=images, engine="cuda", steps=100
        )
        before = time.perf_counter()
        summary = encode(job)
        wall = time.perf_counter() - before
    return [name, f"{images:,}", f"{images / wall:,.0f}", f"{100 * summary.fit_seconds / wall:.0f} % (aim 70 %)"]


def large_image(size: int, gaussians: int) -> list[str]:
    """Milliseconds per step of a made-up photograph of ``size`` pixels a side."""
    import torch

    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.uniform(0, 255, (1, 3, size // 16, size // 16)).astype(np.float32))
    smooth = torch.nn.functional.interpolate(coarse, size=(size, size), mode="bicubic", antialias=False)
    image = smooth.clamp(0, 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    start, whole = (
        seconds(partial(CudaEncoder(FitSettings(gaussians, steps, start="grid")).fit, image), repeats=1)
        for steps in (0, 50)
    )
    reached = quality(CudaEncoder(FitSettings(gaussians, 200, start="grid")), image)
    return [f"{size}x{size}, K={gaussians:,}", f"{start:.2f}", f"{1e3 * (whole - start) / 50:.2f}", f"{reached:.2f}"]


def load_some(names: Sequence[str], data_dir: Path, images: int, report: Report) -> dict[str, NDArray[np.uint8]]:
    """The sets that are there; the others are named."""
    sets = {}
    for name in names:
        try:
            sets[name] = load(name, data_dir, images)
        except SourceError as error:
            report.say(f"\n{name} is left out: {error.got}")
    return sets


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the folders mnist, sprites and cifar10.")],
    images: Annotated[int, typer.Option(min=1000, help="Images of each set that are timed.")] = 20_000,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets.")] = None,
    out: Annotated[Path | None, typer.Option(help="Markdown file for the tables.")] = None,
    minutes: Annotated[float, typer.Option(min=0, help="After so many no part is begun.")] = 6.5,
    gsplat: Annotated[bool, typer.Option("--gsplat", help="Compile gsplat and compare with it.")] = False,
) -> None:
    """Prints the tables; status 2 without a card, 1 where the engine is wrong, 3 where a part failed."""
    from encoders.cuda.available import require_cuda

    try:
        require_cuda()
    except JobError as error:
        print(error)
        raise typer.Exit(2) from None
    report = Report(out, minutes)
    here = card()
    report.say(heading(here))
    sets = load_some(only or list(SETS), data_dir, images, report)
    checked: list[bool] = []

    def checks(name: str, codec: CodecName) -> list[list[str]]:
        row, right = check(name, codec, sets[name][:256])
        checked.append(right)
        return [row]

    report.table(
        "Is it right? (256 images, 100 steps)",
        ["set", "codec", "cpu, dB", "cuda, dB", "the same bytes again", "right"],
        [partial(checks, name, codec) for name in sets for codec in (ADDITIVE, NORMALISED)],
    )
    if report.failures or not checked or not all(checked):
        raise typer.Exit(1)

    def one(function: Callable[..., list[str]], *arguments: Any, **options: Any) -> Callable[[], list[list[str]]]:
        return lambda: [function(*arguments, **options)]

    report.table(
        "Speed",
        ["set", "steps", "PSNR of mean error, dB", "images/s", "million image-steps/s", "of counted peak"],
        [one(throughput, name, pixels, here) for name, pixels in sets.items()],
    )
    report.table(
        "From files to a store (100 steps)",
        ["set", "images", "images/s", "share of fitting"],
        [one(end_to_end, name, data_dir, images) for name in sets],
    )
    report.table(
        "The same fit by others (40 steps)",
        ["set", "cuda, images/s", "dense autograd", "gsplat"],
        [one(ratios, name, pixels[:8192], gsplat=gsplat) for name, pixels in sets.items()],
    )
    report.table(
        "Large images (start on a grid)",
        ["image", "start, s", "ms per step", "PSNR after 200 steps, dB"],
        [one(large_image, size, gaussians) for size, gaussians in LARGE],
    )
    for name, pixels in sets.items():
        report.table(
            f"Other divisions of the work: {name}",
            ["division", "million image-steps/s", "mean error"],
            [partial(variants, pixels[:8448], SETS[name])],
        )
    if report.failures:
        raise typer.Exit(3)


if __name__ == "__main__":
    typer.run(main)
