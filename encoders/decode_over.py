"""The compiled decoder of codec ``over/1``: one pass over the Gaussians from front to back.

Each pixel keeps its colours and what still passes through. A Gaussian whose weight is below 1e-13 (outside the box of
``encoders.decode_box``) is left out: no 8-bit value can change. ``encoders.render`` is its oracle.
"""

from __future__ import annotations

import numpy as np

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
        left, right = reached(x, sigma_x, width)
        top, bottom = reached(y, sigma_y, height)
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
