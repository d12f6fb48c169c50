"""The Gaussian that comes nearest to what the published stamp renderer draws of one.

The renderer samples a Gaussian on a lattice of whole pixels, scales the samples to a peak of 1, cuts them off at the
stamp's edge and shifts them by bilinear interpolation, which blurs by a fraction of a pixel. None of this is a
Gaussian any more, but a slightly wider, lower and maybe shifted one is close: its six numbers are found by least
squares over the stamp's pixels (Levenberg-Marquardt, started at the moments of the shifted stamp).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from data_schemas.published_layouts.rotated_hdf5 import Floats

STEPS = 12
BATCH_NUMBERS = 2_000_000
"""Numbers of one working array: bounds the memory whatever the stamp's size."""

_LEAST_VARIANCE = 0.09
_LOG_SIGMA_RANGE = (-4.0, 6.0)
_ATANH_RHO_LIMIT = 3.8


@dataclass
class Stamp:
    """Gaussians in pixels; every field float64 [gaussian].

    Attributes:
        sigma_row: standard deviation along rows counted downwards.
        sigma_column: standard deviation along columns.
        rho: correlation.
        row: of the centre, relative to the unmoved stamp's centre.
        column: of the centre, likewise.
        amplitude: factor of the colour.
    """

    sigma_row: Floats
    sigma_column: Floats
    rho: Floats
    row: Floats
    column: Floats
    amplitude: Floats | float = 1.0

    def take(self, which: np.ndarray) -> Stamp:
        """The Gaussians of these numbers."""
        return Stamp(
            self.sigma_row[which], self.sigma_column[which], self.rho[which], self.row[which], self.column[which]
        )

    def __len__(self) -> int:
        return len(self.rho)


