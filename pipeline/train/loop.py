"""The steps of a training: loss, gradient, weights; log, checkpoints and previews between them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from data_schemas.errors import SamplingError, StoppedError, TrainingError
from data_schemas.records import StoreHeader
from models.base import Denoiser
from models.diffusion.objectives import Objective, RenderLoss
from models.ema import Ema
from models.features.pixels import PixelRepresentation, representation_from
from models.features.splats import SplatRepresentation
from pipeline.format import list_names
from pipeline.train.card import sample_preview, save_preview, write_card
from pipeline.train.job import TrainJob
from pipeline.train.loader import Batch, Loader, mix_seed
from pipeline.train.losses import ImageDistance, distance_named, image_loss, on_device, render_loss
from pipeline.train.run_record import RunRecord
from pipeline.train.state import MODEL_FILE, TrainProgress, save_model, save_state
from pipeline.train.tracking.log import TrainLog
from pipeline.train.tracking.trackers import TrackerName

logger = logging.getLogger("splatspace.train")

LOG_STEPS = 50
"""Steps between entries of the log."""

UNCHECKED_STEPS = 20
"""On a GPU the loss is looked at so rarely: each look waits for the card."""

LAST_RATE = 0.01
"""Share of the learning rate that is left at the end."""

MOST_ROWS_NAMED = 20


def learning_rate(job: TrainJob, step: int) -> float:
    """Rises linearly during warm-up, then falls along a cosine to ``LAST_RATE`` of its height, or stays.

    Args:
        job: with height, warm-up, steps and whether it falls.
        step: from 0.
    """
    if step < job.warm_up_steps:
        return job.learning_rate * (step + 1) / job.warm_up_steps
    if job.constant_rate:
        return job.learning_rate
    done = (step - job.warm_up_steps) / max(1, job.steps - job.warm_up_steps)
    return job.learning_rate * (LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * done)) / 2)


@dataclass(frozen=True)
class TrainParts:
    """What the steps of one process work with.

    Attributes:
        fabric: launched.
        job: what to train.
        model: the network as Fabric wrapped it.
        network: the same, bare.
        ema: mean of its weights, or None.
        wrapped: the optimiser as Fabric wrapped it.
        optimiser: the same, bare.
        objective: the loss.
        representation: on the CPU.
        loader: of batches.
        header: of the store.
        record: of the run, as it stands at the step from which the training goes on.
    """

    fabric: Fabric
    job: TrainJob
    model: nn.Module
    network: Denoiser
    ema: Ema | None
    wrapped: Any
    optimiser: torch.optim.Optimizer
    objective: Objective
    representation: SplatRepresentation | PixelRepresentation
    loader: Loader
    header: StoreHeader
    record: RunRecord


class TrainLoop:
    """Takes the steps of one process.

    Args:
        parts: what it works with.
        collected: losses of the steps since the last entry, of a training that was stopped between two entries.

    Attributes:
        parts: the same.
        loss: mean of the last entry; None before the first.
    """

    def __init__(self, parts: TrainParts, *, collected: Sequence[float] = ()) -> None:
        self.parts = parts
        fabric, job, representation = parts.fabric, parts.job, parts.representation
        moved = representation_from(representation.config(), representation.tensors())
        self._on_device = moved.to(fabric.device)
        self._distance: ImageDistance | None = None
        if isinstance(representation, PixelRepresentation):
            size = representation.channels, representation.height, representation.width
            self._distance = on_device(distance_named(job.perceptual, job.lpips_weights, size), fabric.device)
        self._check_every = UNCHECKED_STEPS if fabric.device.type == "cuda" else 1
        self._log: TrainLog | None = None
        self._unchecked: list[tuple[int, Tensor]] = []
        self._collected: list[float] = [float(loss) for loss in collected]
        self._steps_timed = 0
        self._norm: Tensor | float = 0.0
        self._entry_began = time.perf_counter()
        self.loss: float | None = parts.record.loss

    def run(
        self,
        progress: Callable[[TrainProgress], None] | None,
        should_stop: Callable[[], bool],
        *,
        trackers: Sequence[TrackerName] = (),
    ) -> None:
        """Trains from the record's step to the end.

        Args:
            progress: called with how far it is.
            should_stop: asked after each step.
            trackers: that get what the log gets.

        Raises:
            TrainingError: a loss that is not finite.
            StoppedError: ``should_stop`` said so.
        """
        job, record = self.parts.job, self.parts.record
        start = record.step
        if self.parts.fabric.is_global_zero:
            self._log = TrainLog(
                job.out, after=start, trackers=trackers, config={**job.deciding(), "device": record.device}
            )
        if start < job.steps and (start == 0 or record.plans[-1][0] == start):
            # So that a training that is killed before its first checkpoint, or the first one of its new length, can be
            # continued with that length.
            self._save_state(start)
        elif start >= job.steps:
            self._publish(start)
        began = self._entry_began = time.perf_counter()
        self.parts.model.train()
        for step in range(start, job.steps):
            self._step(step)
            done = step + 1
            saving = done % job.steps_between == 0 or done == job.steps
            if done % self._check_every and not saving:
                continue
            stopping = self._anywhere(should_stop())
            self._check()
            # Not where it is stopped: the state keeps the losses, and the entry is written when it is due.
            if done % LOG_STEPS == 0 or saving:
                self._write_entry(done)
            if progress is not None:
                seconds = time.perf_counter() - began
                rate = (done - start) / max(seconds, 1e-9)
                mean = self.loss if self.loss is not None else float(np.mean(self._collected))
                progress(TrainProgress(done, job.steps, mean, rate * job.batch, (job.steps - done) / rate))
            if saving or stopping:
                self._save_state(done)
            if saving:
                self._publish(done)
            if stopping and done < job.steps:
                raise StoppedError(
                    f"Stopped after step {done:,} of {job.steps:,}; the state is in {job.out}",
                    next_step="run the same command with --resume to continue",
                )

    def _step(self, step: int) -> None:
        job, device = self.parts.job, self.parts.fabric.device
        batch = self.parts.loader.batch(step)
        generator = torch.Generator(device).manual_seed(mix_seed(job.seed, "step", step, self.parts.fabric.global_rank))
        losses = self.parts.objective.loss(
            self.parts.model,
            batch.clean,
            batch.label,
            generator,
            render_loss=self._image_loss(batch),
        )
        penalty = self.parts.network.penalty()
        self.parts.fabric.backward(losses.mean() if penalty is None else losses.mean() + penalty)
        norm = self.parts.fabric.clip_gradients(
            self.parts.model, self.parts.wrapped, max_norm=job.clip or math.inf, error_if_nonfinite=False
        )
        self._norm = norm if norm is not None else 0.0
        for group in self.parts.optimiser.param_groups:
            group["lr"] = learning_rate(job, step)
        self.parts.wrapped.step()
        self.parts.wrapped.zero_grad()
        if self.parts.ema is not None:
            self.parts.ema.update(self.parts.network)
        self._unchecked.append((step, losses.detach()))

    def _image_loss(self, batch: Batch) -> RenderLoss | None:
        """The loss in image space that the job asks for."""
        if isinstance(self._on_device, PixelRepresentation):
            if self._distance is None:
                return None
            return image_loss(self._on_device, batch.clean, self._distance, self.parts.job.perceptual_weight)
        if batch.target is None:
            return None
        return render_loss(self._on_device, self.parts.header, batch.target, self.parts.job.render_loss)

    def _anywhere(self, here: bool) -> bool:
        """Whether any process says so; all answer alike, so that none waits for another."""
        if self.parts.fabric.world_size == 1:
            return here
        flag = torch.tensor(float(here), device=self.parts.fabric.device)
        total = self.parts.fabric.all_reduce(flag, reduce_op="sum")
        return float(torch.as_tensor(total)) > 0

    def _check(self) -> None:
        """Looks at the losses since the last look.

        Raises:
            TrainingError: one is not finite; nothing has been saved since.
        """
        losses = [(step, values.cpu()) for step, values in self._unchecked]
        self._unchecked = []
        bad = [(step, values) for step, values in losses if not torch.isfinite(values).all()]
        if self._anywhere(bool(bad)):
            step, named = (bad[0][0], self._named(*bad[0])) if bad else (losses[0][0], "rows of another process")
            raise TrainingError(
                f"The loss of step {step + 1:,} is not a number: {named}; the last whole checkpoint is kept",
                next_step="run splatspace verify on the store; else train with a smaller --learning-rate",
            )
        self._collected += [float(values.mean()) for _, values in losses]
        self._steps_timed += len(losses)

    def _named(self, step: int, values: Tensor) -> str:
        """The rows whose loss is not finite and their images, for people."""
        rows = self.parts.loader.rows(step)[(~torch.isfinite(values)).numpy()].tolist()
        shown = rows[:MOST_ROWS_NAMED]
        words = [f"{row} ({name})" for row, name in zip(shown, self.parts.loader.names(shown), strict=True)]
        whole = " (the whole batch: the weights have diverged)" if len(rows) == len(values) and len(rows) > 1 else ""
        return f"rows {list_names(words, count=len(rows))}{whole}"

    def _write_entry(self, done: int) -> None:
        if not self._collected:
            return
        self.loss = float(np.mean(self._collected))
        seconds = time.perf_counter() - self._entry_began
        if self._log is not None:
            self._log.write(
                done,
                {
                    "loss": self.loss,
                    "learning_rate": learning_rate(self.parts.job, done - 1),
                    "gradient_norm": float(self._norm),
                },
                measured={"images_per_second": self._steps_timed * self.parts.job.batch / max(seconds, 1e-9)},
            )
        self._collected, self._steps_timed = [], 0
        self._entry_began = time.perf_counter()

    def _save_state(self, done: int) -> None:
        if self.parts.fabric.is_global_zero:
            record = self.parts.record
            content = {
                "job": record.job,
                "step": done,
                "digest": record.store.digest,
                "plans": record.plans,
                "loss": self.loss,
                "labels": record.labels,
                "collected": self._collected,
            }
            save_state(self.parts.job.out, self.parts.network, self.parts.ema, self.parts.optimiser, content)
        self.parts.fabric.barrier()

    def _publish(self, done: int) -> None:
        """The model to sample from, its card and a grid of samples."""
        if self.parts.fabric.is_global_zero:
            weights: Any = self.parts.network if self.parts.ema is None else self.parts.ema.model
            record = replace(self.parts.record, step=done, loss=self.loss)
            save_model(self.parts.job.out, weights, record.config(), self.parts.representation.tensors())
            write_card(self.parts.job, self.parts.header, record)
            try:
                images = sample_preview(weights, self.parts.objective, self.parts.representation, self.parts.header)
                picture = save_preview(self.parts.job.out, done, images)
                if self._log is not None:
                    self._log.picture(done, picture)
            except SamplingError as error:
                logger.warning("No samples of step %d: %s", done, error)
            self.parts.network.train()
            logger.info("Step %d: %s", done, self.parts.job.out / MODEL_FILE)
        self.parts.fabric.barrier()
        self._entry_began = time.perf_counter()

    def close(self) -> None:
        """Closes the log."""
        if self._log is not None:
            self._log.close()
