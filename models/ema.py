"""The running mean of a network's weights, which is what is sampled from."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from data_schemas.errors import CheckpointError

LARGEST_DECAY = 0.9999

HALF_LIFE = 0.05
"""As a fraction of the training."""


def decay_for(steps: int) -> float:
    """The decay whose memory halves in ``HALF_LIFE`` of the training.

    Args:
        steps: of the whole training.

    Returns:
        Decay per step, at most ``LARGEST_DECAY``.
    """
    return min(LARGEST_DECAY, 0.5 ** (1 / max(1.0, HALF_LIFE * steps)))


class Ema:
    """An exponential moving average of weights whose decay ramps up: min(decay, (1 + n) / (10 + n)) at update n.

    Without the ramp the random first weights would weigh for long. Buffers (BatchNorm's statistics) are copied.

    Args:
        model: to follow; not changed. A compiled network is handed in as it was before compiling.
        decay: share of the old mean that is kept at each update, once ramped up.

    Attributes:
        model: a copy in evaluation mode that holds the mean, without gradients.
        updates: how often it was updated.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Takes in the weights of ``model`` after an optimiser step."""
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average = get_ema_multi_avg_fn(decay)
        mean: list[Tensor] = [parameter.detach() for parameter in self.model.parameters()]
        current: list[Tensor] = [parameter.detach() for parameter in model.parameters()]
        average(mean, current, self.updates)
        for held, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            held.copy_(buffer)
        self.updates += 1

    def tensors(self) -> dict[str, Tensor]:
        """The mean weights and buffers by name."""
        return dict(self.model.state_dict())

    def state(self) -> dict[str, Any]:
        """Plain numbers that :meth:`restore` needs beside the tensors."""
        return {"updates": self.updates, "decay": self.decay}

    def restore(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Continues exactly where ``tensors()`` and ``state()`` were taken.

        Raises:
            CheckpointError: weights of another network, or an entry is missing.
        """
        try:
            self.model.load_state_dict(tensors)
            self.updates, self.decay = int(state["updates"]), float(state["decay"])
        except (KeyError, RuntimeError, TypeError, ValueError, OverflowError) as error:
            raise CheckpointError(f"Mean weights that cannot be restored: {error}") from error
