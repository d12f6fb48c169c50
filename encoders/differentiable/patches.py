"""Draws the splats of patches with gradients, compiled (``patch_sums`` beside this): no table of weights in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from encoders.compiled import on_threads, parts_of
from encoders.differentiable.patch_sums import draw_patches, draw_patches_back
from encoders.vector import LANES


@dataclass(frozen=True)
class PatchPixels:
    """Where the pixels of an image lie in its patches.

    Attributes:
        x: float32 [row, column, place], from the patch's centre, in patches.
        y: the same.
        fading: float32 [row, column, 9, place], logarithm of how the splats of the nine patches around fade; None
            where a pixel sees those of its own patch only.
        pixel: int64 [height, width], (row * columns + column) * places + place.
    """

    x: Tensor
    y: Tensor
    fading: Tensor | None
    pixel: Tensor


def blend_patches(
    mean: Tensor,
    precision: Tensor,
    colour: Tensor,
    depth: Tensor,
    pixels: PatchPixels,
    *,
    falling: bool,
    level: float | None = None,
    epsilon: float = 0.0,
    workers: int | None = None,
) -> Tensor:
    """Blends by depth; see ``encoders.differentiable.patch_sums`` for the formula.

    Args:
        mean: float32 on the CPU, [image, row, column, splat, 2] from the patch's centre, in patches.
        precision: [..., 3], entries xx, xy, yy of a positive definite matrix.
        colour: [..., channel], 1 or 3 channels.
        depth: [...].
        pixels: of the image to draw.
        falling: whether a splat's colour falls off with distance or is shown wherever the splat wins.
        level: taken from the logarithms of the weights; None for the greatest of each pixel.
        epsilon: added to the sum of weights.
        workers: threads; None takes torch's. The result does not depend on it.

    Returns:
        float32 [image, channel, height, width].
    """
    numbers = [value.contiguous() for value in (mean, precision, colour, depth)]
    threads = max(1, workers or torch.get_num_threads())
    return _Blending.apply(*numbers, pixels, falling, level, epsilon, threads)


def _pad(value: Tensor) -> NDArray[np.float32]:
    """Places padded to full vectors, flat."""
    wide = torch.nn.functional.pad(value.detach().float(), (0, -value.shape[-1] % LANES))
    return wide.contiguous().flatten().numpy()


class _Blending(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        mean: Tensor,
        precision: Tensor,
        colour: Tensor,
        depth: Tensor,
        pixels: PatchPixels,
        falling: bool,
        level: float | None,
        epsilon: float,
        threads: int,
    ) -> Tensor:
        batch, rows, columns, splats, channels = colour.shape
        height, width = pixels.pixel.shape
        places = pixels.x.shape[-1]
        owners = np.full((rows * columns, places + -places % LANES), -1, np.int64)
        patch, place = np.divmod(pixels.pixel.numpy().ravel(), places)
        owners[patch, place] = np.arange(height * width)
        fading = np.zeros(0, np.float32) if pixels.fading is None else _pad(pixels.fading)
        places_of = _pad(pixels.x), _pad(pixels.y), fading, owners
        images = torch.empty(batch, channels, height, width)
        peaks, shares = torch.empty(batch, owners.size), torch.empty(batch, owners.size)
        grid = (rows, columns, splats, 0 if pixels.fading is None else 1)
        given = mean, precision, colour, depth
        flat = [value.detach().view(batch, -1).numpy() for value in given]
        filled = images.view(batch, channels, -1).numpy(), peaks.numpy(), shares.numpy()

        def part(part: slice) -> None:
            drawn, highest, inverse = (array[part] for array in filled)
            draw_patches(
                *(value[part].ravel() for value in flat),
                *places_of,
                drawn,
                highest.ravel(),
                inverse.ravel(),
                grid,
                falling,
                np.float32(np.nan if level is None else level),
                np.float32(epsilon),
            )

        on_threads(part, parts_of(batch, threads), threads)
        ctx.save_for_backward(*given, images, peaks, shares)
        ctx.others = places_of, grid, falling, threads
        return images

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *pulls: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, images, peaks, shares = ctx.saved_tensors
        places_of, grid, falling, threads = ctx.others
        batch, channels = images.shape[:2]
        gradients = [torch.zeros_like(value) for value in given]
        flat = [value.view(batch, -1).numpy() for value in given]
        filled = [value.view(batch, -1).numpy() for value in gradients]
        drawn = images.view(batch, channels, -1).numpy()
        pulled = pulls[0].to(torch.float32).contiguous().view(batch, channels, -1).numpy()

        def part(part: slice) -> None:
            draw_patches_back(
                *(value[part].ravel() for value in flat),
                *places_of,
                drawn[part],
                peaks.numpy()[part].ravel(),
                shares.numpy()[part].ravel(),
                grid,
                falling,
                pulled[part],
                *(value[part].ravel() for value in filled),
            )

        on_threads(part, parts_of(batch, threads), threads)
        return (*gradients, None, None, None, None, None)
