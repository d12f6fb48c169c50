"""How different two images look, without trained networks: edges at several scales, and waves by what eyes see.

All take images in [-1, 1], [image, channel, row, column], and give float32 [image].
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

SCALES = 3
"""Sizes at which edges are compared: whole, half, quarter."""

BLOCK = 8
"""Pixels of a side of the blocks whose waves are compared."""

FINEST_WEIGHT = 0.1
"""Weight of the finest wave against the coarsest."""


def gradient_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of the steps between neighbouring pixels, over ``SCALES`` scales."""
    total = torch.zeros(image.shape[0], device=image.device)
    for scale in range(SCALES):
        for axis in (-1, -2):
            if image.shape[axis] < 2:
                continue
            step = (image.diff(dim=axis) - target.diff(dim=axis)).abs()
            total = total + step.flatten(1).mean(dim=1) * 2**scale
        if min(image.shape[-2:]) < 2:
            break
        image, target = functional.avg_pool2d(image, 2), functional.avg_pool2d(target, 2)
    return total


def cosine_waves(side: int) -> Tensor:
    """The orthonormal cosine transform of one axis: float32 [wave, place]."""
    wave, place = torch.arange(side)[:, None], torch.arange(side)[None, :]
    table = torch.cos(math.pi / side * (place + 0.5) * wave) * math.sqrt(2 / side)
    table[0] /= math.sqrt(2)
    return table


def wave_loss(image: Tensor, target: Tensor) -> Tensor:
    """Mean square error of the waves in blocks of ``BLOCK`` pixels, coarse ones counting more.

    Colours are first split into brightness and two differences, of which eyes see less; as in JPEG, but with weights
    that fall linearly with the wave number.
    """
    error = image.float() - target.float()
    if error.shape[1] == 3:
        red, green, blue = error.unbind(1)
        bright = 0.299 * red + 0.587 * green + 0.114 * blue
        error = torch.stack([bright, 0.564 * (blue - bright), 0.713 * (red - bright)], dim=1)
    side = min(BLOCK, *error.shape[-2:])
    error = functional.pad(error, (0, -error.shape[-1] % side, 0, -error.shape[-2] % side))
    blocks = error.unflatten(-2, (-1, side)).unflatten(-1, (-1, side)).transpose(-3, -2)
    waves = cosine_waves(side).to(error.device)
    number = torch.arange(side, device=error.device)
    weights = 1 - (1 - FINEST_WEIGHT) * (number[:, None] + number[None, :]) / max(1, 2 * (side - 1))
    return ((waves @ blocks @ waves.T).square() * weights).flatten(1).mean(dim=1)
