"""SSIM by running sums of the window's columns: the compiled part of ``encoders.quality``."""

from __future__ import annotations

import numpy as np

from encoders.compiled import compiled


@compiled
def ssim_images(first, second, window, result):
    """Fills ``result`` float64 [image] from two uint8 [image, height, width, channel]; ``window`` pixels a side."""
    images, height, width, channels = first.shape
    area = window * window
    # Sample covariance (divided by n - 1), as scikit-image does; one pixel has none.
    normalise = area / (area - 1.0) if area > 1 else 0.0
    c1, c2 = (0.01 * 255.0) ** 2, (0.03 * 255.0) ** 2
    sums = np.zeros((width, 5), np.int64)
    for image in range(images):
        total = 0.0
        for channel in range(channels):
            sums[:] = 0
            for row in range(height):
                for column in range(width):
                    a, b = np.int64(first[image, row, column, channel]), np.int64(second[image, row, column, channel])
                    sums[column, 0] += a
                    sums[column, 1] += b
                    sums[column, 2] += a * a
                    sums[column, 3] += b * b
                    sums[column, 4] += a * b
                    if row >= window:
                        a = np.int64(first[image, row - window, column, channel])
                        b = np.int64(second[image, row - window, column, channel])
                        sums[column, 0] -= a
                        sums[column, 1] -= b
                        sums[column, 2] -= a * a
                        sums[column, 3] -= b * b
                        sums[column, 4] -= a * b
                if row < window - 1:
                    continue
                s0 = s1 = s2 = s3 = s4 = np.int64(0)
                for column in range(width):
                    s0 += sums[column, 0]
                    s1 += sums[column, 1]
                    s2 += sums[column, 2]
                    s3 += sums[column, 3]
                    s4 += sums[column, 4]
                    if column >= window:
                        s0 -= sums[column - window, 0]
                        s1 -= sums[column - window, 1]
                        s2 -= sums[column - window, 2]
                        s3 -= sums[column - window, 3]
                        s4 -= sums[column - window, 4]
                    if column >= window - 1:
                        ma, mb = s0 / area, s1 / area
                        va = normalise * (s2 / area - ma * ma)
                        vb = normalise * (s3 / area - mb * mb)
                        cov = normalise * (s4 / area - ma * mb)
                        total += ((2 * ma * mb + c1) * (2 * cov + c2)) / ((ma * ma + mb * mb + c1) * (va + vb + c2))
        result[image] = total / ((height - window + 1) * (width - window + 1) * channels)
