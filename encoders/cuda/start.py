"""Where Gaussians begin, on the device: starts ``grid`` and ``transport`` of ``encoders.start``, in batched torch.

The same mathematics as the compiled code on the CPU, whose comments explain it; matrix products take the place of
its loops. Images go in batches of a size that follows from their shape alone, the last one filled up, so that the
rounding of a matrix product does not depend on how many images there are.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from data_schemas.splats import ADDITIVE
from encoders.base import FitSettings
from encoders.frame import COLOUR, LOG_A, LOG_C, X, Y
from encoders.start.tables import StartRecipe, anchors, transport_levels

_NUMBERS = 1 << 25
"""Numbers in the largest intermediate result: 128 MiB."""

_LEAST_GIBBS = 1e-18
_GREATEST_SPREAD = 1e28

_PRECISION = threading.Lock()


def starts_on_device(settings: FitSettings) -> bool:
    """Whether the start of these settings is computed here; ``adaptive`` is left to the CPU."""
    return settings.start != "adaptive"


@contextmanager
def _full_precision() -> Iterator[None]:
    """Matrix products of float32 in float32: shorter mantissas would move the Gaussians."""
    with _PRECISION:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)


def begin_on_device(images: Tensor, settings: FitSettings, recipe: StartRecipe) -> Tensor:
    """Pixel-frame parameters of K Gaussians for every image; see ``encoders.start.begin.begin``.

    Args:
        images: uint8 [image, height, width, channel] on any device.
        settings: K, start and codec; the start must be ``grid`` or ``transport``.
        recipe: constants of the starts.

    Returns:
        float32 [image, gaussian, 5 + channel] on the same device.
    """
    count, height, _, channels = images.shape
    gaussians = settings.gaussians
    size = 1
    while size < 1024 and 2 * size * gaussians * max(height, min(gaussians, 1024), 16 * channels) <= _NUMBERS:
        size *= 2
    frames = torch.empty((count, gaussians, COLOUR + channels), device=images.device)
    with _full_precision():
        for first in range(0, count, size):
            part = images[first : first + size]
            filled = torch.cat([part, part[-1:].expand(size - len(part), -1, -1, -1)])
            frames[first : first + size] = _begin(filled, settings, recipe)[: len(part)]
    return frames


def _begin(images: Tensor, settings: FitSettings, recipe: StartRecipe) -> Tensor:
    count, height, width, channels = images.shape
    gaussians = settings.gaussians
    if settings.start == "transport":
        density = _saliency(images, recipe)
        positions = _transport(density, gaussians, transport_levels(recipe.epsilons, gaussians), recipe.iterations)
    else:
        positions = torch.from_numpy(anchors(gaussians, height, width)).to(images.device).expand(count, -1, -1)
    places = (positions + 1) * torch.tensor([0.5 * width, 0.5 * height], device=images.device)
    distances = _spacings(places)
    brightness = recipe.brightness if settings.codec == ADDITIVE else 1.0
    frames = torch.zeros((count, gaussians, COLOUR + channels), device=images.device)
    alone = 0.5 * math.sqrt(height * width / gaussians)
    sigma = torch.where(torch.isfinite(distances), recipe.spread * distances, alone)
    log_factor = -torch.log(sigma.clamp(0.3, max(0.3, 0.5 * max(height, width))))
    frames[..., X], frames[..., Y] = places[..., 0], places[..., 1]
    frames[..., LOG_A] = frames[..., LOG_C] = log_factor
    frames[..., COLOUR:] = brightness * _local_colours(images, places)
    return frames


def _saliency(images: Tensor, recipe: StartRecipe) -> Tensor:
    """How many Gaussians a pixel deserves, summing to 1: float32 [image, height, width]."""
    _, height, width, channels = images.shape
    values = images.to(torch.float64)
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    dy = values[:, (rows + 1).clamp(max=height - 1)] - values[:, (rows - 1).clamp(min=0)]
    dx = values[:, :, (columns + 1).clamp(max=width - 1)] - values[:, :, (columns - 1).clamp(min=0)]
    slope = (dx**2 + dy**2).sum(dim=-1)
    deserved = recipe.ink * values.sum(dim=-1) / channels + recipe.edge * torch.sqrt(slope / channels)
    mass = deserved.sum(dim=(1, 2), keepdim=True)
    scale = (1 - recipe.floor) / mass.clamp(min=0.01 * height * width)
    return (scale * deserved + (1 - scale * mass) / (height * width)).to(torch.float32)


def _gibbs(gaussians: int, height: int, width: int, epsilon: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Gibbs kernels of one level: float32 [width, gaussian] and [height, gaussian]."""
    points = torch.from_numpy(anchors(gaussians, height, width)).to(device, torch.float64)

    def along(size: int, axis: int) -> Tensor:
        centres = (2 * torch.arange(size, device=device, dtype=torch.float64) + 1) / size - 1
        squares = (centres[:, None] - points[:, axis]) ** 2
        return torch.exp(-squares / epsilon).clamp(min=_LEAST_GIBBS).to(torch.float32)

    return along(width, 0), along(height, 1)


