"""Flow ``train``: a store to a generator, with its loss and samples as an artifact.

The run's folder is the only truth: a training that is there goes on where it stopped, to the bit on one processor.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from flows.artifacts import ProgressBar
from flows.generator_artifacts import publish_training
from flows.guards import require_inside_roots
from flows.stop import run_stoppably
from models.features.covariance import CovarianceForm
from models.features.normalisation import Normalisation
from models.patches.model import HeadName, RecipeName
from models.registry import PresetName
from pipeline.options import PathText
from pipeline.train.job import OrderName, PrecisionName, TrainJob
from pipeline.train.request import KindName, requested_job
from pipeline.train.state import MODEL_FILE, STATE_FILE, TrainProgress, TrainSummary
from pipeline.train.train import train as run_training


@flow(name="train", flow_run_name="{kind} of {store} to {out}", persist_result=False)
def train(
    store: PathText,
    out: PathText,
    kind: KindName = "splats",
    head: HeadName | None = None,
    recipe: RecipeName | None = None,
    model: Annotated[str, Field(min_length=1)] | None = None,
    preset: PresetName | None = None,
    pack: Annotated[int, Field(ge=1)] | None = None,
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None,
    batch: Annotated[int, Field(ge=1, le=1_000_000)] | None = None,
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None,
    objective: Annotated[str, Field(min_length=1)] | None = None,
    render_loss: Annotated[float, Field(ge=0)] | None = None,
    perceptual: Literal["none", "gradient", "dct", "lpips"] | None = None,
    perceptual_weight: Annotated[float, Field(ge=0)] | None = None,
    lpips_weights: PathText | None = None,
    flip: Annotated[float, Field(ge=0, le=1)] | None = None,
    distinct: bool | None = None,
    held_out: Annotated[float, Field(ge=0, le=0.9)] | None = None,
    covariance: CovarianceForm | None = None,
    normalisation: Normalisation | None = None,
    classes: bool | None = None,
    order: OrderName | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    ema: bool | None = None,
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    precision: PrecisionName | None = None,
    compile: bool | None = None,
    every: Annotated[int, Field(ge=1)] | None = None,
    latents: Annotated[int, Field(ge=1)] | None = None,
    track: Annotated[str, Field(pattern=r"^(wandb|mlflow)(,(wandb|mlflow))*$")] | None = None,
    resume: bool = True,
) -> TrainSummary:
    """Trains a generator on the splats or the images of a store; leaves the run's folder and its artifact.

    Run it again with the same parameters and it continues; with more steps it goes on from the end. What is left out
    is as `splatspace train` has it, or as the training that is continued has it.

    Args:
        store: a .zarr or .h5 store of finished splats, or of images for pixels.
        out: folder of the run; relative to the folder in which the flow runs.
        kind: what the generator makes, splats or pixels; cats are pixels made by a patch model.
        head: of a patch model, needed there.
        recipe: of a patch model, as published or modern (the default).
        model: a name of `splatspace models`; render-dit, or pixel-unet for pixels.
        preset: size of the model (small).
        pack: Gaussians per token of splatdit; about 50 tokens without it.
        steps: optimiser steps (10,000). More than a training that is there had lengthen it.
        batch: images of a step (64).
        learning_rate: its height; without, by model and preset.
        objective: flow-clean, flow-velocity, epsilon, ddpm-linear, ddpm-cosine or published.
        render_loss: weight of a loss on rendered predictions (0, none).
        perceptual: a loss on how predicted pixels look (none; of cats by recipe).
        perceptual_weight: its weight.
        lpips_weights: for lpips the file vgg16-397923af.pth or its folder (downloaded to the cache).
        flip: share of images that are mirrored.
        distinct: learn each picture once (cats only).
        held_out: share of images kept apart for evaluation (0; of cats 0.1).
        covariance: numbers that stand for a covariance (matrix_log).
        normalisation: how the numbers are scaled (by model).
        classes: condition on labels (where there are some).
        order: order of the Gaussians, as stored or each image assigned to anchors.
        limit: learn only from the first finished images.
        ema: sample from the mean of the weights (yes).
        seed: of everything (0).
        device: where to compute; auto takes a graphics card where there is one.
        precision: auto is bf16 on CUDA devices, else 32.
        compile: compile the network.
        every: steps between checkpoints and sample grids (a tenth of all).
        latents: most MiB of latents in memory (4,096); larger sets are streamed.
        track: log to wandb, mlflow or both (wandb,mlflow) as well; where they send to, their own settings say.
        resume: go on where a training in that folder stopped; without it a folder that holds one is refused.

    Returns:
        what was left.

    Raises:
        SplatSpaceError: the job cannot be run, or a loss is not a number (the last whole checkpoint is kept).
    """
    require_inside_roots(store=store, out=out, lpips_weights=lpips_weights)
    logger = get_run_logger()
    run = Path(out)
    goes_on = resume and (run / STATE_FILE).exists()
    if goes_on:
        logger.info("%s holds a training: it goes on", run)
    job = requested_job(
        kind, store, run, resume=goes_on, head=head, recipe=recipe, model=model, preset=preset, pack=pack, steps=steps,
        batch=batch, learning_rate=learning_rate, objective=objective, render_loss=render_loss, perceptual=perceptual,
        perceptual_weight=perceptual_weight, lpips_weights=lpips_weights, flip=flip, distinct=distinct,
        held_out=held_out, covariance=covariance, normalisation=normalisation, classes=classes, order=order,
        limit=limit, ema=ema, seed=seed, device=device, precision=precision, compile=compile, every=every,
        latents=latents,
    )  # fmt: skip
    try:
        summary = _trained(job, resume=goes_on, trackers=tuple(track.split(",")) if track else ())
    finally:
        # Cancelled or failed, too: what came before is there to be seen.
        if (run / MODEL_FILE).exists():
            publish_training(run)
    loss = "" if summary.loss is None else f", loss {summary.loss:.4f}"
    logger.info("%d steps of %d in %.0f s%s: %s", summary.steps_taken, summary.steps, summary.seconds, loss, run)
    if summary.unfinished:
        logger.warning("%d rows of the store are not done and were not used", summary.unfinished)
    return summary


def _trained(job: TrainJob, *, resume: bool, trackers: tuple[str, ...]) -> TrainSummary:
    """The training, in a thread of its own: a cancellation saves its state first."""
    with ProgressBar(f"training {job.model} ({job.preset})") as bar:

        def show(progress: TrainProgress) -> None:
            bar.show(progress.step / progress.steps, progress.words)

        def work(should_stop: Callable[[], bool]) -> TrainSummary:
            return run_training(job, resume=resume, progress=show, should_stop=should_stop, trackers=trackers)

        return run_stoppably(work)
