"""Engine ``reference``: the same recipe by autograd on the plain renderer. Slow, clear, right on CPU and GPU."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.splats import NORMALISED, NORMALISED_EPSILON
from encoders.base import FitResult, FitSettings
from encoders.fit_moves import DARK, RESEEDED_SIGMA
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y, to_splats
from encoders.initialise import begin
from encoders.recipe import Recipe

_NUMBERS_PER_BATCH = 32_000_000
"""Weights (images x Gaussians x pixels) that one batch may hold: about 1 GB with their gradients."""


def render_frame(frame: Tensor, height: int, width: int, *, normalised: bool) -> Tensor:
    """The unclipped codec formula on pixel-frame parameters.

    Args:
        frame: float [image, gaussian, 5 + channel] (encoders.frame).
        height: rows.
        width: columns.
        normalised: whether to divide by the summed weights.

    Returns:
        [image, height, width, channel].
    """
    x, y, log_a, b, log_c = (frame[..., i, None, None] for i in (X, Y, LOG_A, B, LOG_C))
    dx = torch.arange(width, device=frame.device, dtype=frame.dtype)[None, :] + 0.5 - x
    dy = torch.arange(height, device=frame.device, dtype=frame.dtype)[:, None] + 0.5 - y
    u = torch.exp(log_a) * dx + b * dy
    v = torch.exp(log_c) * dy
    weight = torch.exp(-0.5 * (u**2 + v**2))
    image = torch.einsum("bkhw,bkc->bhwc", weight, frame[..., COLOUR:])
    return image / (NORMALISED_EPSILON + weight.sum(dim=1))[..., None] if normalised else image


class ReferenceEncoder:
    """Batched autograd with Adam.

    Args:
        settings: what decides the splats.
        device: a torch device.
        recipe: constants of the optimiser; None takes the defaults.
    """

    name = "reference"

    def __init__(self, settings: FitSettings, *, device: str = "cpu", recipe: Recipe | None = None) -> None:
        self.settings = settings
        self._device = torch.device(device)
        self._recipe = recipe or Recipe()

    @property
    def device(self) -> str:
        """The torch device."""
        return str(self._device)

    def recipe(self) -> dict[str, Any]:
        """Every constant of the optimiser."""
        return self._recipe.as_dict()

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        """Fits a batch; see :class:`encoders.base.Encoder`.

        Args:
            images: uint8 [image, height, width, channel], channel 1 or 3.
            should_stop: polled before every optimiser step.

        Raises:
            InterruptedError: ``should_stop`` answered True.
        """
        count, height, width, channels = images.shape
        before = time.process_time()
        splats = np.empty((count, self.settings.gaussians, 5 + channels), np.float32)
        steps = np.zeros(count, np.int32)
        size = max(1, _NUMBERS_PER_BATCH // (self.settings.gaussians * height * width))
        for first in range(0, count, size):
            rows = slice(first, first + size)
            frames, steps[rows] = self._fit_batch(images[rows], should_stop)
            splats[rows] = to_splats(frames, height, width)
        return FitResult(splats=splats, steps=steps, core_seconds=time.process_time() - before)

    def _fit_batch(
        self, images: NDArray[np.uint8], should_stop: Callable[[], bool] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        settings, recipe = self.settings, self._recipe
        _, height, width, channels = images.shape
        normalised = settings.codec == NORMALISED
        target = torch.from_numpy(images.astype(np.float32)).to(self._device) / 255
        frame = torch.from_numpy(begin(images, settings, recipe.start)).to(self._device)
        mean, square = torch.zeros_like(frame), torch.zeros_like(frame)
        best, least = frame.clone(), torch.full((len(frame),), torch.inf, device=self._device)
        steps = torch.zeros(len(frame), dtype=torch.int32, device=self._device)
        active = torch.ones(len(frame), dtype=torch.bool, device=self._device)
        schedule = recipe.schedule(settings.steps)
        reach = recipe.reach(settings, height, width)
        enough = 0.0
        if settings.target_psnr is not None:
            enough = height * width * channels * 10 ** (-settings.target_psnr / 10)
        for step in range(settings.steps + 1):
            if should_stop is not None and should_stop():
                raise InterruptedError("the fit was asked to stop")
            frame.requires_grad_()
            image = render_frame(frame, height, width, normalised=normalised)
            difference = image - target
            # One-sided: clipping hides a sum below 0 where the pixel is black, or above 1 where it is white.
            hidden = ((image < 0) & (target == 0)) | ((image > 1) & (target == 1))
            error = torch.where(hidden, 0, difference).square().sum(dim=(1, 2, 3))
            (gradient,) = torch.autograd.grad(0.5 * error.sum(), frame)
            frame = frame.detach()
            better = active & (error < least) & ((error <= enough) | torch.tensor(step >= settings.steps // 2))
            best = torch.where(better[:, None, None], frame, best)
            least = torch.where(better, error, least)
            active &= error > enough
            if step == settings.steps or not bool(active.any()):
                break
            moved, mean, square = self._step(frame, gradient, mean, square, schedule[step], height, width)
            if reach >= 0 and recipe.reseeds_after(step + 1, settings.steps):
                lack = torch.where(hidden, 0, target - image.detach()).clamp(min=0)
                for number in range(len(frame)):
                    self._reseed(moved[number], mean[number], square[number], lack[number], reach)
            frame = torch.where(active[:, None, None], moved, frame)
            steps += active.int()
        return best.cpu().numpy(), steps.cpu().numpy()

    def _reseed(self, frame: Tensor, mean: Tensor, square: Tensor, lack: Tensor, reach: float) -> None:
        """Moves the dark Gaussians of one image in place; the rule of ``encoders.fit_moves.reseed``."""
        height, width, _ = lack.shape
        needed = lack.sum(dim=-1)
        for n in torch.nonzero(frame[:, COLOUR:].abs().amax(dim=1) < DARK).flatten().tolist():
            x, y = float(frame[n, X]), float(frame[n, Y])
            left, right = (int(min(max(edge, 0), width - 1)) for edge in (x - reach, x + reach))
            top, bottom = (int(min(max(edge, 0), height - 1)) for edge in (y - reach, y + reach))
            window = needed[top : bottom + 1, left : right + 1]
            worst = int(window.argmax())
            row, column = top + worst // window.shape[1], left + worst % window.shape[1]
            if needed[row, column] <= DARK:
                continue
            mean[n], square[n] = 0, 0
            frame[n, X], frame[n, Y], frame[n, B] = column + 0.5, row + 0.5, 0
            frame[n, LOG_A] = frame[n, LOG_C] = -math.log(RESEEDED_SIGMA)
            frame[n, COLOUR:] = lack[row, column].clamp(max=1)
            needed[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2] = 0

    def _step(
        self,
        frame: Tensor,
        gradient: Tensor,
        mean: Tensor,
        square: Tensor,
        rates: NDArray[np.float32],
        height: int,
        width: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of Adam in each Gaussian's own frame; the formulas of ``encoders.fit_kernel``."""
        recipe = self._recipe
        a, b, c = torch.exp(frame[..., LOG_A]), frame[..., B], torch.exp(frame[..., LOG_C])
        along_u = gradient[..., X] / a
        own = torch.stack(
            [
                along_u,
                (gradient[..., Y] - b * along_u) / c,
                gradient[..., LOG_A] + b * gradient[..., B],
                c * gradient[..., B],
                gradient[..., LOG_C],
                *gradient[..., COLOUR:].unbind(-1),
            ],
            dim=-1,
        )
        mean = recipe.beta1 * mean + (1 - recipe.beta1) * own
        square = recipe.beta2 * square + (1 - recipe.beta2) * own**2
        move = mean / (square.sqrt() + recipe.epsilon)
        down = float(rates[0]) * move[..., 1] / c
        right = (float(rates[0]) * move[..., 0] - b * down) / a
        stretch, shear, squeeze = (float(rates[1]) * move[..., i] for i in (2, 3, 4))
        log_c = (frame[..., LOG_C] - squeeze).clamp(recipe.least_log, recipe.greatest_log)
        steepest = recipe.greatest_slope * torch.exp(log_c)
        colour = frame[..., COLOUR:] - float(rates[2]) * move[..., 5:]
        if self.settings.colours == "bounded":
            colour = colour.clamp(0, 1)
        geometry = torch.stack(
            [
                (frame[..., X] - right).clamp(-recipe.margin, width + recipe.margin),
                (frame[..., Y] - down).clamp(-recipe.margin, height + recipe.margin),
                (frame[..., LOG_A] - stretch).clamp(recipe.least_log, recipe.greatest_log),
                torch.minimum(torch.maximum(b * (1 - stretch) - shear * c, -steepest), steepest),
                log_c,
            ],
            dim=-1,
        )
        return torch.cat([geometry, colour], dim=-1), mean, square
