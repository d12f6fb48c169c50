"""What the loss of rendered predictions weighs, and what it does: gradients and losses while two trainings run.

    splatspace encode mnist --data-dir ../shared/data/mnist --limit 512 --out mnist512.zarr
    python -m benchmarks.generation.render_loss --store mnist512.zarr --out runs/render-loss

Two trainings of `splatdit` `tiny` with the same seeds, without (a weight of 1e-6) and with the loss. At the same steps,
on the same images and noise, the loss of the numbers, the rendered loss of weight 1 and the norms of both gradients are
printed as Markdown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

from benchmarks.encode import markdown
from pipeline.train.job import RENDER_LOSS_WEIGHT, resolve_train_job
from pipeline.train.loader import mix_seed
from pipeline.train.loop import TrainLoop
from pipeline.train.losses import render_loss
from pipeline.train.train import train

NEXT_TO_NOTHING = 1e-6
HEADER = ["weight", "step", "loss of the numbers", "rendered loss", "rendered gradient over that of the numbers"]


def watched(loop: Any, step: int) -> list[str]:
    """Losses and the ratio of gradient norms at one step of a training."""
    parts = loop.parts
    batch = parts.loader.batch(step)
    target = parts.header, batch.target, 1.0

    def losses(**options: Any) -> Tensor:
        generator = torch.Generator(parts.fabric.device).manual_seed(mix_seed(parts.job.seed, "step", step, 0))
        return parts.objective.loss(parts.model, batch.clean, batch.label, generator, **options).mean()

    def norm(loss: Tensor) -> float:
        weights = [weight for weight in parts.network.parameters() if weight.requires_grad]
        found = torch.autograd.grad(loss, weights, allow_unused=True)
        return float(torch.cat([part.flatten() for part in found if part is not None]).norm())

    numbers = losses()
    rendered = losses(render_loss=render_loss(loop._on_device, *target)) - losses()
    ratio = norm(rendered) / norm(losses())
    return [
        f"{parts.job.render_loss:g}",
        str(step),
        f"{float(numbers.detach()):.3f}",
        f"{float(rendered.detach()):.4f}",
        f"{ratio:.3f}",
    ]


def main(
    store: Annotated[Path, typer.Option(help="A store with images.")],
    out: Annotated[Path, typer.Option(help="Folder for the two runs.")],
    steps: Annotated[int, typer.Option(min=2)] = 100,
    batch: Annotated[int, typer.Option(min=1)] = 32,
) -> None:
    """Prints the losses and gradients that docs/train.md speaks of."""
    rows: list[list[str]] = [HEADER]
    take = TrainLoop._step
    watch = {round(steps * share) for share in (0.25, 0.6)} | {steps - 1}

    def watching(self: TrainLoop, step: int) -> None:
        if step in watch:
            rows.append(watched(self, step))
        take(self, step)

    TrainLoop._step = watching
    for weight in (NEXT_TO_NOTHING, RENDER_LOSS_WEIGHT):
        train(
            resolve_train_job(
                kind="splats", store=str(store), out=str(out / f"weight-{weight:g}"), preset="tiny", steps=steps,
                batch=batch, render_loss=weight, device="cpu",
            )
        )  # fmt: skip
    typer.echo(markdown(rows))


if __name__ == "__main__":
    typer.run(main)
