"""What a generator costs: operations counted, steps timed."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.base import DataSpec, Denoiser
from models.registry import step_gflop

_WARM_UP_STEPS = 3
_FEWEST_STEPS, _MOST_STEPS = 10, 50
_SECONDS = 5.0


@dataclass(frozen=True)
class StepTime:
    """Wall time of one evaluation of a network on one batch.

    Attributes:
        batch: images in it.
        steps: evaluations that were timed.
        median_ms: 50th percentile.
        slow_ms: 95th percentile.
    """

    batch: int
    steps: int
    median_ms: float
    slow_ms: float


def example_batch(spec: DataSpec, batch: int, device: torch.device) -> Tensor:
    """Noise of the shape that a network takes."""
    shape = (spec.gaussians, spec.features) if spec.kind == "splats" else (spec.channels, spec.height, spec.width)
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0)).to(device)


def time_steps(model: Denoiser, batch: int = 32) -> StepTime:
    """Times evaluations of a network, after some that do not count.

    Args:
        model: on the device in question.
        batch: images at once.

    Returns:
        Over 50 evaluations, or as many as fit into five seconds, at least ten.
    """
    device = next(model.parameters()).device
    noisy = example_batch(model.spec, batch, device)
    moment = torch.full((batch,), 0.5, device=device)
    taken: list[float] = []
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for number in range(_WARM_UP_STEPS + _MOST_STEPS):
                began = time.perf_counter()
                model(noisy, moment)
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                if number >= _WARM_UP_STEPS:
                    taken.append(time.perf_counter() - began)
                if len(taken) >= _FEWEST_STEPS and sum(taken) > _SECONDS:
                    break
    finally:
        model.train(training)
    median, slow = np.percentile(np.array(taken) * 1e3, [50, 95])
    return StepTime(batch=batch, steps=len(taken), median_ms=float(median), slow_ms=float(slow))


def sample_tflop(model: Denoiser, evaluations: int, *, guided: bool) -> tuple[float, float]:
    """GFLOP of one evaluation and TFLOP of one sample; guidance evaluates the network twice at every step."""
    gflop = step_gflop(model)
    return gflop, gflop * evaluations * (2 if guided else 1) / 1000
