"""Images of splats and the gradient of every column, compiled: the sums of ``encoders.cpu.sums`` for stored columns.

An image is one pass forward, which keeps the weights that the pass back repeats. What it keeps of an image lies in one
flat array, image after image: parameters, derived quantities, planes (when normalised), chains, spans and their layout
(``encoders.cpu.sums``). A new array would cost more time than the sums (the system clears its pages one by one), so the
caller brings one that was used before (``encoders.differentiable.spare_memory``).
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.cpu.boxes import place_boxes, room
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
def _longer(numbers, used, length):
    """A longer array that begins with the same numbers."""
    result = np.empty(length, np.float32)
    result[:used] = numbers[:used]
    return result


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
def draw_images(splats, images, memory, places, sizes, cut, epsilon, tag, keep):
    """Draws images and keeps what ``draw_back`` needs.

    Args:
        splats: float32, flat [image, gaussian, 5 + channel]: sigma_x, sigma_y, rho, colours, x, y.
        images: float32, flat [image, channel, row, column], receives the unclipped sums.
        memory: float32, flat, for what is kept.
        places: int64 [image + 1, 4], receives where the numbers of an image, its chains, spans and layout begin.
        sizes: images, K, channels, rows and columns.
        cut: half-width of the summed boxes in marginal standard deviations.
        epsilon: floor of the weight sum.
        tag: a tuple as long as there are planes (channels, and one more when normalised): a compile-time constant.
        keep: whether a pass back follows.

    Returns:
        The first image and Gaussian that are not finite, or -1 and -1; then ``memory`` or, where that was too short, a
        longer array in its place.
    """
    batch, count, channels, height, width = sizes
    number, parameters = len(tag), 5 + channels
    padded = (count + LANES - 1) // LANES * LANES
    stride = width + LANES
    size = height * stride
    planes = np.empty(number * size + LANES, np.float32)
    fixed = (parameters + TABLE) * padded
    drawn = len(planes) if number > channels else 0
    first = 0
    before = flush_denormals()
    for image in range(batch):
        if first + fixed + drawn > len(memory):
            memory = _longer(memory, first, first + fixed + drawn)
        theta = memory[first : first + parameters * padded]
        derived = memory[first + parameters * padded : first + fixed]
        bad = take_columns(
            splats, image * count * parameters, count, parameters, theta, derived, padded, height, width
        )
        if bad >= 0:
            restore_denormals(before)
            return image, bad, memory
        place_boxes(theta, derived, padded, height, width, cut, True)
        chain_room, span_room, layout_room = room(derived, count, padded, True)
        chains = first + fixed + drawn
        spans = chains + chain_room
        layout = spans + span_room
        end = layout + 2 * layout_room
        if end > len(memory):
            # The images that are left will want about as much.
            left = batch - image if keep else 1
            memory = _longer(memory, first + fixed, first + (end - first) * left + (end - first) // 4)
            theta = memory[first : first + parameters * padded]
            derived = memory[first + parameters * padded : first + fixed]
        if number > channels:
            planes = memory[first + fixed : chains]
        forward(
            theta,
            derived,
            planes,
            memory[chains:spans],
            memory[spans:layout],
            memory[layout:end],
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
        for line in range(channels * height):
            _copy_row(planes, line * stride, images, (image * channels * height + line) * width, width)
        places[image, 0], places[image, 1], places[image, 2], places[image, 3] = first, chains, spans, layout
        if keep:
            first = end
            places[image + 1, 0] = end
    restore_denormals(before)
    return -1, -1, memory


@compiled
def _lay_out_pulls(pulls, begin, strides, planes, drawn, height, width, tag, channels):
    """The gradient of every pixel of an image as planes; through the quotient, of which ``drawn`` is kept."""
    of_channel, of_row, of_column = strides
    stride = width + LANES
    size = height * stride
    for channel in range(channels):
        for row in range(height):
            at, source = channel * size + row * stride, begin + channel * of_channel + row * of_row
            if of_column == 1:
                _copy_row(pulls, source, planes, at, width)
            else:
                for column in range(width):
                    planes[at + column] = entry(pulls, source + column * of_column)
    if len(tag) == channels:
        return
    below = channels * size
    for row in range(height):
        for column in range(0, width, LANES):
            at = row * stride + column
            scale, both = load(drawn, below + at), splat(0.0)
            for channel in range(channels):
                pull = load(planes, at + channel * size) * scale
                store(planes, at + channel * size, pull)
                both = both - pull * load(drawn, at + channel * size)
            store(planes, below + at, both)
        store(planes, below + row * stride + width, splat(0.0))


@compiled
def draw_back(splats, pulls, gradients, memory, places, sizes, strides, tag):
    """The gradient of every column.

    Args:
        splats: as given to ``draw_images``.
        pulls: float32, flat, image after image, the gradient of each pixel; in what order, say ``strides``.
        gradients: float32 like ``splats``, receives the gradient; 0 for a sigma or rho beyond what is drawn.
        memory: as ``draw_images`` returned it.
        places: as ``draw_images`` filled it.
        sizes: as given to ``draw_images``.
        strides: distances in ``pulls`` from a channel, a row and a column to the next.
        tag: as given to ``draw_images``.
    """
    batch, count, channels, height, width = sizes
    number, parameters = len(tag), 5 + channels
    padded = (count + LANES - 1) // LANES * LANES
    # The padding at the right stays 0, so boxes that hang over the edge gather nothing.
    planes = np.zeros(number * height * (width + LANES) + LANES, np.float32)
    moments = np.zeros(MOMENTS * padded, np.float32)
    before = flush_denormals()
    for image in range(batch):
        first, chains, spans, layout = places[image]
        fixed = first + (parameters + TABLE) * padded
        theta = memory[first : first + parameters * padded]
        derived = memory[first + parameters * padded : fixed]
        begin = image * channels * height * width
        _lay_out_pulls(pulls, begin, strides, planes, memory[fixed:chains], height, width, tag, channels)
        backward(
            theta,
            derived,
            planes,
            memory[chains:spans],
            memory[spans:layout],
            memory[layout : places[image + 1, 0]],
            moments,
            count,
            padded,
            height,
            width,
            tag,
            channels,
            True,
        )
        at = image * count * parameters
        to_columns(splats, at, count, parameters, gradients, theta, derived, moments, padded, height, width)
    restore_denormals(before)
