"""Images of splats and the gradient of every column, compiled: the sums of ``encoders.cpu.sums`` for stored columns.

Nothing is kept between the two passes but the splats, and for ``normalised/1`` the image and the factors that it was
divided by: to compute weights again, in the caches of the CPU, is faster than to write those of a batch to memory and
to read them back.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.cpu.boxes import place_boxes
from encoders.cpu.moments import MOMENTS, backward
from encoders.cpu.sums import forward
from encoders.differentiable.columns import TABLE, take_columns, to_columns
from encoders.vector import LANES, entry, flush_denormals, load, restore_denormals, splat, store


@compiled
def _copy_row(source, at, target, to, width):
    """Copies consecutive numbers; the last eight may overlap those before."""
    if width < LANES:
        for column in range(width):
            target[to + column] = entry(source, at + column)
        return
    for column in range(0, width - LANES, LANES):
        store(target, to + column, load(source, at + column))
    store(target, to + width - LANES, load(source, at + width - LANES))


@compiled
def _divide(planes, height, stride, width, channels, epsilon):
    """Replaces sums by quotients, and the sum of weights by the factor 1 / (epsilon + sum of weights)."""
    size = height * stride
    for row in range(height):
        for column in range(0, width, LANES):
            at = row * stride + column
            scale = splat(1.0) / (load(planes, at + channels * size) + splat(epsilon))
            store(planes, at + channels * size, scale)
            for channel in range(channels):
                store(planes, at + channel * size, load(planes, at + channel * size) * scale)


@compiled
def draw_images(splats, images, scales, sizes, cut, epsilon, tag):
    """Draws images.

    Args:
        splats: float32, flat [image, gaussian, 5 + channel]: sigma_x, sigma_y, rho, colours, x, y.
        images: float32, flat [image, channel, row, column], receives the unclipped sums.
        scales: float32, flat [image, row, column], receives 1 / (epsilon + sum of weights); empty but for
            ``normalised/1``.
        sizes: images, K, channels, rows and columns.
        cut: half-width of the summed boxes in marginal standard deviations.
        epsilon: floor of the weight sum.
        tag: a tuple as long as there are planes (channels, and one more when normalised): a compile-time constant.

    Returns:
        The first image and Gaussian that are not finite, or -1 and -1.
    """
    batch, count, channels, height, width = sizes
    number, parameters = len(tag), 5 + channels
    padded = (count + LANES - 1) // LANES * LANES
    stride = width + LANES
    theta, derived = np.empty(parameters * padded, np.float32), np.empty(TABLE * padded, np.float32)
    planes = np.empty(number * height * stride + LANES, np.float32)
    nothing = np.empty(0, np.float32)
    layout = np.empty(2 * (height + LANES), np.float32)
    before = flush_denormals()
    for image in range(batch):
        at = image * count * parameters
        bad = take_columns(splats, at, count, parameters, theta, derived, padded, height, width)
        if bad >= 0:
            restore_denormals(before)
            return image, bad
        place_boxes(theta, derived, padded, height, width, cut, True)
        forward(
            theta,
            derived,
            planes,
            nothing,
            nothing,
            layout,
            count,
            padded,
            height,
            width,
            tag,
            channels,
            True,
        )
        if number > channels:
            _divide(planes, height, stride, width, channels, epsilon)
            for row in range(height):
                _copy_row(planes, (channels * height + row) * stride, scales, (image * height + row) * width, width)
        for line in range(channels * height):
            _copy_row(planes, line * stride, images, (image * channels * height + line) * width, width)
    restore_denormals(before)
    return -1, -1


@compiled
def _lay_out_pulls(pulls, begin, strides, planes, height, width, channels):
    """The gradient of every pixel of an image as planes."""
    of_channel, of_row, of_column = strides
    stride = width + LANES
    for channel in range(channels):
        for row in range(height):
            at, source = (channel * height + row) * stride, begin + channel * of_channel + row * of_row
            if of_column == 1:
                _copy_row(pulls, source, planes, at, width)
            else:
                for column in range(width):
                    planes[at + column] = entry(pulls, source + column * of_column)


@compiled
def _through_quotient(planes, drawn, height, width, channels):
    """The gradients of sums and of the sum of weights from those of quotients; ``drawn`` as ``_divide`` left it."""
    stride = width + LANES
    below = channels * height * stride
    for row in range(height):
        for column in range(0, width, LANES):
            at = row * stride + column
            scale, both = load(drawn, below + at), splat(0.0)
            for channel in range(channels):
                here = at + channel * height * stride
                pull = load(planes, here) * scale
                store(planes, here, pull)
                both = both - pull * load(drawn, here)
            store(planes, below + at, both)


@compiled
def draw_back(splats, images, scales, pulls, gradients, sizes, strides, cut, tag):
    """The gradient of every column.

    Args:
        splats: as given to ``draw_images``.
        images: as ``draw_images`` filled them (read when normalised).
        scales: as ``draw_images`` filled them.
        pulls: float32, flat, image after image, the gradient of each pixel; in what order, say ``strides``.
        gradients: float32 like ``splats``, receives the gradient; 0 for a sigma or rho beyond what is drawn.
        sizes: as given to ``draw_images``.
        strides: distances in ``pulls`` from a channel, a row and a column to the next.
        cut: as given to ``draw_images``.
        tag: as given to ``draw_images``.
    """
    batch, count, channels, height, width = sizes
    number, parameters = len(tag), 5 + channels
    padded = (count + LANES - 1) // LANES * LANES
    stride = width + LANES
    theta, derived = np.empty(parameters * padded, np.float32), np.empty(TABLE * padded, np.float32)
    # The padding at the right stays 0, so boxes that hang over the edge gather nothing.
    planes = np.zeros(number * height * stride + LANES, np.float32)
    drawn = np.zeros(len(planes) if number > channels else 0, np.float32)
    nothing = np.empty(0, np.float32)
    layout = np.empty(2 * (height + LANES), np.float32)
    moments = np.zeros(MOMENTS * padded, np.float32)
    before = flush_denormals()
    for image in range(batch):
        at, pixels = image * count * parameters, image * channels * height * width
        take_columns(splats, at, count, parameters, theta, derived, padded, height, width)
        place_boxes(theta, derived, padded, height, width, cut, True)
        _lay_out_pulls(pulls, pixels, strides, planes, height, width, channels)
        if number > channels:
            for row in range(height):
                _copy_row(scales, (image * height + row) * width, drawn, (channels * height + row) * stride, width)
            for line in range(channels * height):
                _copy_row(images, pixels + line * width, drawn, line * stride, width)
            _through_quotient(planes, drawn, height, width, channels)
        backward(
            theta,
            derived,
            planes,
            nothing,
            nothing,
            layout,
            moments,
            count,
            padded,
            height,
            width,
            tag,
            channels,
            True,
        )
        to_columns(splats, at, count, parameters, gradients, theta, derived, moments, padded, height, width)
    restore_denormals(before)
