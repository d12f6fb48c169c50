"""Images of splats and the gradient of every column, compiled: the sums of ``encoders.cpu.sums`` for stored columns.

An image is one pass forward, which keeps the weights that the pass back repeats (``Kept``). Gradients follow from the
moments of the weighted residual over (1, u, dy, u^2, u dy, dy^2); with sigma in pixels, r = sqrt(1 - rho^2),
a = 1 / (sigma_x r), b = -rho / (sigma_y r), c = 1 / sigma_y, u = a dx + b dy and v = c dy the exponent
E = -(u^2 + v^2) / 2 has

    dE/dx = a u,  dE/dy = b u + c^2 dy,  dE/dsigma_x = (u^2 - b u dy) / sigma_x,
    dE/dsigma_y = (b u dy + c^2 dy^2) / sigma_y,  dE/drho = c u dy / r - rho u^2 / r^2.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from encoders.compiled import compiled
from encoders.cpu.boxes import DERIVED, FACTOR_A, FACTOR_C, place_boxes, room
from encoders.cpu.decode import GREATEST_RHO, SMALLEST_SIGMA
from encoders.cpu.moments import MOMENTS, backward
from encoders.cpu.sums import forward
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y
from encoders.vector import (
    LANES,
    flush_denormals,
    fused,
    load,
    maximum,
    minimum,
    restore_denormals,
    splat,
    square_root,
    store,
)

FARTHEST = 1e9
"""Pixels beyond which neither centres nor sigmas are told apart: nothing overflows."""

RHO, ROOT = DERIVED, DERIVED + 1
"""Rows after those of ``encoders.cpu.sums``: the correlation as drawn, and r = sqrt(1 - rho^2)."""

_TABLE = DERIVED + 2
_SIGMA_X, _SIGMA_Y = LOG_A, LOG_C  # the sums do not read these rows: here they hold sigmas in pixels


class Kept(NamedTuple):
    """What a pass forward over some images leaves to the pass back.

    Attributes:
        theta: float32, rows of parameters of every image after each other.
        derived: float32, rows of derived quantities of every image after each other.
        chains: float32, see ``encoders.cpu.sums``.
        spans: float32.
        layout: float32.
        ends: int64 [image + 1, 3], where the numbers of an image in ``chains``, ``spans`` and ``layout`` begin.
    """

    theta: NDArray[np.float32]
    derived: NDArray[np.float32]
    chains: NDArray[np.float32]
    spans: NDArray[np.float32]
    layout: NDArray[np.float32]
    ends: NDArray[np.int64]


@compiled
def _take_columns(splats, theta, derived, padded, height, width):
    """Columns of one image as parameters and factors in pixels; the first Gaussian that is not finite, or -1."""
    count, parameters = splats.shape
    channels = parameters - 5
    bad = -1
    for n in range(count):
        check = np.float32(0)
        for parameter in range(parameters):
            # 0 for finite numbers, NaN for others.
            check += splats[n, parameter] * np.float32(0)
        if check != np.float32(0) and bad < 0:
            bad = n
        theta[_SIGMA_X * padded + n] = splats[n, 0]
        theta[_SIGMA_Y * padded + n] = splats[n, 1]
        derived[RHO * padded + n] = splats[n, 2]
        for channel in range(channels):
            theta[(COLOUR + channel) * padded + n] = splats[n, 3 + channel]
        theta[X * padded + n] = splats[n, parameters - 2]
        theta[Y * padded + n] = splats[n, parameters - 1]
    for n in range(count, padded):
        # Round, one image wide, and far away.
        theta[_SIGMA_X * padded + n] = np.float32(1)
        theta[_SIGMA_Y * padded + n] = np.float32(1)
        derived[RHO * padded + n] = np.float32(0)
        theta[X * padded + n] = np.float32(1e6)
        theta[Y * padded + n] = np.float32(1e6)
    one, least, most = splat(1.0), splat(SMALLEST_SIGMA), splat(GREATEST_RHO)
    far, near = splat(FARTHEST), splat(-FARTHEST)
    half_width, half_height = splat(0.5 * width), splat(0.5 * height)
    for n in range(0, padded, LANES):
        sigma_x = minimum(maximum(load(theta, _SIGMA_X * padded + n), least) * half_width, far)
        sigma_y = minimum(maximum(load(theta, _SIGMA_Y * padded + n), least) * half_height, far)
        rho = minimum(maximum(load(derived, RHO * padded + n), splat(-GREATEST_RHO)), most)
        root = square_root((one - rho) * (one + rho))
        x = minimum(maximum((load(theta, X * padded + n) + one) * half_width, near), far)
        y = minimum(maximum((load(theta, Y * padded + n) + one) * half_height, near), far)
        store(theta, _SIGMA_X * padded + n, sigma_x)
        store(theta, _SIGMA_Y * padded + n, sigma_y)
        store(derived, RHO * padded + n, rho)
        store(derived, ROOT * padded + n, root)
        store(theta, X * padded + n, x)
        store(theta, Y * padded + n, y)
        store(theta, B * padded + n, splat(0.0) - rho / (sigma_y * root))
        store(derived, FACTOR_A * padded + n, one / (sigma_x * root))
        store(derived, FACTOR_C * padded + n, one / sigma_y)
    return bad


@compiled
def _longer(numbers, length):
    """A longer array that begins with the same numbers."""
    result = np.empty(length, np.float32)
    result[: len(numbers)] = numbers
    return result


@compiled
def draw_images(splats, images, scales, cut, epsilon, tag, keep):
    """Draws images and keeps what ``draw_back`` needs.

    Args:
        splats: float32 [image, gaussian, 5 + channel]: sigma_x, sigma_y, rho, colours, x, y.
        images: float32 [image, channel, row, column], receives the unclipped sums.
        scales: float32 [image, row, column], receives 1 / (epsilon + sum of weights); empty but for ``normalised/1``.
        cut: half-width of the summed boxes in marginal standard deviations.
        epsilon: floor of the weight sum.
        tag: a tuple as long as there are planes (channels, and one more when normalised): a compile-time constant.
        keep: whether a pass back follows.

    Returns:
        The first image and Gaussian that are not finite, or -1 and -1; then the arrays of ``Kept``.
    """
    number = len(tag)
    count, parameters = splats.shape[1:]
    batch, channels, height, width = images.shape
    padded = (count + LANES - 1) // LANES * LANES
    stride = width + LANES
    size = height * stride
    rows = parameters * padded
    table = _TABLE * padded
    places = batch if keep else 1
    theta = np.zeros(places * rows, np.float32)
    derived = np.zeros(places * table, np.float32)
    planes = np.zeros(number * size + LANES, np.float32)
    chains, spans, layout = np.empty(0, np.float32), np.empty(0, np.float32), np.empty(0, np.float32)
    ends = np.zeros((batch + 1, 3), np.int64)
    bad_image, bad_gaussian = -1, -1
    before = flush_denormals()
    for image in range(batch):
        place = image if keep else 0
        mine = theta[place * rows : (place + 1) * rows]
        numbers = derived[place * table : (place + 1) * table]
        bad = _take_columns(splats[image], mine, numbers, padded, height, width)
        if bad >= 0:
            bad_image, bad_gaussian = image, bad
            break
        place_boxes(mine, numbers, padded, height, width, cut, True)
        chain_room, span_room, layout_room = room(numbers, count, padded, True)
        first_chain, first_span, first_layout = ends[place]
        last_chain, last_span, last_layout = (
            first_chain + chain_room,
            first_span + span_room,
            first_layout + 2 * layout_room,
        )
        # The images that are left will want about as much.
        left = batch - image if keep else 1
        if last_chain > len(chains):
            chains = _longer(chains, last_chain + chain_room * left // 2 * 2 + chain_room // 4)
        if last_span > len(spans):
            spans = _longer(spans, last_span + span_room * left + span_room // 4)
        if last_layout > len(layout):
            layout = _longer(layout, last_layout + 2 * layout_room * left + layout_room // 4)
        if keep:
            ends[image + 1, 0], ends[image + 1, 1], ends[image + 1, 2] = last_chain, last_span, last_layout
        forward(
            mine,
            numbers,
            planes,
            chains[first_chain:last_chain],
            spans[first_span:last_span],
            layout[first_layout:last_layout],
            count,
            padded,
            height,
            width,
            tag,
            channels,
            True,
        )
        if number > channels:
            for row in range(height):
                for column in range(0, width, LANES):
                    at = row * stride + column
                    scale = splat(1.0) / (load(planes, at + channels * size) + splat(epsilon))
                    store(planes, at + channels * size, scale)
                    for channel in range(channels):
                        store(planes, at + channel * size, load(planes, at + channel * size) * scale)
                for column in range(width):
                    scales[image, row, column] = planes[channels * size + row * stride + column]
        for channel in range(channels):
            for row in range(height):
                at = channel * size + row * stride
                for column in range(width):
                    images[image, channel, row, column] = planes[at + column]
    restore_denormals(before)
    return bad_image, bad_gaussian, theta, derived, chains, spans, layout, ends


@compiled
def _to_columns(theta, derived, moments, padded, height, width):
    """Moments as gradients of columns, in place: x, y, sigma_x, sigma_y, rho; eight Gaussians at a time."""
    half_width, half_height = splat(0.5 * width), splat(0.5 * height)
    for n in range(0, padded, LANES):
        along, down = load(moments, n), load(moments, padded + n)
        square, mixed = load(moments, 2 * padded + n), load(moments, 3 * padded + n)
        high = load(moments, 4 * padded + n)
        a, c = load(derived, FACTOR_A * padded + n), load(derived, FACTOR_C * padded + n)
        b = load(theta, B * padded + n)
        rho, root = load(derived, RHO * padded + n), load(derived, ROOT * padded + n)
        stiff = c * c
        tilted = b * mixed
        store(moments, n, a * along * half_width)
        store(moments, padded + n, fused(b, along, stiff * down) * half_height)
        store(moments, 2 * padded + n, (square - tilted) / load(theta, _SIGMA_X * padded + n) * half_width)
        store(
            moments,
            3 * padded + n,
            fused(stiff, high, tilted) / load(theta, _SIGMA_Y * padded + n) * half_height,
        )
        store(moments, 4 * padded + n, (c * mixed - rho * square / root) / root)


@compiled
def draw_back(splats, images, scales, pulls, gradients, strides, tag, theta, derived, chains, spans, layout, ends):
    """The gradient of every column.

    Args:
        splats: as given to ``draw_images``.
        images: as ``draw_images`` filled them (read when normalised).
        scales: as ``draw_images`` filled them.
        pulls: float32 [image, number], the gradient of each pixel; in what order, say ``strides``.
        gradients: float32 like ``splats``, receives the gradient; 0 for a sigma or rho beyond what is drawn.
        strides: distances in ``pulls`` from a channel, a row and a column to the next.
        tag: as given to ``draw_images``.
        theta: and the further ones: see ``Kept``.
        derived: see there.
        chains: see there.
        spans: see there.
        layout: see there.
        ends: see there.
    """
    number = len(tag)
    count, parameters = splats.shape[1:]
    batch, channels, height, width = images.shape
    of_channel, of_row, of_column = strides
    padded = (count + LANES - 1) // LANES * LANES
    stride = width + LANES
    size = height * stride
    rows = parameters * padded
    table = _TABLE * padded
    # The padding at the right stays 0, so boxes that hang over the edge gather nothing.
    planes = np.zeros(number * size + LANES, np.float32)
    moments = np.zeros(MOMENTS * padded, np.float32)
    before = flush_denormals()
    for image in range(batch):
        mine = theta[image * rows : (image + 1) * rows]
        numbers = derived[image * table : (image + 1) * table]
        for channel in range(channels):
            for row in range(height):
                at = channel * size + row * stride
                begin = channel * of_channel + row * of_row
                for column in range(width):
                    planes[at + column] = pulls[image, begin + column * of_column]
        if number > channels:
            below = channels * size
            for row in range(height):
                for column in range(width):
                    planes[below + row * stride + column] = np.float32(0)
                for channel in range(channels):
                    at = row * stride
                    for column in range(width):
                        pull = planes[channel * size + at + column] * scales[image, row, column]
                        planes[channel * size + at + column] = pull
                        planes[below + at + column] -= pull * images[image, channel, row, column]
        first, last = ends[image], ends[image + 1]
        backward(
            mine,
            numbers,
            planes,
            chains[first[0] : last[0]],
            spans[first[1] : last[1]],
            layout[first[2] : last[2]],
            moments,
            count,
            padded,
            height,
            width,
            tag,
            channels,
            True,
        )
        _to_columns(mine, numbers, moments, padded, height, width)
        for n in range(count):
            sigma_x, sigma_y, rho = splats[image, n, 0], splats[image, n, 1], splats[image, n, 2]
            gradients[image, n, 0] = moments[2 * padded + n] if sigma_x >= np.float32(SMALLEST_SIGMA) else np.float32(0)
            gradients[image, n, 1] = moments[3 * padded + n] if sigma_y >= np.float32(SMALLEST_SIGMA) else np.float32(0)
            gradients[image, n, 2] = moments[4 * padded + n] if abs(rho) <= np.float32(GREATEST_RHO) else np.float32(0)
            for channel in range(channels):
                gradients[image, n, 3 + channel] = moments[(5 + channel) * padded + n]
            gradients[image, n, parameters - 2] = moments[n]
            gradients[image, n, parameters - 1] = moments[padded + n]
    restore_denormals(before)
