"""gsplat in plain torch, on any device: the same functions, arguments, lists and cut-offs as its CUDA kernels.

gsplat's own torch code cannot rasterise without a GPU; its intersection functions can, and the tests compare.
"""

from __future__ import annotations

import torch
from torch import Tensor


def kept(opacity: Tensor) -> Tensor:
    """Opacities [gaussian, ...] as gsplat composites: clamped, faint ones left out, none behind a covered pixel."""
    opacity = opacity.clamp(max=0.999)
    opacity = torch.where(opacity < 1 / 255, 0, opacity)
    passed = torch.cumprod(1 - opacity, dim=0)
    return torch.where(torch.cummax((passed <= 1e-4).int(), dim=0).values.bool(), 0, opacity)


class StandIn:
    """What ``encoders.autograd.gsplat_tiles`` calls; ``most_images`` is the memory of the pretended GPU."""

    def __init__(self, most_images: int | None = None) -> None:
        self.most_images = most_images
        self.batches: list[int] = []

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
        """Walks through the list of every tile of every image."""
        images, gaussians, channels = colors.shape
        if not self.batches or self.batches[-1] != images:
            self.batches.append(images)
        if self.most_images is not None and images > self.most_images:
            raise torch.OutOfMemoryError(f"{images} images")
        _, rows, columns = isect_offsets.shape
        assert means2d.shape == (images, gaussians, 2)
        assert conics.shape == (images, gaussians, 3)
        assert opacities.shape == (images, gaussians)
        assert isect_offsets.shape[0] == images
        assert rows * tile_size >= image_height
        assert columns * tile_size >= image_width
        assert tile_size**2 <= 1024
        assert all(numbers.dtype == torch.float32 for numbers in (means2d, conics, colors, opacities))
        assert all(numbers.dtype == torch.int32 for numbers in (isect_offsets, flatten_ids))
        starts = [*isect_offsets.flatten().tolist(), len(flatten_ids)]
        padded = torch.zeros(images, rows * tile_size, columns * tile_size, channels, device=means2d.device)
        covered = torch.zeros(images, rows * tile_size, columns * tile_size, 1, device=means2d.device)
        blocks = []
        for number in range(images * rows * columns):
            row, column = number // columns % rows * tile_size, number % columns * tile_size
            listed = flatten_ids[starts[number] : starts[number + 1]].long()
            at = [torch.arange(tile_size, device=means2d.device) + first + 0.5 for first in (row, column)]
            x, y = (part[listed][:, None, None] for part in means2d.reshape(-1, 2).unbind(-1))
            xx, xy, yy = (part[listed][:, None, None] for part in conics.reshape(-1, 3).unbind(-1))
            dx, dy = x - at[1], y - at[0][:, None]
            exponent = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
            opacity = opacities.flatten()[listed][:, None, None] * torch.exp(-exponent)
            opacity = kept(torch.where(exponent < 0, 0, opacity))
            before = torch.cat([torch.ones_like(opacity[:1]), torch.cumprod(1 - opacity, dim=0)[:-1]])
            blocks.append(torch.einsum("khw,kc->hwc", opacity * before, colors.reshape(-1, channels)[listed]))
            block = slice(row, row + tile_size), slice(column, column + tile_size)
            covered[number // (rows * columns)][block][..., 0] = 1 - (1 - opacity.detach()).prod(dim=0)
        whole = torch.stack(blocks).reshape(images, rows, columns, tile_size, tile_size, channels)
        image = whole.permute(0, 1, 3, 2, 4, 5).reshape_as(padded)
        return image[:, :image_height, :image_width], covered[:, :image_height, :image_width]

    def isect_tiles(
        self, means2d: Tensor, radii: Tensor, depths: Tensor, tile_size: int, tile_width: int, tile_height: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Keys (image, tile, bits of the depth) in order, and the Gaussian of each."""
        images, gaussians, _ = means2d.shape
        assert radii.dtype == torch.int32
        assert depths.dtype == torch.float32
        assert means2d.is_contiguous()
        size = torch.tensor([tile_width, tile_height], device=means2d.device)
        first = torch.minimum(torch.floor((means2d - radii) / tile_size).long().clamp(min=0), size)
        last = torch.minimum(torch.ceil((means2d + radii) / tile_size).long().clamp(min=0), size)
        counts = (last - first).prod(dim=-1) * (radii > 0).all(dim=-1)
        keys, entries = [], []
        bits = (tile_width * tile_height).bit_length()
        for index in range(images * gaussians):
            image, gaussian = index // gaussians, index % gaussians
            if not counts[image, gaussian]:
                continue
            depth = int(depths[image, gaussian].contiguous().view(torch.int32))
            for row in range(int(first[image, gaussian, 1]), int(last[image, gaussian, 1])):
                for column in range(int(first[image, gaussian, 0]), int(last[image, gaussian, 0])):
                    keys.append((image << (32 + bits)) | ((row * tile_width + column) << 32) | depth)
                    entries.append(index)
        ordered, places = torch.sort(torch.tensor(keys, dtype=torch.int64, device=means2d.device), stable=True)
        return counts.int(), ordered, torch.tensor(entries, dtype=torch.int32, device=means2d.device)[places]

    def isect_offset_encode(self, isect_ids: Tensor, n_images: int, tile_width: int, tile_height: int) -> Tensor:
        """How many entries come before each tile's first."""
        bits = (tile_width * tile_height).bit_length()
        image, tile = isect_ids >> (32 + bits), (isect_ids >> 32) & ((1 << bits) - 1)
        counts = torch.bincount(image * tile_width * tile_height + tile, minlength=n_images * tile_width * tile_height)
        return (counts.cumsum(0) - counts).int().reshape(n_images, tile_height, tile_width)
