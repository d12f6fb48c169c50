"""The compiled decoders: ``additive/1`` and ``normalised/1``, which add, and ``over/1``, from front to back.

They share the pixel frame of a stored Gaussian and the box of pixels that it reaches; outside of it a weight is below
1e-13 and no 8-bit value can change. ``encoders.render`` is their oracle.
"""

from __future__ import annotations

import numpy as np

from data_schemas.splats import NORMALISED_EPSILON
from encoders.compiled import compiled
from encoders.vector import (
    LANES,
    exponential,
    flush_denormals,
    fused,
    lanes,
    largest,
    load,
    maximum,
    minimum,
    restore_denormals,
    splat,
    store,
)

CUT = 7.75
"""Half-width of the box in marginal standard deviations: exp(-7.75^2 / 2) < 1e-13."""

SMALLEST_SIGMA = 1e-6
GREATEST_RHO = 0.999999
"""Bounds of what is drawn: sigmas in normalised units. Beyond them the nearest Gaussian is drawn."""


@compiled
def pixel_frame(geometry, height, width):
    """Centre and factors in pixels of one Gaussian: x, y, a, b, c (``encoders.frame``), and both standard deviations.

    ``geometry`` = sigma_x, sigma_y, rho, x, y in the columns' units; what is no Gaussian becomes the nearest one.
    """
    sigma_x = max(abs(geometry[0]), np.float32(SMALLEST_SIGMA)) * np.float32(0.5 * width)
    sigma_y = max(abs(geometry[1]), np.float32(SMALLEST_SIGMA)) * np.float32(0.5 * height)
    rho = min(max(geometry[2], np.float32(-GREATEST_RHO)), np.float32(GREATEST_RHO))
    x = (geometry[3] + np.float32(1)) * np.float32(0.5 * width)
    y = (geometry[4] + np.float32(1)) * np.float32(0.5 * height)
    root = np.float32(np.sqrt((1.0 - rho) * (1.0 + rho)))
    a = np.float32(1) / (sigma_x * root)
    b = -rho / (sigma_y * root)
    c = np.float32(1) / sigma_y
    return x, y, a, b, c, sigma_x, sigma_y


@compiled
def find_reach(centre, sigma, size):
    """First pixel and the pixel after the last along one axis that lie within ``CUT`` standard deviations."""
    # Bounds are clipped as floats first: a Gaussian far off the canvas must not overflow an integer.
    first = int(min(max(np.floor(centre - np.float32(CUT) * sigma), 0.0), float(size)))
    last = int(min(max(np.ceil(centre + np.float32(CUT) * sigma), 0.0), float(size)))
    return first, last


@compiled
def _accumulate(geometry, colours, height, width, planes, peaks):
    """Adds all Gaussians of one image to the flat ``planes``; ``peaks`` [gaussian] receives each greatest weight."""
    stride = width + LANES
    plane_size = height * stride
    count, channels = colours.shape
    for n in range(count):
        x, y, a, b, c, sigma_x, sigma_y = pixel_frame(geometry[n], height, width)
        left, right = find_reach(x, sigma_x, width)
        top, bottom = find_reach(y, sigma_y, height)
        best = splat(0.0)
        for start in range(left, right, LANES):
            offset = lanes() + splat(np.float32(start) + np.float32(0.5) - x)
            # 1 where a lane lies on the canvas, 0 in the padding at the right of each row.
            canvas = minimum(maximum(splat(np.float32(width - start)) - lanes(), splat(0.0)), splat(1.0))
            along = splat(a) * offset
            for row in range(top, bottom):
                dy = np.float32(row) + np.float32(0.5) - y
                u = along + splat(b * dy)
                v = c * dy
                weight = exponential(splat(-0.5) * fused(u, u, splat(v * v)))
                best = maximum(best, weight * canvas)
                at = row * stride + start
                for channel in range(channels):
                    position = at + channel * plane_size
                    store(planes, position, fused(weight, splat(colours[n, channel]), load(planes, position)))
        peaks[n] = largest(best)


