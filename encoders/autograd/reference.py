"""Engine ``reference``: the same recipe by autograd on the plain renderers. Slow, clear, right on CPU and GPU.

It fits every codec, so it is the engine of ``over/1`` where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.splats import NORMALISED, NORMALISED_EPSILON, OVER
from encoders.autograd.descent import descend, fit_batches, recipe_for
from encoders.base import FitResult, FitSettings, images_for_processor
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y
from encoders.recipe import Recipe
from encoders.render import composite

_NUMBERS_PER_BATCH = 32_000_000
"""Weights (images x Gaussians x pixels) that one batch may hold: about 1 GB with their gradients."""


def frame_weights(frame: Tensor, height: int, width: int) -> Tensor:
    """exp(-(u^2 + v^2) / 2) of every Gaussian at every pixel centre.

    Args:
        frame: float [image, gaussian, parameter] (encoders.frame).
        height: rows.
        width: columns.

    Returns:
        [image, gaussian, height, width], in [0, 1].
    """
    x, y, log_a, b, log_c = (frame[..., i, None, None] for i in (X, Y, LOG_A, B, LOG_C))
    dx = torch.arange(width, device=frame.device, dtype=frame.dtype)[None, :] + 0.5 - x
    dy = torch.arange(height, device=frame.device, dtype=frame.dtype)[:, None] + 0.5 - y
    u = torch.exp(log_a) * dx + b * dy
    v = torch.exp(log_c) * dy
    return torch.exp(-0.5 * (u**2 + v**2))


def render_frame(frame: Tensor, height: int, width: int, *, normalised: bool) -> Tensor:
    """The unclipped formula of ``additive/1`` or ``normalised/1`` on pixel-frame parameters.

    Args:
        frame: float [image, gaussian, 5 + channel] (encoders.frame).
        height: rows.
        width: columns.
        normalised: whether to divide by the summed weights.

    Returns:
        [image, height, width, channel].
    """
    weight = frame_weights(frame, height, width)
    image = torch.einsum("bkhw,bkc->bhwc", weight, frame[..., COLOUR:])
    return image / (NORMALISED_EPSILON + weight.sum(dim=1))[..., None] if normalised else image


def render_frame_over(frame: Tensor, height: int, width: int) -> Tensor:
    """The unclipped formula of ``over/1`` on pixel-frame parameters.

    Args:
        frame: float [image, gaussian, 5 + channel + 1], opacity last (encoders.frame).
        height: rows.
        width: columns.

    Returns:
        [image, height, width, channel].
    """
    opacity = frame[..., -1, None, None] * frame_weights(frame, height, width)
    return composite(opacity, frame[..., COLOUR:-1])


class ReferenceEncoder:
    """Batched autograd with Adam.

    Args:
        settings: what decides the splats.
        device: a torch device.
        recipe: constants of the optimiser; None takes those of the codec.
    """

    name = "reference"

    def __init__(self, settings: FitSettings, *, device: str = "cpu", recipe: Recipe | None = None) -> None:
        self.settings = settings
        self._device = torch.device(device)
        self._recipe = recipe or recipe_for(settings)

    @property
    def device(self) -> str:
        """The torch device."""
        return str(self._device)

    def recipe(self) -> dict[str, Any]:
        """Every constant of the optimiser."""
        return self._recipe.as_dict()

    def images_per_call(self, height: int, width: int, channels: int) -> int:
        """About a second of work; see :class:`encoders.base.Encoder`."""
        return images_for_processor(self.settings.gaussians, height, width)

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """Fits a batch; see :class:`encoders.base.Encoder`.

        Args:
            images: uint8 [image, height, width, channel], channel 1 or 3.
            should_stop: polled before every optimiser step.

        Raises:
            FitStoppedError: ``should_stop`` answered True.
        """
        _, height, width, _ = images.shape
        size = max(1, _NUMBERS_PER_BATCH // (self.settings.gaussians * height * width))
        render = self._render(height, width)
        return fit_batches(
            images,
            self.settings,
            lambda: size,
            lambda batch: descend(batch, self.settings, self._recipe, render, self._device, should_stop),
        )

    def _render(self, height: int, width: int) -> Callable[[Tensor], Tensor]:
        if self.settings.codec == OVER:
            return lambda frame: render_frame_over(frame, height, width)
        normalised = self.settings.codec == NORMALISED
        return lambda frame: render_frame(frame, height, width, normalised=normalised)