def nearest_gaussians(stamps: Stamp, kernel_size: int) -> Stamp:
    """Fits one Gaussian to the drawing of each stamp.

    Args:
        stamps: as written, the position relative to the unmoved stamp.
        kernel_size: side of the stamp in pixels.

    Returns:
        As drawn; ``row`` and ``column`` are now the small corrections of the position.
    """
    step = max(1, BATCH_NUMBERS // (6 * (kernel_size + 1) ** 2))
    parts = [_fit(stamps.take(np.arange(first, min(first + step, len(stamps)))), kernel_size)
             for first in range(0, len(stamps), step)]  # fmt: skip
    columns = np.concatenate(parts) if parts else np.empty((0, 6))
    amplitude, row, column, sigma_row, sigma_column, rho = columns.T
    return Stamp(sigma_row, sigma_column, rho, row, column, amplitude)


def draw_stamps(stamps: Stamp, kernel_size: int) -> tuple[Floats, Floats, Floats]:
    """What the renderer draws of each Gaussian, on the whole pixels around it.

    Returns:
        values [gaussian, kernel_size + 1, kernel_size + 1], and the offsets of their rows and columns from the
        Gaussian's centre, each [gaussian, kernel_size + 1], in pixels.
    """
    lattice = np.arange(kernel_size, dtype=np.float64) - (kernel_size - 1) / 2
    down = lattice[None, :, None] / np.maximum(stamps.sigma_row, 1e-6)[:, None, None]
    across = lattice[None, None, :] / np.maximum(stamps.sigma_column, 1e-6)[:, None, None]
    rho = np.clip(stamps.rho, -0.999999, 0.999999)[:, None, None]
    distance = (down**2 - 2 * rho * down * across + across**2) / ((1 - rho) * (1 + rho))
    values = np.exp(-0.5 * (distance - distance.min(axis=(1, 2), keepdims=True)))
    row_part, column_part = np.mod(stamps.row, 1.0), np.mod(stamps.column, 1.0)
    values = np.pad(values, ((0, 0), (1, 1), (1, 1)))
    part = row_part[:, None, None]
    values = (1 - part) * values[:, 1:] + part * values[:, :-1]
    part = column_part[:, None, None]
    values = (1 - part) * values[:, :, 1:] + part * values[:, :, :-1]
    offsets = np.arange(kernel_size + 1, dtype=np.float64) - (kernel_size - 1) / 2
    return values, offsets[None] - row_part[:, None], offsets[None] - column_part[:, None]


def _start(values: Floats, rows: Floats, columns: Floats) -> Floats:
    """[gaussian, 6] amplitude, row, column, log sigma_row, log sigma_column, atanh rho, from moments."""
    mass = values.sum(axis=(1, 2))
    row_variance = np.maximum(np.einsum("kij,ki->k", values, rows**2) / mass, _LEAST_VARIANCE)
    column_variance = np.maximum(np.einsum("kij,kj->k", values, columns**2) / mass, _LEAST_VARIANCE)
    cross = np.einsum("kij,ki,kj->k", values, rows, columns) / mass
    rho = np.clip(cross / np.sqrt(row_variance * column_variance), -0.95, 0.95)
    area = 2 * np.pi * np.sqrt(row_variance * column_variance * (1 - rho**2))
    start = np.zeros((len(values), 6))
    start[:, 0] = np.minimum(mass / area, 1.0)
    start[:, 3], start[:, 4] = np.log(row_variance) / 2, np.log(column_variance) / 2
    start[:, 5] = np.arctanh(rho)
    return start


def _model(numbers: Floats, rows: Floats, columns: Floats) -> tuple[Floats, Floats]:
    """Values [gaussian, pixel] and derivatives [gaussian, pixel, 6] of Gaussians."""
    amplitude, row, column, log_row, log_column, slant = (numbers[:, index, None, None] for index in range(6))
    rho, inverse_row, inverse_column = np.tanh(slant), np.exp(-log_row), np.exp(-log_column)
    down = (rows[:, :, None] - row) * inverse_row
    across = (columns[:, None, :] - column) * inverse_column
    rest = 1 - rho**2
    distance = (down**2 - 2 * rho * down * across + across**2) / rest
    weight = np.exp(-0.5 * distance)
    value = amplitude * weight
    pull_down, pull_across = (down - rho * across) / rest, (across - rho * down) / rest
    derivatives = np.stack(
        [
            weight,
            value * pull_down * inverse_row,
            value * pull_across * inverse_column,
            value * pull_down * down,
            value * pull_across * across,
            value * (down * across - rho * distance),
        ],
        axis=-1,
    )
    count = len(numbers)
    return value.reshape(count, -1), derivatives.reshape(count, -1, 6)


def _fit(stamps: Stamp, kernel_size: int) -> Floats:
    target, rows, columns = draw_stamps(stamps, kernel_size)
    numbers = _start(target, rows, columns)
    wanted = target.reshape(len(target), -1)
    value, slopes = _model(numbers, rows, columns)
    error = np.square(wanted - value).sum(axis=1)
    damping = np.full(len(numbers), 1e-3)
    for _ in range(STEPS):
        normal = np.matmul(slopes.transpose(0, 2, 1), slopes)
        gradient = np.einsum("kni,kn->ki", slopes, wanted - value)
        trace = np.trace(normal, axis1=1, axis2=2)
        damped = normal + (damping * (trace + 1e-9))[:, None, None] * np.eye(6)
        step = np.clip(np.linalg.solve(damped, gradient[:, :, None])[:, :, 0], -0.5, 0.5)
        trial = numbers + step
        trial[:, 3:5] = np.clip(trial[:, 3:5], *_LOG_SIGMA_RANGE)
        trial[:, 5] = np.clip(trial[:, 5], -_ATANH_RHO_LIMIT, _ATANH_RHO_LIMIT)
        trial_value, trial_slopes = _model(trial, rows, columns)
        trial_error = np.square(wanted - trial_value).sum(axis=1)
        better = trial_error < error
        numbers = np.where(better[:, None], trial, numbers)
        value = np.where(better[:, None], trial_value, value)
        slopes = np.where(better[:, None, None], trial_slopes, slopes)
        error = np.where(better, trial_error, error)
        damping = np.where(better, damping / 5, damping * 5)
    result = numbers.copy()
    result[:, 3:5] = np.exp(numbers[:, 3:5])
    result[:, 5] = np.tanh(numbers[:, 5])
    return result