@compiled
def decode_sums(geometry, colours, normalised, height, width, result, peaks):
    """Adds the Gaussians of images, and divides by the sum of their weights where ``normalised``.

    ``geometry`` float32 [image, gaussian, 5] (sigma_x, sigma_y, rho, x, y), ``colours`` float32 [image, gaussian,
    plane], times opacity; the last plane of a normalised sum is the opacity. ``result`` [image, height, width, channel]
    and ``peaks`` [image, gaussian] are filled.
    """
    images = geometry.shape[0]
    channels = result.shape[3]
    stride = width + LANES
    before = flush_denormals()
    planes = np.empty(colours.shape[2] * height * stride, np.float32)
    for image in range(images):
        planes[:] = np.float32(0)
        _accumulate(geometry[image], colours[image], height, width, planes, peaks[image])
        for row in range(height):
            for column in range(width):
                at = row * stride + column
                scale = np.float32(1)
                if normalised:
                    scale = np.float32(1) / (np.float32(NORMALISED_EPSILON) + planes[channels * height * stride + at])
                for channel in range(channels):
                    value = planes[channel * height * stride + at] * scale
                    result[image, row, column, channel] = min(max(value, np.float32(0)), np.float32(1))
    restore_denormals(before)


@compiled
def _composite(geometry, colours, opacities, height, width, planes, peaks):
    """Lays all Gaussians of one image over each other.

    ``planes`` are flat: one of each channel, then one of the share of light that still passes. ``peaks`` [gaussian]
    receives the greatest share of a pixel that each Gaussian covers, as seen from the front.
    """
    stride = width + LANES
    plane_size = height * stride
    count, channels = colours.shape
    for n in range(count):
        x, y, a, b, c, sigma_x, sigma_y = pixel_frame(geometry[n], height, width)
        left, right = find_reach(x, sigma_x, width)
        top, bottom = find_reach(y, sigma_y, height)
        opacity = splat(opacities[n])
        best = splat(0.0)
        for start in range(left, right, LANES):
            offset = lanes() + splat(np.float32(start) + np.float32(0.5) - x)
            # 1 where a lane lies on the canvas, 0 in the padding at the right of each row.
            canvas = minimum(maximum(splat(np.float32(width - start)) - lanes(), splat(0.0)), splat(1.0))
            along = splat(a) * offset
            for row in range(top, bottom):
                dy = np.float32(row) + np.float32(0.5) - y
                u = along + splat(b * dy)
                v = c * dy
                covered = opacity * exponential(splat(-0.5) * fused(u, u, splat(v * v)))
                at = row * stride + start
                passing = load(planes, at + channels * plane_size)
                seen = covered * passing
                store(planes, at + channels * plane_size, maximum(passing - seen, splat(0.0)))
                best = maximum(best, seen * canvas)
                for channel in range(channels):
                    position = at + channel * plane_size
                    store(planes, position, fused(seen, splat(colours[n, channel]), load(planes, position)))
        peaks[n] = largest(best)


@compiled
def decode_over(geometry, colours, opacities, height, width, result, peaks):
    """Composites images over black.

    ``geometry`` float32 [image, gaussian, 5] (sigma_x, sigma_y, rho, x, y), ``colours`` float32 [image, gaussian,
    channel], ``opacities`` float32 [image, gaussian]; ``result`` [image, height, width, channel] and ``peaks`` [image,
    gaussian] are filled.
    """
    images, _, channels = colours.shape
    stride = width + LANES
    size = height * stride
    before = flush_denormals()
    planes = np.empty((channels + 1) * size, np.float32)
    for image in range(images):
        planes[: channels * size] = np.float32(0)
        planes[channels * size :] = np.float32(1)
        _composite(geometry[image], colours[image], opacities[image], height, width, planes, peaks[image])
        for row in range(height):
            for column in range(width):
                at = row * stride + column
                for channel in range(channels):
                    value = planes[channel * size + at]
                    result[image, row, column, channel] = min(max(value, np.float32(0)), np.float32(1))
    restore_denormals(before)
