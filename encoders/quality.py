"""PSNR, SSIM and dead Gaussians of decoded images, one number per image."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

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
    return psnr_of_error(float(np.mean(10 ** (-done / 10))))


def psnr_of_error(error: float) -> float:
    """PSNR in dB of a mean squared error.

    Args:
        error: mean squared difference of values whose peak is 1; 0 or more.

    Returns:
        dB; ``inf`` where there is no error.
    """
    return math.inf if error <= 0 else -10 * math.log10(error)


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
    # Inside: a PSNR needs no Numba.
    from encoders.cpu.ssim import ssim_images

    smallest = min(source.shape[1:3])
    window = min(SSIM_WINDOW, smallest if smallest % 2 else smallest - 1)
    result = np.empty(len(source), np.float64)
    if len(source):
        ssim_images(np.ascontiguousarray(decoded), np.ascontiguousarray(source), max(window, 1), result)
    return result.astype(np.float32)
