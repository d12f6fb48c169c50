"""Counts the floating-point operations of the compiled fit, and measures what the CPU could do.

Operations are counted by lane, the lanes that hang over the edge of a box included; a fused multiply-add counts
two, an exponential 12, a division or a square root 1. The counts per vector are read off ``encoders.cpu.sums``.
"""

from __future__ import annotations

import time

import numba
import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from encoders.cpu import boxes as fit_boxes
from encoders.cpu import sums as fit_sums
from encoders.frame import COLOUR, X
from encoders.recipe import CUT
from encoders.vector import LANES, fused, splat, total

EXPONENTIAL = 12


@numba.njit(error_model="numpy")
def _vectors(theta, derived, count, padded, height, width):
    """Vector-rows and columns of the multiplication chains, and vectors of the row spans, of one image."""
    chain_rows, columns, spans = 0, 0, 0
    layout = np.zeros(2 * (height + LANES), np.float32)
    for n in range(count):
        vectors, rows = int(derived[fit_boxes.VECTORS * padded + n]), int(derived[fit_boxes.ROWS * padded + n])
        if vectors == 0 or rows == 0:
            continue
        if derived[fit_boxes.CHAIN * padded + n] > 0:
            chain_rows += vectors * rows
            columns += vectors
            continue
        slope = derived[fit_boxes.SLOPE * padded + n]
        dy = np.float32(int(derived[fit_boxes.TOP * padded + n])) + np.float32(0.5) - theta[padded + n]
        fit_sums.lay_spans(layout, 0, theta[n] - slope * dy, slope, derived[fit_boxes.HALF * padded + n], rows, width)
        for row in range(rows):
            spans += int(layout[len(layout) // 2 + row])
    return chain_rows, columns, spans


def boxes_of(frame: NDArray[np.float32], height: int, width: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The tables of one image as the fit lays them out.

    Args:
        frame: float32 [gaussian, 5 + channel], pixel-frame parameters.
        height: rows of the image.
        width: columns of the image.

    Returns:
        Parameters and derived quantities, both float32 and flat, gaussians last and padded to full vectors.
    """
    count, parameters = frame.shape
    padded = -(-count // LANES) * LANES
    theta = np.zeros((parameters, padded), np.float32)
    theta[X] = -1e4
    theta[:, :count] = frame.T
    derived = np.zeros(fit_boxes.DERIVED * padded, np.float32)
    fit_boxes.derive(theta.ravel(), derived, padded, height, width, np.float32(CUT))
    return theta.ravel(), derived


def vectors_of(frame: NDArray[np.float32], height: int, width: int) -> float:
    """Mean number of vectors that a pass sums for a Gaussian of this image (arguments as above)."""
    theta, derived = boxes_of(frame, height, width)
    padded = len(derived) // fit_boxes.DERIVED
    chain_rows, _, spans = _vectors(theta, derived, len(frame), padded, height, width)
    return (chain_rows + spans) / len(frame)


def operations_per_step(frames: NDArray[np.float32], height: int, width: int, *, normalised: bool = False) -> float:
    """Mean floating-point operations of one step of ``fit_images``.

    Args:
        frames: float32 [image, gaussian, 5 + channel], pixel-frame parameters at some step.
        height: rows of the images.
        width: columns of the images.
        normalised: whether the codec divides by the summed weights.
    """
    images, count, parameters = frames.shape
    channels = parameters - COLOUR
    planes = channels + normalised
    padded = -(-count // LANES) * LANES
    summed = 0.0
    for frame in frames:
        theta, derived = boxes_of(frame, height, width)
        chain_rows, columns, spans = _vectors(theta, derived, count, padded, height, width)
        # Forward and backward repeat the two multiplications of the chain; one plane needs no product per colour.
        gather = 2 if planes == 1 else 4 * channels + (planes > channels) + 1
        chain = (2 * planes + 2) + (gather + 2 + 2)
        column = (2 * EXPONENTIAL + 9) + 17
        span = (EXPONENTIAL + 6 + 2 * planes) + (gather + 9)
        fixed = padded // LANES * ((3 * EXPONENTIAL + 60) + 11 * (COLOUR + channels) + 60 + EXPONENTIAL)
        residual = height * -(-width // LANES) * channels * (6 + 4 * normalised)
        summed += LANES * (chain_rows * chain + columns * column + spans * span + fixed + residual)
        summed += count * 8 * (LANES - 1)
    return summed / images


@numba.njit(error_model="numpy")
def _fused_loop(rounds):
    """Ten independent chains of fused multiply-adds: enough to fill both pipes."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = a8 = a9 = splat(0.0)
    x, y = splat(0.999), splat(0.5)
    for _ in range(rounds):
        a0, a1, a2 = fused(a0, x, y), fused(a1, x, y), fused(a2, x, y)
        a3, a4, a5 = fused(a3, x, y), fused(a4, x, y), fused(a5, x, y)
        a6, a7, a8, a9 = fused(a6, x, y), fused(a7, x, y), fused(a8, x, y), fused(a9, x, y)
    return total(a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9)


def peak_of_eight_lanes() -> float:
    """Best measured rate of 8-lane fused multiply-adds on one core, in GFLOP/s."""
    _fused_loop(10)
    rounds, best = 4_000_000, 0.0
    for _ in range(9):
        before = time.thread_time()
        _fused_loop(rounds)
        best = max(best, rounds * 10 * 2 * LANES / (time.thread_time() - before) / 1e9)
    return best


def peak_of_matrix_product() -> float:
    """Best measured rate of a large float32 matrix product on one core, in GFLOP/s: the widest vectors there are."""
    side, best = 1536, 0.0
    first = np.random.default_rng(0).random((side, side), dtype=np.float32)
    with threadpool_limits(1):
        for _ in range(9):
            before = time.thread_time()
            np.matmul(first, first)
            best = max(best, 2 * side**3 / (time.thread_time() - before) / 1e9)
    return best
