"""An image filtered down a pyramid and put together again, by kernels that differ from pixel to pixel."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

KERNEL = 5
"""Pixels of a side of every kernel."""

FILTER_NUMBERS = KERNEL * KERNEL
SHAPE = slice(FILTER_NUMBERS, FILTER_NUMBERS + 3)
GATE = FILTER_NUMBERS + 3
COLOUR = FILTER_NUMBERS + 4
"""Where the numbers of a pixel lie: kernel, shape of the kernel of the way up, gate, and a colour of its own."""

SHARPEST = 4.0
"""Largest inverse width of a kernel of the way up, per low-resolution pixel."""

_EPSILON = 1e-6


def filtered(image: Tensor, numbers: Tensor) -> Tensor:
    """Every pixel becomes a weighted sum of the 5x5 pixels around it; beyond the edge is zero.

    Args:
        image: float32 [batch, channel, row, column].
        numbers: float32 [batch, number, row, column]; tanh of the first 25 are the weights, alike for all colours.

    Returns:
        As ``image``; weights may be negative and need not sum to 1.
    """
    weights = numbers[:, :FILTER_NUMBERS].tanh()
    return _weighted(weights, functional.pad(image, [KERNEL // 2] * 4), torch.zeros_like(image), column_axis=3)


def _weighted(weights: Tensor, padded: Tensor, total: Tensor, *, column_axis: int) -> Tensor:
    """Adds up the 25 images that a 5x5 window sees; faster than to unfold them into one.

    Args:
        weights: [batch, 25, row, ...], row by row of the window.
        padded: [batch, channel, row, ...], two pixels larger on each side.
        total: what is added to.
        column_axis: of ``padded``; rows are its third.
    """
    rows, columns = padded.shape[2] - KERNEL + 1, padded.shape[column_axis] - KERNEL + 1
    # Divided at once: taken one by one, each would have a gradient of the size of all.
    for number, weight in enumerate(weights.split(1, dim=1)):
        y, x = divmod(number, KERNEL)
        total = total + weight * padded.narrow(2, y, rows).narrow(column_axis, x, columns)
    return total


def _edges_repeated(image: Tensor, axis: int) -> Tensor:
    """The image with its first and last pixels of an axis repeated as far as a window reaches beyond them.

    As ``functional.pad`` with ``replicate``, whose gradient torch.compile cannot lay out (torch 2.13).
    """
    reach = KERNEL // 2
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, -1, 1)
    return torch.cat([*[first] * reach, image, *[last] * reach], dim=axis)


def enlarged(image: Tensor, numbers: Tensor, *, published: bool) -> Tensor:
    """Doubles an image: every new pixel is a mean of the 5x5 pixels around its place under a Gaussian of its own.

    Args:
        image: float32 [batch, channel, row, column].
        numbers: float32 [batch, number, 2 * row, 2 * column]; three of them are the Gaussian's two inverse widths and
            its correlation.
        published: take the product of both inverse widths where the square of the vertical one is meant, which makes
            a fifth of all forms indefinite.

    Returns:
        float32 [batch, channel, 2 * row, 2 * column].
    """
    raw = numbers[:, SHAPE]
    wide, high = SHARPEST * raw[:, 0].sigmoid(), SHARPEST * raw[:, 1].sigmoid()
    across = raw[:, 2].tanh() * wide * high
    vertical = wide * high if published else high.square()
    # Pixels in pairs, [batch, row, pair, column, pair]: both of a pair see the same pixels of the small image, from
    # a quarter of a pixel to either side of its middle.
    rows, columns = image.shape[-2:]
    wide2, vertical, across = (
        part.unflatten(-2, (rows, 2)).unflatten(-1, (columns, 2)) for part in (wide.square(), vertical, across)
    )
    offsets = torch.arange(KERNEL, device=image.device, dtype=torch.float32) - KERNEL // 2
    sides = torch.tensor([0.25, -0.25], device=image.device)
    dy = (offsets[:, None, None, None, None, None] + sides[None, None, None, :, None, None]).expand(
        -1, KERNEL, 1, 2, 1, 1
    )
    dx = (offsets[None, :, None, None, None, None] + sides[None, None, None, None, None, :]).expand(
        KERNEL, -1, 1, 1, 1, 2
    )
    dx, dy = dx.flatten(0, 1), dy.flatten(0, 1)
    # [batch, window, row, pair, column, pair]
    distance = (
        wide2.unsqueeze(1) * dx.square() + vertical.unsqueeze(1) * dy.square() + 2 * across.unsqueeze(1) * dx * dy
    )
    if published:
        weights = torch.exp(-2 * distance)
        weights = weights / (weights.sum(dim=1, keepdim=True) + _EPSILON)
    else:
        weights = (-2 * distance).softmax(dim=1)
    padded = _edges_repeated(_edges_repeated(image, 2), 3)[..., None, :, None]
    total = _weighted(weights, padded, image.new_zeros(*image.shape[:2], rows, 2, columns, 2), column_axis=4)
    return total.flatten(-2).flatten(-3, -2)


def pyramid(image: Tensor, levels: list[Tensor], *, published: bool) -> Tensor:
    """Filters and halves the image once per level, then enlarges it again, with what each level showed mixed in.

    Args:
        image: float32 [batch, channel, row, column], the noisy image.
        levels: numbers of each pixel, finest first; each half as large as the one before.
        published: see :func:`enlarged`.

    Returns:
        As ``image``.
    """
    shown = []
    for numbers in levels:
        image = filtered(image, numbers)
        shown.append(image)
        image = functional.avg_pool2d(image, 2)
    for numbers, kept in zip(reversed(levels), reversed(shown), strict=True):
        raised = enlarged(image, numbers, published=published)
        image = raised + numbers[:, GATE : GATE + 1].sigmoid() * (kept - raised)
    return image
