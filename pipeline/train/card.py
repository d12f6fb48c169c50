"""``card.md``: what a trained model is, for people; and the grid of samples of a network in training."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from data_schemas.files import wrap_os_errors, write_file
from data_schemas.printable import markdown_text, printable
from data_schemas.records import StoreHeader
from encoders.decode import decode, to_uint8
from models.base import Denoiser
from models.diffusion.objectives import Objective
from models.diffusion.samplers import generators_for, sample
from models.features.pixels import PixelRepresentation
from models.features.splats import SplatRepresentation
from pipeline.images import grid_of
from pipeline.render import save_png
from pipeline.train.class_labels import ClassLabels
from pipeline.train.job import TrainJob
from pipeline.train.run_record import RunRecord
from pipeline.train.state import CARD_FILE, SAMPLES_FOLDER

IMAGES = 36
"""Of a preview."""

UNMEASURED = "No metric is stated here,\nbecause none was measured in training."
"""Of a card that was written by the training."""

USE_HEADING = "## Use"
"""Begins the last part of a card."""

MOST_EVALUATIONS = 50
"""A preview of the published recipe would otherwise cost 200 evaluations each time."""


def card_text(job: TrainJob, header: StoreHeader, record: RunRecord) -> str:
    """The card.

    Args:
        job: what was trained.
        header: of the store.
        record: of the run.
    """
    source, rows = header.source, record.store
    objective = record.objective
    lines = [
        f"# {job.model} ({job.preset}) on {markdown_text(source.name)}",
        "",
        f"Generates images of {header.width} x {header.height} pixels"
        + (f" as {header.gaussians} Gaussians each (codec {header.codec})." if job.kind == "splats" else " in pixels."),
        "",
        "| | |",
        "|---|---|",
        f"| images learned from | {rows.images:,} |",
        f"| unfinished rows, not used | {rows.unfinished:,} |",
        f"| images held out | {rows.held_out:,} |",
        f"| rows that repeat others, not used | {rows.repeats:,} |",
        f"| labels | {_labels(record)} |",
        f"| order of Gaussians | {rows.order} |",
        f"| parameters | {record.parameters:,} |",
        f"| GFLOP per evaluation | {record.gflop:.3f} |",
        f"| objective | {objective['name']} (predicts {objective['target']}) |",
        f"| sampler by default | {objective['sampler']}, {objective['evaluations']} evaluations |",
        *([f"| distilled from | {markdown_text(job.distil.name)} |"] if job.distil is not None else []),
        f"| steps | {record.step:,} of {job.steps:,}{_plans(record.plans)}, batch {job.batch} |",
        f"| loss, mean since the last entry | {record.loss:.4f} |",
        f"| weights | {'running mean' if job.ema else 'as trained'} |",
        f"| loss in image space | {_image_loss(job)} |",
        f"| seed | {job.seed} |",
        f"| precision | {record.precision} on {record.device} |",
        "",
        "## Data",
        "",
        f"Source: {markdown_text(source.name)}, split {markdown_text(source.split)}. "
        f"Licence: {markdown_text(source.licence or 'not recorded')}."
        + (f" {markdown_text(source.attribution)}" if source.attribution else ""),
        "",
        "## Limits",
        "",
        "It knows only images like those above, at their size, and may repeat some of them: compare samples with",
        "their nearest training images before publishing any (`splatspace evaluate`). " + UNMEASURED,
        "",
        USE_HEADING,
        "",
        "```",
        f"splatspace sample {printable(shlex.quote(job.out.name))} -n 64 --out samples",
        "```",
        "",
    ]
    return "\n".join(lines)


def _plans(plans: list[list[int]]) -> str:
    """How a training was lengthened: its learning rate has risen again there."""
    return "".join(
        f" (until step {step:,} planned with {before:,})" for (_, before), (step, _) in itertools.pairwise(plans)
    )


def _labels(record: RunRecord) -> str:
    """How many; and which, where they do not count from 0."""
    classes = record.data["classes"]
    labels = ClassLabels(tuple(record.labels))
    return f"{classes or 'none'}" if labels.plain else f"{classes}: {labels.words(labels.numbers)}"


def _image_loss(job: TrainJob) -> str:
    if job.perceptual != "none":
        return f"{job.perceptual}, weight {job.perceptual_weight:g}"
    return f"rendered, weight {job.render_loss:g}" if job.render_loss else "none"


def write_card(job: TrainJob, header: StoreHeader, record: RunRecord) -> Path:
    """Writes the card into the run's folder.

    Raises:
        StoreError: the folder cannot be written.
    """
    path = job.out / CARD_FILE
    with wrap_os_errors("write", path):
        write_file(path, card_text(job, header, record).encode())
    return path


def sample_preview(
    model: Denoiser,
    objective: Objective,
    representation: SplatRepresentation | PixelRepresentation,
    header: StoreHeader,
) -> NDArray[np.uint8]:
    """Samples and decodes from the same noise in each preview; with labels, the classes follow one another.

    Args:
        model: on any device.
        objective: that it is trained with.
        representation: on the CPU.
        header: of the store, for the codec and the size.

    Returns:
        uint8 [image, y, x, channel].

    Raises:
        SamplingError: a sample is not finite.
    """
    classes = objective.classes
    features = sample(
        objective,
        model,
        (IMAGES, *representation.shape),
        generators=generators_for(0, IMAGES),
        evaluations=objective.settings.distilled or min(MOST_EVALUATIONS, objective.settings.evaluations),
        sampler=objective.settings.sampler,
        label=torch.arange(IMAGES) % classes if classes else None,
    )
    stored = representation.decode(features.cpu()).numpy()
    if isinstance(representation, SplatRepresentation):
        stored = decode(
            stored,
            layout=representation.layout,
            codec=header.codec,
            height=header.height,
            width=header.width,
            workers=1,
        )
    return to_uint8(stored)


def save_preview(run: Path, step: int, images: NDArray[np.uint8]) -> Image.Image:
    """Writes ``samples/STEP.png`` and returns the image.

    Raises:
        StoreError: the folder cannot be written.
    """
    picture, _ = grid_of(images)
    save_png(picture, run / SAMPLES_FOLDER / f"{step:07d}.png")
    return picture
