"""The differentiable renderer on one core: its cost beside a step of the fit and beside dense autograd, and its error.

    python -m benchmarks.cpu.differentiable_render --data-dir ../shared/data
    python -m benchmarks.cpu.differentiable_render --data-dir ../shared/data --only mnist --repeats 20

The folder holds one folder for each set (mnist, sprites, cifar10; docs/data.md). The splats are those of fits of 200
steps. A step of the fit (forward, residual, backward, Adam) is taken on the same Gaussians. What is compared is timed
in turns, in CPU time of one thread, and the least of several repetitions counts. Prints Markdown.
"""

from __future__ import annotations

import copy
import resource
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor

from benchmarks.cpu.__main__ import held
from benchmarks.cpu.stages import MIDDLE
from benchmarks.encode import load, markdown
from benchmarks.harness import Set, least_seconds
from data_schemas.splats import ADDITIVE, NORMALISED, CodecName, layout_for
from encoders.differentiable.splats import render_differentiable
from encoders.frame import to_splats
from encoders.recipe import CUT, NORMALISED_CUT
from encoders.render import render
from models.base import DataSpec
from models.registry import build_model
from pipeline.renderers import with_compiled_patches

SETS = {"mnist": 70, "sprites": 150, "cifar10": 200, "sprites64": 500}
CODECS: tuple[CodecName, ...] = (ADDITIVE, NORMALISED)
STEPS_OF_A_FIT, DENSE_IMAGES, PATCH_BATCH = 50, 2, 64
HEADER = (
    "set, K",
    "codec",
    "step of the fit, us",
    "forward, us",
    "forward and backward, us",
    "over the fit's step",
    "dense autograd, us",
    "dense over compiled",
    "largest error, 8-bit steps",
    "error of the gradient",
)

Draw = Callable[[Tensor], Tensor]


def forward_and_backward(draw: Draw, splats: Tensor, pull: Tensor) -> Callable[[], tuple[Tensor, Tensor]]:
    """A rendering and the gradient of its product with ``pull``, of the same splats at every call."""

    def call() -> tuple[Tensor, Tensor]:
        leaf = splats.detach().requires_grad_()
        image = draw(leaf)
        (gradient,) = torch.autograd.grad(image, leaf, pull)
        return image.detach(), gradient

    return call


def errors(compiled: Draw, dense: Draw, splats: Tensor, pull: Tensor) -> tuple[float, float]:
    """Largest difference of a pixel in 8-bit steps, and the greatest relative error (2-norm) of a column's gradient."""
    image, gradient = forward_and_backward(compiled, splats, pull)()
    exact, exact_gradient = forward_and_backward(dense, splats.double(), pull.double())()
    wrong = (gradient - exact_gradient).flatten(0, 1).norm(dim=0) / exact_gradient.flatten(0, 1).norm(dim=0)
    return 255 * float((image - exact).abs().max()), float(wrong.max())


def measure(data: Set, codec: CodecName, repeats: int) -> list[str]:
    """A row of the table."""
    height, width, channels = data.shape
    layout = layout_for(channels)
    frames = data.frames(MIDDLE, codec=codec)
    splats = torch.from_numpy(to_splats(frames, height, width))
    pull = torch.randn(len(splats), height, width, channels, generator=torch.Generator().manual_seed(0))
    few = slice(0, DENSE_IMAGES)
    compiled = partial(render_differentiable, layout=layout, codec=codec, height=height, width=width, clip=False)
    dense = partial(render, layout=layout, codec=codec, height=height, width=width, clip=False)
    normalised = codec == NORMALISED
    cut = NORMALISED_CUT if normalised else CUT
    seconds = least_seconds(
        {
            "fit": held(data, frames, normalised=normalised, bounded=False, steps=STEPS_OF_A_FIT, cut=cut),
            "forward": lambda: compiled(splats),
            "both": forward_and_backward(compiled, splats, pull),
            "dense": forward_and_backward(dense, splats[few], pull[few]),
        },
        repeats,
    )
    images = {"fit": len(frames) * STEPS_OF_A_FIT, "dense": len(splats[few])}
    each = {name: 1e6 * total / images.get(name, len(frames)) for name, total in seconds.items()}
    step, gradient = errors(compiled, dense, splats[few], pull[few])
    return [
        f"{data.name}, {data.gaussians}",
        codec,
        f"{each['fit']:.1f}",
        f"{each['forward']:.1f}",
        f"{each['both']:.1f}",
        f"{each['both'] / each['fit']:.2f}",
        f"{each['dense']:.0f}",
        f"{each['dense'] / each['both']:.0f}",
        f"{step:.4f}",
        f"{gradient:.1e}",
    ]


def patch_step(repeats: int) -> list[list[str]]:
    """A training step (forward and backward) of a small patch model, its splats drawn by either renderer."""
    network = build_model("cats-splats", "tiny", DataSpec("pixels", height=64, width=64))
    noisy, time = torch.randn(PATCH_BATCH, 3, 64, 64), torch.rand(PATCH_BATCH)
    plain = copy.deepcopy(network)
    with_compiled_patches(network)
    turns = {"compiled": network, "plain torch": plain}
    rows = [["renderer", "training step, ms", "peak memory, MB"]]
    for name, model in turns.items():
        seconds = least_seconds({name: lambda model=model: model(noisy, time).square().mean().backward()}, repeats)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append([name, f"{1e3 * seconds[name]:.0f}", f"{peak:.0f}"])
    return rows


def main(
    data_dir: Annotated[Path, typer.Option(help="Folder with the folders mnist, sprites and cifar10.")],
    images: Annotated[int, typer.Option(min=2, help="Images of each set: a batch of training.")] = 64,
    repeats: Annotated[int, typer.Option(min=1, help="Timings of which the least counts.")] = 9,
    only: Annotated[list[str] | None, typer.Option(help="Only these sets.")] = None,
) -> None:
    """Prints the tables of docs/results.md."""
    torch.set_num_threads(1)
    steps = patch_step(min(repeats, 2))
    typer.echo(f"\n### One core: cats-splats tiny at 64x64, a batch of {PATCH_BATCH}\n\n{markdown(steps)}")
    rows: list[list[str]] = [list(HEADER)]
    for name in only or SETS:
        data = Set(name, SETS[name], load(name, data_dir, 10 * images))
        spread = replace(data, pixels=np.ascontiguousarray(data.pixels[:: len(data.pixels) // images][:images]))
        rows += [measure(spread, codec, repeats) for codec in CODECS]
    typer.echo(f"\n### One core: the differentiable renderer, {images} images at once\n\n{markdown(rows)}")


if __name__ == "__main__":
    typer.run(main)
