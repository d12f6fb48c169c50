"""What the heads of the patch models can show at best: their free numbers are fitted to photographs, without a network.

    python -m benchmarks.cats --data-dir DATA --images 4 --steps 1500
    python -m benchmarks.cats race --help

For each head: mean PSNR of the fitted images; for splats also the seam ratio of the images drawn four times as large
(mean step across borders of patches over mean step inside). Tables and coefficients are fitted to the images together,
a table to all of them; the numbers of a predicted kernel to each noisy image at time 0.5, without drift. What networks
make of these heads is the matter of ``race`` (benchmarks.cats.race).
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.cats.race import main as race
from models.networks.trunk import TrunkSize
from models.patches.head import HeadShape, PatchGrid
from models.patches.kpn import FILTER_NUMBERS, GATE, pyramid
from models.patches.lut import LutConfig, LutHead
from models.patches.outer import OuterConfig, OuterHead
from models.patches.splats import KernelName, Neighbourhood, PatchSplats, SplatHead, SplatHeadConfig
from pipeline.evaluate.seams import seam_ratio
from pipeline.sources import open_source

SIDE, PATCH, CHANNELS = 64, 8, 3
LEARNING_RATE = 0.05
NOISE_TIME = 0.5
_NO_TRUNK = TrunkSize(width=1, depth=1, heads=1)


@dataclass(frozen=True)
class Ceiling:
    """What one head reached.

    Attributes:
        head: what was fitted.
        psnr: mean over the images, dB.
        seams: at four times the size; None for heads that know one size.
        numbers: of an image's own, fitted.
        seconds: wall time of the fit.
    """

    head: str
    psnr: float
    seams: float | None
    numbers: int
    seconds: float


@dataclass(frozen=True)
class Fit:
    """A head with free numbers.

    Attributes:
        name: for the table.
        free: leaves to be fitted.
        draw: the images, [image, channel, row, column] in [-1, 1].
        enlarged: the same four times as large; None where there is no such thing.
        own: numbers of one image.
    """

    name: str
    free: list[Tensor]
    draw: Callable[[], Tensor]
    enlarged: Callable[[], Tensor] | None
    own: int


def photographs(data_dir: Path | None, count: int) -> Tensor:
    """The first cats: float32 [image, channel, row, column] in [-1, 1]."""
    source = open_source("cats", data_dir=data_dir, size=SIDE, download=data_dir is None)
    pixels = []
    for image in source.read(range(count)):
        if image.pixels is None:
            raise SystemExit(f"{image.identifier} cannot be read")
        pixels.append(image.pixels)
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _shape(*, published: bool) -> HeadShape:
    return HeadShape(PatchGrid(PATCH, SIDE // PATCH, SIDE // PATCH, SIDE, SIDE), 1, CHANNELS, published)


def splats(images: int, name: str, config: SplatHeadConfig, *, published: bool = False) -> Fit:
    """Splats of each patch; as published they begin on the grid here, too, as otherwise they hide each other."""
    head = SplatHead(_shape(published=published), config)
    start = SplatHead(_shape(published=False), config).leave.bias.detach()
    rows = SIDE // PATCH
    raw = start.expand(images, rows, rows, -1).clone().requires_grad_()

    def enlarged() -> Tensor:
        with torch.no_grad():
            whole = head.read(raw)
            canvas = head.canvas_of(4 * SIDE, 4 * SIDE)
            parts = [PatchSplats(*(part[i : i + 1] for part in whole)) for i in range(images)]
            return torch.cat([head.draw(part, canvas) for part in parts])

    return Fit(name, [raw], lambda: head.draw(head.read(raw)), enlarged, raw[0].numel())


def lut(images: int, name: str, config: LutConfig, *, published: bool = False) -> Fit:
    """Coefficients of each patch, and one table."""
    head = LutHead(_shape(published=published), config)
    tokens = (SIDE // PATCH) ** 2
    entries = len(head.table)
    raw = (0.01 * torch.randn(images, tokens, entries)).requires_grad_()

    def draw() -> Tensor:
        weights = raw.softmax(dim=-1) if config.activation == "softmax" else raw.tanh()
        return head.grid.joined(weights @ head.table)

    return Fit(name, [raw, head.table], draw, None, raw[0].numel())


def outer(images: int, name: str, config: OuterConfig, *, published: bool) -> Fit:
    """Coefficients of each patch, and a table of products for each image."""
    head = OuterHead(_shape(published=published), config)
    tokens = (SIDE // PATCH) ** 2
    raw = (0.01 * torch.randn(images, tokens, config.entries)).requires_grad_()
    start = torch.randn(images, config.entries, 2 * CHANNELS * PATCH)
    factors = (start if published else head.factors_start.detach().expand_as(start).clone()).requires_grad_()

    def draw() -> Tensor:
        patterns = head.products(factors).flatten(2)
        return head.grid.joined((raw.tanh() if published else raw) @ patterns)

    return Fit(name, [raw, factors], draw, None, raw[0].numel() + factors[0].numel())


def kernels(target: Tensor, name: str, *, published: bool) -> Fit:
    """Kernels of every pixel of every level, which see a noisy image."""
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(0))
    noisy = NOISE_TIME * target + (1 - NOISE_TIME) * noise
    levels = []
    for level in range(3):
        numbers = torch.zeros(len(target), GATE + 1, SIDE >> level, SIDE >> level)
        numbers[:, FILTER_NUMBERS // 2] = 1.5
        levels.append(numbers.requires_grad_())
    own = sum(level[0].numel() for level in levels)
    return Fit(name, list(levels), lambda: pyramid(noisy, levels, published=published), None, own)


def fitted(fit: Fit, target: Tensor, steps: int) -> Ceiling:
    """Adam on the free numbers, with a learning rate that falls along a cosine."""
    began = time.perf_counter()
    optimiser = torch.optim.Adam(fit.free, lr=LEARNING_RATE)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (0.01 + 0.99 * (1 + math.cos(math.pi * step / steps)) / 2)
        optimiser.zero_grad()
        (fit.draw() - target).square().mean().backward()
        optimiser.step()
    seconds = time.perf_counter() - began
    with torch.no_grad():
        error = ((fit.draw().clamp(-1, 1) - target) / 2).square().flatten(1).mean(dim=1)
    large = None if fit.enlarged is None else fit.enlarged()
    seams = None
    if large is not None:
        pixels = ((large.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        seams = seam_ratio(pixels, 4 * PATCH)
    return Ceiling(fit.name, float((-10 * error.log10()).mean()), seams, fit.own, seconds)


def fits(target: Tensor) -> list[Fit]:
    """Every head, as published and improved."""
    count = len(target)

    def splat_config(kernel: KernelName, neighbourhood: Neighbourhood) -> SplatHeadConfig:
        return SplatHeadConfig(_NO_TRUNK, splats=16, kernel=kernel, neighbourhood=neighbourhood)

    return [
        splats(count, "splats cosine patch (published)", splat_config("cosine", "patch"), published=True),
        splats(count, "splats gaussian patch", splat_config("gaussian", "patch")),
        splats(count, "splats flat patch", splat_config("flat", "patch")),
        splats(count, "splats gaussian 3x3 (modern)", splat_config("gaussian", "3x3")),
        splats(count, "splats flat 3x3", splat_config("flat", "3x3")),
        lut(
            count,
            "lut 512 softmax (published)",
            LutConfig(_NO_TRUNK, entries=512, activation="softmax"),
            published=True,
        ),
        lut(count, "lut 64 tanh (published)", LutConfig(_NO_TRUNK, entries=64), published=True),
        lut(count, "lut 192 tanh (modern)", LutConfig(_NO_TRUNK)),
        outer(count, "outer 64 (published)", OuterConfig(_NO_TRUNK), published=True),
        outer(count, "outer 64 (modern)", OuterConfig(_NO_TRUNK), published=False),
        kernels(target, "kpn filters alone (published)", published=True),
        kernels(target, "kpn filters alone (modern)", published=False),
    ]


def main(arguments: list[str] | None = None) -> list[Ceiling]:
    """Fits, prints a table, and writes ``--json`` where it is given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="folder that holds the cats; fetched without it")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--only", default="", help="heads whose name begins so")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args(arguments)
    torch.manual_seed(0)
    target = photographs(options.data_dir, options.images)
    found = []
    print("| head | PSNR, dB | seam ratio at 4x | numbers an image | seconds |\n|---|---|---|---|---|")
    for fit in fits(target):
        if not fit.name.startswith(options.only):
            continue
        ceiling = fitted(fit, target, options.steps)
        seams = "" if ceiling.seams is None else f"{ceiling.seams:.2f}"
        print(
            f"| {ceiling.head} | {ceiling.psnr:.2f} | {seams} | {ceiling.numbers:,} | {ceiling.seconds:.0f} |",
            flush=True,
        )
        found.append(ceiling)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(ceiling) for ceiling in found], indent=2) + "\n")
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["race"]:
        race(sys.argv[2:])
    else:
        main()
