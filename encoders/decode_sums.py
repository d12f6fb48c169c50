"""The compiled decoder of the codecs that add, ``additive/1`` and ``normalised/1``."""

from __future__ import annotations

import numpy as np

from data_schemas.splats import NORMALISED_EPSILON
from encoders.compiled import compiled
from encoders.decode_box import pixel_frame, reached
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


@compiled
def _accumulate(geometry, colours, height, width, planes, peaks):
    """Adds all Gaussians of one image to the flat ``planes``; ``peaks`` [gaussian] receives each greatest weight."""
    stride = width + LANES
    plane_size = height * stride
    count, channels = colours.shape
    for n in range(count):
        x, y, a, b, c, sigma_x, sigma_y = pixel_frame(geometry[n], height, width)
        left, right = reached(x, sigma_x, width)
        top, bottom = reached(y, sigma_y, height)
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
