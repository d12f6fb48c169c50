"""The whole optimisation of an image inside one compiled function.

Per step: boxes of all Gaussians, the sum inside each box, the residual, the moments of the residual under each
Gaussian (``encoders.cpu.sums``), Adam (``encoders.cpu.moves``). Nothing but numbers in registers and in the caches.
"""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled
from encoders.cpu.boxes import DERIVED, derive, room
from encoders.cpu.moments import MOMENTS, backward
from encoders.cpu.moves import adam, reseed
from encoders.cpu.sums import forward, residual
from encoders.frame import COLOUR, X
from encoders.vector import LANES, flush_denormals, restore_denormals


@compiled
def fit_images(
    images,
    frames,
    result,
    steps_taken,
    errors,
    rates,
    betas,
    limits,
    target_error,
    tag,
    bounded,
    epsilon,
    cut,
    tail,
    reseed_every,
    reseed_until,
    reseed_reach,
):
    """Fits a range of images, one after the other.

    Args:
        images: uint8 [image, height, width, channel].
        frames: float32 [image, gaussian, 5 + channel], where Gaussians begin (encoders.frame).
        result: float32 like ``frames``, receives the best iterate.
        steps_taken: int32 [image], receives the optimiser steps taken.
        errors: float32 [image], receives half the sum of squared residuals of the best iterate.
        rates: float32 [step, 3], steps of centre, shape and colour with Adam's bias corrections folded in.
        betas: float32 [3]: beta1, beta2, epsilon.
        limits: float32 [4]: see ``encoders.cpu.moves.adam``.
        target_error: stop an image below this half sum of squares.
        tag: a tuple as long as there are planes (channels, and one more when normalised): a compile-time constant.
        bounded: whether colours are held in [0, 1].
        epsilon: floor of the weight sum (normalised codec only).
        cut: half-width of the summed box in marginal standard deviations.
        tail: from this step on the best iterate is kept: the second half of the first round.
        reseed_every: move dark Gaussians every so many steps; 0 never.
        reseed_until: and not after this step.
        reseed_reach: and not further than so many pixels along either axis.
    """
    count = frames.shape[1]
    channels = frames.shape[2] - COLOUR
    _, height, width, _ = images.shape
    number = len(tag)
    padded = (count + LANES - 1) // LANES * LANES
    stride = width + LANES
    size = height * stride
    parameters = COLOUR + channels
    theta = np.zeros(parameters * padded, np.float32)
    best = np.zeros(parameters * padded, np.float32)
    first = np.zeros(parameters * padded, np.float32)
    second = np.zeros(parameters * padded, np.float32)
    derived = np.zeros(DERIVED * padded, np.float32)
    moments = np.zeros(MOMENTS * padded, np.float32)
    planes = np.zeros(number * size + LANES, np.float32)
    target = np.zeros(channels * size + LANES, np.float32)
    low = np.zeros(channels * size + LANES, np.float32)
    high = np.zeros(channels * size + LANES, np.float32)
    mask = np.zeros(stride + LANES, np.float32)
    mask[:width] = np.float32(1)
    chains = np.empty(0, np.float32)
    spans = np.empty(0, np.float32)
    layout = np.empty(0, np.float32)
    needed = np.zeros(height * width, np.float32)
    steps = rates.shape[0]
    before = flush_denormals()
    for image in range(images.shape[0]):
        for channel in range(channels):
            for row in range(height):
                for column in range(width):
                    at = channel * size + row * stride + column
                    value = images[image, row, column, channel]
                    target[at] = np.float32(value) * np.float32(1 / 255)
                    low[at] = np.float32(0) if value == 0 else np.float32(-1e30)
                    high[at] = np.float32(1) if value == 255 else np.float32(1e30)
        theta[:] = np.float32(0)
        for n in range(count):
            for parameter in range(parameters):
                theta[parameter * padded + n] = frames[image, n, parameter]
        for n in range(count, padded):
            theta[X * padded + n] = np.float32(-1e4)
        first[:] = np.float32(0)
        second[:] = np.float32(0)
        moments[:] = np.float32(0)
        least = np.float32(np.inf)
        taken = 0
        for step in range(steps + 1):
            derive(theta, derived, padded, height, width, cut)
            chain_room, span_room, layout_room = room(derived, count, padded)
            if chain_room > len(chains):
                chains = np.empty(chain_room + chain_room // 2, np.float32)
            if span_room > len(spans):
                spans = np.empty(span_room + span_room // 2, np.float32)
            if 2 * layout_room > len(layout):
                layout = np.empty(4 * layout_room, np.float32)
            forward(theta, derived, planes, chains, spans, layout, count, padded, height, width, tag, channels)
            error = residual(planes, target, low, high, mask, height, width, tag, channels, epsilon)
            if error < least and (step >= tail or error <= target_error):
                least = error
                for n in range(len(theta)):  # a loop: assigning a slice compiles numpy's error messages too
                    best[n] = theta[n]
            if step == steps or error <= target_error:
                break
            backward(
                theta, derived, planes, chains, spans, layout, moments, count, padded, height, width, tag, channels
            )
            adam(
                theta,
                first,
                second,
                derived,
                moments,
                padded,
                height,
                width,
                channels,
                rates[step],
                betas,
                limits,
                bounded,
            )
            taken += 1
            if reseed_reach >= 0 and reseed_every > 0 and taken % reseed_every == 0 and taken <= reseed_until:
                reseed(theta, first, second, planes, needed, count, padded, height, width, channels, reseed_reach)
        for n in range(count):
            for parameter in range(parameters):
                result[image, n, parameter] = best[parameter * padded + n]
        steps_taken[image] = taken
        errors[image] = least
    restore_denormals(before)
