"""The optimiser in torch: Adam in each Gaussian's own frame, on whatever renders pixel-frame parameters.

The formulas are those of ``encoders.cpu.moves``, where the derivation stands; here they serve every codec and device.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.splats import OVER, layout_of
from encoders.base import FitResult, FitSettings, FitStoppedError
from encoders.cpu.moves import DARK, RESEEDED_SIGMA
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y, to_splats
from encoders.recipe import OverRecipe, Recipe
from encoders.start.begin import begin

Render = Callable[[Tensor], Tensor]
"""Pixel-frame parameters [image, gaussian, parameter] to unclipped images [image, height, width, channel]."""


def recipe_for(settings: FitSettings) -> Recipe:
    """The constants that a codec is fitted with."""
    return OverRecipe() if settings.codec == OVER else Recipe()


def first_frames(images: NDArray[np.uint8], settings: FitSettings, recipe: Recipe) -> NDArray[np.float32]:
    """Where a fit begins, with the opacity in codec ``over/1``.

    Args:
        images: uint8 [image, height, width, channel].
        settings: what decides the splats.
        recipe: constants of the optimiser; an ``OverRecipe`` for ``over/1``.

    Returns:
        float32 [image, gaussian, 5 + channel], or one more with opacity.
    """
    frames = begin(images, settings, recipe.start)
    if not isinstance(recipe, OverRecipe):
        return frames
    opacity = np.full((*frames.shape[:2], 1), recipe.first_alpha, np.float32)
    return np.concatenate([frames, opacity], axis=2)


def descend(
    images: NDArray[np.uint8],
    settings: FitSettings,
    recipe: Recipe,
    render: Render,
    device: torch.device,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Fits one batch, all of it in the device's memory.

    Args:
        images: uint8 [image, height, width, channel].
        settings: what decides the splats.
        recipe: constants of the optimiser.
        render: differentiable, on ``device``.
        device: where the numbers live.
        should_stop: polled before every optimiser step.

    Returns:
        The best iterates float32 [image, gaussian, parameter], and optimiser steps taken int32 [image].

    Raises:
        InterruptedError: ``should_stop`` answered True.
    """
    _, height, width, channels = images.shape
    target = torch.from_numpy(images.astype(np.float32)).to(device) / 255
    frame = torch.from_numpy(first_frames(images, settings, recipe)).to(device)
    mean, square = torch.zeros_like(frame), torch.zeros_like(frame)
    best, least = frame.clone(), torch.full((len(frame),), torch.inf, device=device)
    steps = torch.zeros(len(frame), dtype=torch.int32, device=device)
    active = torch.ones(len(frame), dtype=torch.bool, device=device)
    schedule = recipe.schedule(settings.steps, settings.rounds)
    reach = recipe.reach(settings, height, width)
    enough = 0.0
    if settings.target_psnr is not None:
        enough = height * width * channels * 10 ** (-settings.target_psnr / 10)
    for step in range(settings.most_steps + 1):
        if should_stop is not None and should_stop():
            raise InterruptedError("the fit was asked to stop")
        frame.requires_grad_()
        image = render(frame)
        # One-sided: clipping hides a sum below 0 where the pixel is black, or above 1 where it is white.
        hidden = ((image < 0) & (target == 0)) | ((image > 1) & (target == 1))
        error = torch.where(hidden, 0, image - target).square().sum(dim=(1, 2, 3))
        (gradient,) = torch.autograd.grad(0.5 * error.sum(), frame)
        frame = frame.detach()
        better = active & (error < least)
        if step < settings.steps // 2:
            better &= error <= enough
        best = torch.where(better[:, None, None], frame, best)
        least = torch.where(better, error, least)
        active &= error > enough
        if step == settings.most_steps or not bool(active.any()):
            break
        moved, mean, square = _move(frame, gradient, mean, square, schedule[step], settings, recipe, height, width)
        if reach >= 0 and recipe.reseeds_after(step + 1, settings.steps):
            lack = torch.where(hidden, 0, target - image.detach()).clamp(min=0)
            for number in range(len(frame)):
                _reseed(moved[number], mean[number], square[number], lack[number], reach)
        frame = torch.where(active[:, None, None], moved, frame)
        steps += active.int()
    return best.cpu().numpy(), steps.cpu().numpy()


def fit_batches(
    images: NDArray[np.uint8],
    settings: FitSettings,
    batch_size: Callable[[], int],
    fit_batch: Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.int32]] | None],
) -> FitResult:
    """Fits batch after batch, and turns their frames into splats.

    Args:
        images: uint8 [image, height, width, channel].
        settings: what decides the splats.
        batch_size: how many images the next batch takes at most.
        fit_batch: what :func:`descend` answers for a batch; None: the images are to be tried again in a smaller one.

    Raises:
        FitStoppedError: ``fit_batch`` was asked to stop; the batches before are kept.
    """
    count, height, width, channels = images.shape
    before = time.process_time()
    splats = np.zeros((count, settings.gaussians, layout_of(settings.codec, channels).width), np.float32)
    steps = np.zeros(count, np.int32)

    def result() -> FitResult:
        return FitResult(splats=splats, steps=steps, core_seconds=time.process_time() - before)

    first = 0
    while first < count:
        rows = slice(first, first + batch_size())
        try:
            fitted = fit_batch(images[rows])
        except InterruptedError:
            raise FitStoppedError(result(), np.arange(count) < first) from None
        if fitted is not None:
            frames, steps[rows] = fitted
            splats[rows] = to_splats(frames, height, width, alpha=settings.codec == OVER)
            first = rows.stop
    return result()


def _reseed(frame: Tensor, mean: Tensor, square: Tensor, lack: Tensor, reach: float) -> None:
    """Moves the dark Gaussians of one image in place; the rule of ``encoders.cpu.moves.reseed``."""
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


def _move(
    frame: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    rates: NDArray[np.float32],
    settings: FitSettings,
    recipe: Recipe,
    height: int,
    width: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam in each Gaussian's own frame."""
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
    with_alpha = isinstance(recipe, OverRecipe)
    colours = slice(COLOUR, -1 if with_alpha else None)
    colour = frame[..., colours] - float(rates[2]) * move[..., colours]
    if settings.colours == "bounded":
        colour = colour.clamp(0, 1)
    parts = [geometry, colour]
    if with_alpha:
        # The schedule's third column is that of the colours.
        rate = float(rates[2]) * recipe.rate_alpha / recipe.rate_colour
        parts.append((frame[..., -1:] - rate * move[..., -1:]).clamp(0, recipe.greatest_alpha))
    return torch.cat(parts, dim=-1), mean, square
