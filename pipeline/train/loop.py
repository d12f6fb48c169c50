"""The steps of a training: loss, gradient, weights; log, checkpoints and previews between them."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
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
from pipeline.train.card import sampled_images, save_preview, write_card
from pipeline.train.job import TrainJob
from pipeline.train.loader import Batch, Loader, mixed_seed
from pipeline.train.log import TrainLog
from pipeline.train.losses import ImageDistance, distance_named, image_loss, on_device, render_loss
from pipeline.train.state import MODEL_FILE, TrainProgress, save_model, save_state
from pipeline.train.trackers import TrackerName

logger = logging.getLogger("splatspace.train")

LOG_STEPS = 50
"""Steps between entries of the log."""

UNCHECKED_STEPS = 20
"""On a graphics card the loss is looked at so rarely: each look waits for the card."""

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


class TrainLoop:
    """Takes the steps of one process.

    Args:
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
        config: of the checkpoint, without step and loss.
        collected: losses of the steps since the last entry, of a training that was stopped between two entries.

    Attributes:
        loss: mean of the last entry; None before the first.
    """

    def __init__(
        self,
        fabric: Fabric,
        job: TrainJob,
        model: nn.Module,
        network: Denoiser,
        ema: Ema | None,
        wrapped: Any,
        optimiser: torch.optim.Optimizer,
        objective: Objective,
        representation: SplatRepresentation | PixelRepresentation,
        loader: Loader,
        header: StoreHeader,
        config: dict[str, Any],
        *,
        collected: Sequence[float] = (),
    ) -> None:
        self._fabric, self._job, self._model, self._network, self._ema = fabric, job, model, network, ema
        self._wrapped, self._optimiser, self._objective = wrapped, optimiser, objective
        self._representation, self._loader, self._header, self._config = representation, loader, header, config
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
        self.loss: float | None = config["loss"]

    def run(
        self,
        start: int,
        progress: Callable[[TrainProgress], None] | None,
        should_stop: Callable[[], bool],
        *,
        trackers: Sequence[TrackerName] = (),
    ) -> None:
        """Trains from a step to the end.

        Args:
            start: steps that are behind.
            progress: called with how far it is.
            should_stop: asked after each step.
            trackers: that get what the log gets.

        Raises:
            TrainingError: a loss that is not finite.
            StoppedError: ``should_stop`` said so.
        """
        job = self._job
        if self._fabric.is_global_zero:
            self._log = TrainLog(
                job.out, after=start, trackers=trackers, config={**job.deciding(), "device": self._config["device"]}
            )
        if start < job.steps and (start == 0 or self._config["plans"][-1][0] == start):
            # So that a training that is killed before its first checkpoint, or the first one of its new length, can be
            # continued with that length.
            self._save_state(start)
        elif start >= job.steps:
            self._publish(start)
        began = self._entry_began = time.perf_counter()
        self._model.train()
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
        job, device = self._job, self._fabric.device
        batch = self._loader.batch(step)
        generator = torch.Generator(device).manual_seed(mixed_seed(job.seed, "step", step, self._fabric.global_rank))
        losses = self._objective.loss(
            self._model,
            batch.clean,
            batch.label,
            generator,
            render_loss=self._image_loss(batch),
        )
        penalty = self._network.penalty()
        self._fabric.backward(losses.mean() if penalty is None else losses.mean() + penalty)
        norm = self._fabric.clip_gradients(
            self._model, self._wrapped, max_norm=job.clip or math.inf, error_if_nonfinite=False
        )
        self._norm = norm if norm is not None else 0.0
        for group in self._optimiser.param_groups:
            group["lr"] = learning_rate(job, step)
        self._wrapped.step()
        self._wrapped.zero_grad()
        if self._ema is not None:
            self._ema.update(self._network)
        self._unchecked.append((step, losses.detach()))

    def _image_loss(self, batch: Batch) -> RenderLoss | None:
        """The loss in image space that the job asks for."""
        if isinstance(self._on_device, PixelRepresentation):
            if self._distance is None:
                return None
            return image_loss(self._on_device, batch.clean, self._distance, self._job.perceptual_weight)
        if batch.target is None:
            return None
        return render_loss(self._on_device, self._header, batch.target, self._job.render_loss)

    def _anywhere(self, here: bool) -> bool:
        """Whether any process says so; all answer alike, so that none waits for another."""
        if self._fabric.world_size == 1:
            return here
        flag = torch.tensor(float(here), device=self._fabric.device)
        total = self._fabric.all_reduce(flag, reduce_op="sum")
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
        rows = self._loader.rows(step)[(~torch.isfinite(values)).numpy()].tolist()
        shown = rows[:MOST_ROWS_NAMED]
        words = ", ".join(f"{row} ({name})" for row, name in zip(shown, self._loader.names(shown), strict=True))
        more = len(rows) - MOST_ROWS_NAMED
        whole = " (the whole batch: the weights have diverged)" if len(rows) == len(values) and len(rows) > 1 else ""
        return f"rows {words}" + (f" and {more} more" if more > 0 else "") + whole

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
                    "learning_rate": learning_rate(self._job, done - 1),
                    "gradient_norm": float(self._norm),
                },
                measured={"images_per_second": self._steps_timed * self._job.batch / max(seconds, 1e-9)},
            )
        self._collected, self._steps_timed = [], 0
        self._entry_began = time.perf_counter()

    def _save_state(self, done: int) -> None:
        if self._fabric.is_global_zero:
            content = {
                "job": self._config["job"],
                "step": done,
                "digest": self._config["store"]["digest"],
                "plans": self._config["plans"],
                "loss": self.loss,
                "labels": self._config["labels"],
                "collected": self._collected,
            }
            save_state(self._job.out, self._network, self._ema, self._optimiser, content)
        self._fabric.barrier()

    def _publish(self, done: int) -> None:
        """The model to sample from, its card and a grid of samples."""
        if self._fabric.is_global_zero:
            weights: Any = self._network if self._ema is None else self._ema.model
            config = {**self._config, "step": done, "loss": self.loss}
            save_model(self._job.out, weights, config, self._representation.tensors())
            write_card(self._job, self._header, config)
            try:
                images = sampled_images(weights, self._objective, self._representation, self._header)
                picture = save_preview(self._job.out, done, images)
                if self._log is not None:
                    self._log.picture(done, picture)
            except SamplingError as error:
                logger.warning("No samples of step %d: %s", done, error)
            self._network.train()
            logger.info("Step %d: %s", done, self._job.out / MODEL_FILE)
        self._fabric.barrier()
        self._entry_began = time.perf_counter()

    def close(self) -> None:
        """Closes the log."""
        if self._log is not None:
            self._log.close()
