"""PSNR, SSIM and dead Gaussians of decoded images, one number per image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from encoders.compiled import compiled

SSIM_WINDOW = 7
"""Side of the SSIM window in pixels (scikit-image's default)."""


def squared_error(decoded: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Sum of squared differences of 8-bit values.

    Args:
        decoded: uint8 [image, height, width, channel].
        source: the same shape.

    Returns:
        int64 [image].

    Raises:
        ValueError: the shapes differ.
    """
    if decoded.shape != source.shape:
        raise ValueError(f"decoded images are {decoded.shape}, source images {source.shape}")
    difference = decoded.astype(np.int32) - source.astype(np.int32)
    return np.square(difference, out=difference).reshape(len(difference), -1).sum(axis=1, dtype=np.int64)


def psnr(decoded: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Peak signal-to-noise ratio in dB for peak 255; ``inf`` where the images are identical.

    Args:
        decoded: uint8 [image, height, width, channel].
        source: the same shape.

    Returns:
        float32 [image].
    """
    error = squared_error(decoded, source)
    numbers = math.prod(source.shape[1:])
    with np.errstate(divide="ignore"):
        return (10 * np.log10(255.0**2 * numbers / error)).astype(np.float32)


def psnr_of_mean_error(values: NDArray[np.floating]) -> float:
    """PSNR in dB of the mean squared error of a set, from the PSNR of each image.

    Unlike the mean of PSNRs it is not lifted by images that are nearly lossless.

    Args:
        values: PSNR [image] in dB; NaN (not done) is left out, ``inf`` counts as no error.

    Returns:
        dB; ``inf`` where every image is lossless, NaN where there is none.
    """
    done = np.asarray(values, np.float64)
    done = done[~np.isnan(done)]
    if not len(done):
        return float("nan")
    mean_error = float(np.mean(10 ** (-done / 10)))
    return float("inf") if mean_error == 0 else -10 * math.log10(mean_error)


@compiled
def _ssim(first, second, window, result):
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


def ssim(decoded: NDArray[np.uint8], source: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Structural similarity as scikit-image computes it by default: 7x7 uniform window, sample covariance.

    Images smaller than 7 pixels use the greatest odd window that fits.

    Args:
        decoded: uint8 [image, height, width, channel].
        source: the same shape.

    Returns:
        float32 [image], at most 1.

    Raises:
        ValueError: the shapes differ.
    """
    if decoded.shape != source.shape:
        raise ValueError(f"decoded images are {decoded.shape}, source images {source.shape}")
    smallest = min(source.shape[1:3])
    window = min(SSIM_WINDOW, smallest if smallest % 2 else smallest - 1)
    result = np.empty(len(source), np.float64)
    if len(source):
        _ssim(np.ascontiguousarray(decoded), np.ascontiguousarray(source), max(window, 1), result)
    return result.astype(np.float32)