class _Level:
    """Products with the Gibbs kernel of one level, rows of the image in parts of bounded size."""

    def __init__(self, density: Tensor, gaussians: int, epsilon: float) -> None:
        images, height, width = density.shape
        self.by_column, self.by_row = _gibbs(gaussians, height, width, epsilon, density.device)
        step = max(1, _NUMBERS // (images * gaussians))
        self.parts = [slice(first, first + step) for first in range(0, height, step)]

    def spread(self, scales: Tensor) -> Tensor:
        """Sum over anchors: [image, gaussian] to [image, height, width]."""
        parts = [(scales[:, None, :] * self.by_row[rows]) @ self.by_column.T for rows in self.parts]
        return torch.cat(parts, dim=1)

    def gather(self, values: Tensor) -> Tensor:
        """Sum over pixels: [image, height, width] to [image, gaussian]."""
        parts = [((values[:, rows] @ self.by_column) * self.by_row[rows]).sum(dim=1) for rows in self.parts]
        return torch.stack(parts).sum(dim=0)


def _transport(density: Tensor, gaussians: int, epsilons: tuple[float, ...], iterations: int) -> Tensor:
    """Entropic optimal transport from the anchors to the density: float32 [image, gaussian, 2] in [-1, 1]."""
    images, height, width = density.shape
    device = density.device
    scales = torch.ones((images, gaussians), device=device)
    kept = torch.zeros_like(scales)
    level_of = torch.zeros(images, dtype=torch.int64, device=device)
    going = torch.ones(images, dtype=torch.bool, device=device)
    for number, epsilon in enumerate(epsilons):
        level = _Level(density, gaussians, epsilon)
        for _ in range(iterations):
            scales = (1.0 / gaussians) / level.gather(density / level.spread(scales))
        low, high = scales.amin(dim=1), scales.amax(dim=1)
        going &= (low > 0) & torch.isfinite(high) & (high < low * _GREATEST_SPREAD)
        kept = torch.where(going[:, None], scales, kept)
        level_of[going] = number
        if number + 1 < len(epsilons):
            middle = (torch.sqrt(low) * torch.sqrt(high))[:, None]
            scales = (scales / middle) ** (epsilon / epsilons[number + 1])
    xs = (2 * torch.arange(width, device=device, dtype=torch.float32) + 1) / width - 1
    ys = ((2 * torch.arange(height, device=device, dtype=torch.float32) + 1) / height - 1)[:, None]
    result = torch.empty((images, gaussians, 2), device=device)
    for number in sorted(set(level_of.tolist())):
        level = _Level(density, gaussians, epsilons[number])
        values = density / level.spread(kept)
        mass = level.gather(values)
        found = torch.stack([level.gather(values * xs) / mass, level.gather(values * ys) / mass], dim=-1)
        result = torch.where((level_of == number)[:, None, None], found, result)
    return result


def _spacings(places: Tensor) -> Tensor:
    """Mean distance to the three nearest others, infinite where there are fewer: [image, gaussian]."""
    images, gaussians, _ = places.shape
    step = max(1, _NUMBERS // (images * gaussians))
    found = []
    for first in range(0, gaussians, step):
        some = places[:, first : first + step]
        squares = (some[:, :, None, 0] - places[:, None, :, 0]) ** 2 + (
            some[:, :, None, 1] - places[:, None, :, 1]
        ) ** 2
        own = torch.arange(some.shape[1], device=places.device)
        squares[:, own, first + own] = torch.inf
        total = torch.zeros(some.shape[:2], device=places.device)
        for _ in range(3):
            least, where = squares.min(dim=2)
            total += torch.sqrt(least)
            squares.scatter_(2, where[..., None], torch.inf)
        found.append(total / 3)
    return torch.cat(found, dim=1)


def _local_colours(images: Tensor, places: Tensor) -> Tensor:
    """Bilinear sample of the 3x3 mean of the image at each place: [image, gaussian, channel] in [0, 1]."""
    count, height, width, _ = images.shape
    device = images.device
    corner = torch.floor(places - 0.5)
    share = places - 0.5 - corner
    ones = torch.ones_like(share)
    # A 3x3 mean sampled bilinearly is a 4x4 window with these separable weights.
    weights = torch.stack([1 - share, ones, ones, share], dim=-1)
    offsets = torch.arange(-1, 3, device=device)
    columns = (corner[..., 0, None].to(torch.int64) + offsets).clamp(0, width - 1)
    rows = (corner[..., 1, None].to(torch.int64) + offsets).clamp(0, height - 1)
    picture = torch.arange(count, device=device)[:, None, None, None]
    window = images[picture, rows[..., :, None], columns[..., None, :]].to(torch.float32)
    weight = weights[..., 1, :, None] * weights[..., 0, None, :]
    return (window * weight[..., None]).sum(dim=(2, 3)) * (1.0 / (9 * 255))
