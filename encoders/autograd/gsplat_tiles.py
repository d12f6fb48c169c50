"""From pixel-frame parameters to gsplat's rasteriser: own conics, no camera, many images in one launch.

gsplat composites the Gaussians that a tile's list names, in the order of the list. The order of codec ``over/1`` is the
index, so an image of at most 32 pixels is one tile whose list is 0, 1, 2, ...: nothing to intersect, nothing to sort.
Larger images have tiles of 16 pixels, and lists sorted by (image, tile, index): the index stands in for the depth.

gsplat approximates the codec: opacities are clamped at 0.999, those below 1/255 left out, and a pixel is left before
less than 1/10,000 would pass.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor

from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y

ONE_TILE = 32
"""Longest side of an image that is one tile: a block has at most 1,024 threads, one for each pixel."""

TILE = 16
"""Side of a tile of larger images."""

LEAST_OPACITY = 1 / 255
"""What gsplat leaves out at a pixel."""

MOST_ENTRIES = 2**31 - 1
"""gsplat counts Gaussians and entries of lists in 32-bit integers."""


class Rasteriser(Protocol):
    """The functions of gsplat that are used here, with the names that it gives to their parameters."""

    def rasterize_to_pixels(
        self,
        means2d: Tensor,
        conics: Tensor,
        colors: Tensor,
        opacities: Tensor,
        image_width: int,
        image_height: int,
        tile_size: int,
        isect_offsets: Tensor,
        flatten_ids: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Colours [image, height, width, channel] and covered shares [image, height, width, 1]."""
        ...

    def isect_tiles(
        self, means2d: Tensor, radii: Tensor, depths: Tensor, tile_size: int, tile_width: int, tile_height: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Tiles of each Gaussian, sorted keys int64 [entry], and Gaussians int32 [entry] in the order of the keys."""
        ...

    def isect_offset_encode(self, isect_ids: Tensor, n_images: int, tile_width: int, tile_height: int) -> Tensor:
        """First entry of each tile: int32 [image, tile row, tile column]."""
        ...


def tile_grid(height: int, width: int) -> tuple[int, int, int]:
    """Side of a tile in pixels, tile rows, tile columns."""
    if max(height, width) <= ONE_TILE:
        return ONE_TILE, 1, 1
    return TILE, -(-height // TILE), -(-width // TILE)


def most_images(gaussians: int, height: int, width: int) -> int:
    """Images of one launch at most, whatever the memory: no count may leave 32 bits, were every tile to list all."""
    _, rows, columns = tile_grid(height, width)
    by_entries = MOST_ENTRIES // (gaussians * rows * columns)
    # The key of an entry holds the numbers of image and tile in 32 bits.
    by_key = 2 ** (32 - (rows * columns).bit_length()) - 1
    return max(1, min(by_entries, by_key))


def conics(frame: Tensor) -> Tensor:
    """The inverse covariances S^-1 = L^T L in pixels: xx, xy, yy.

    Args:
        frame: float32 [image, gaussian, parameter] (encoders.frame).

    Returns:
        [image, gaussian, 3].
    """
    a, b, c = torch.exp(frame[..., LOG_A]), frame[..., B], torch.exp(frame[..., LOG_C])
    return torch.stack([a * a, a * b, b * b + c * c], dim=-1)


def radii(frame: Tensor) -> Tensor:
    """How far each Gaussian reaches along x and y until its opacity is below what gsplat leaves out, in whole pixels.

    Args:
        frame: float32 [image, gaussian, parameter], opacity last.

    Returns:
        int32 [image, gaussian, 2]; 0 where it is left out everywhere.
    """
    a, c = torch.exp(frame[..., LOG_A]), torch.exp(frame[..., LOG_C])
    sigmas = torch.stack([torch.hypot(torch.ones_like(a), frame[..., B] / c) / a, 1 / c], dim=-1)
    reach = torch.sqrt(2 * torch.log((frame[..., -1] / LEAST_OPACITY).clamp(min=1)))
    return torch.ceil(reach[..., None] * sigmas).to(torch.int32)


class TiledRender:
    """Renders a batch of images with gsplat.

    Args:
        rasteriser: gsplat.
        height: rows of the images.
        width: columns of the images.
    """

    def __init__(self, rasteriser: Rasteriser, height: int, width: int) -> None:
        self._rasteriser = rasteriser
        self._height, self._width = height, width
        self._tile, self._rows, self._columns = tile_grid(height, width)
        self._whole: tuple[Tensor, Tensor] | None = None

    def __call__(self, frame: Tensor) -> Tensor:
        """Images from pixel-frame parameters.

        Args:
            frame: float32 [image, gaussian, 5 + channel + 1], opacity last.

        Returns:
            float32 [image, height, width, channel], differentiable.
        """
        offsets, entries = self._lists(frame.detach())
        image, _ = self._rasteriser.rasterize_to_pixels(
            means2d=frame[..., X : Y + 1],
            conics=conics(frame),
            colors=frame[..., COLOUR:-1],
            opacities=frame[..., -1],
            image_width=self._width,
            image_height=self._height,
            tile_size=self._tile,
            isect_offsets=offsets,
            flatten_ids=entries,
        )
        return image

    def _lists(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        """First entry of each tile int32 [image, tile row, tile column], and the Gaussians int32 [entry]."""
        images, gaussians, _ = frame.shape
        if (self._rows, self._columns) == (1, 1):
            if self._whole is None or self._whole[0].shape[0] != images or len(self._whole[1]) != images * gaussians:
                entries = torch.arange(images * gaussians, dtype=torch.int32, device=frame.device)
                self._whole = entries[::gaussians].reshape(images, 1, 1).contiguous(), entries
            return self._whole
        # Depths are compared as bits: whole floats from 0 keep the order of the index (to 2^24, K is below that).
        depths = torch.arange(gaussians, dtype=torch.float32, device=frame.device).expand(images, gaussians)
        _, keys, entries = self._rasteriser.isect_tiles(
            frame[..., X : Y + 1].contiguous(), radii(frame), depths, self._tile, self._columns, self._rows
        )
        return self._rasteriser.isect_offset_encode(keys, images, self._columns, self._rows), entries


def bytes_per_image(gaussians: int, height: int, width: int, channels: int) -> int:
    """A generous estimate of the memory that a fit takes on the device for each image."""
    tile, rows, columns = tile_grid(height, width)
    parameters = gaussians * (COLOUR + channels + 1) * 4
    pixels = height * width * (channels + 2) * 4
    # An entry has a key and a number, twice each while they are sorted. A Gaussian at the density of K for the area
    # reaches about 7 times its share of it.
    side = math.sqrt(7 * height * width / gaussians) / tile + 1
    entries = 0 if rows * columns == 1 else gaussians * min(side * side, rows * columns) * 24
    return int(30 * parameters + 10 * pixels + entries + 4 * gaussians)
