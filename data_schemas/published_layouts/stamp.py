"""The kernel-stamp layouts: seven or nine numbers per Gaussian, drawn by shifting a small image of it.

Columns: s_row, s_column, rho, alpha, one or three colours, x, y. "Raw" numbers stand before their activations
(sigmoid, sigmoid, tanh, sigmoid, clamp to [0, 1], none, none), "physical" ones after them.

A stamp of ``kernel_size`` pixels spans 10 units of deviation, so one unit is (kernel_size - 1) / 10 pixels. The first
deviation acts along rows of pixels counted downwards, the second along columns; the translation is inverted: a
positive x moves left, a positive y moves up, by (side - 1) / 2 pixels per unit.

Which stamp a store needs: a Gaussian must be narrower than one unit of deviation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.published_layouts.options import MAX_KERNEL_SIZE, AlphaUse, StampMatch
from data_schemas.published_layouts.rotated_hdf5 import Floats, keep_invertible
from data_schemas.published_layouts.rows import Survey, UnreadableImageError, list_names
from data_schemas.published_layouts.stamp_fit import Stamp, nearest_gaussians
from data_schemas.records import StoreHeader
from data_schemas.splats import Layout, layout_for

RAW_ALPHA_OPAQUE = 20.0
"""sigmoid(20) is 1 in float32."""

RAW_LIMIT = 80.0
"""sigmoid(-80) is still a normal float32."""

_EVEN_PEAK_LIMIT = 4.0

LARGEST_SHARE = 0.999
"""Deviations are kept below this share of a unit: a sigmoid never reaches 1."""


@dataclass(frozen=True)
class StampFrame:
    """How stamp numbers relate to pixels.

    Attributes:
        height: of the image in pixels.
        width: of the image in pixels.
        kernel_size: side of the stamp in pixels.
        unit: pixels of one unit of deviation; None: (kernel_size - 1) / 10.
        swapped: whether the first deviation acts on rows (else on columns).
    """

    height: int
    width: int
    kernel_size: int
    unit: float | None = None
    swapped: bool = True

    @property
    def pixels_per_unit(self) -> float:
        """Standard deviation in pixels of a Gaussian of deviation 1."""
        return self.unit if self.unit is not None else (self.kernel_size - 1) / 10

    def centre(self, side: int) -> float:
        """Pixel index of an unmoved stamp's centre; half a pixel off the image's where the margins are unequal."""
        return (side - self.kernel_size) // 2 + (self.kernel_size - 1) / 2


def activate(raw: NDArray[np.floating]) -> Floats:
    """Physical numbers of raw ones.

    Args:
        raw: [gaussian, 7 or 9].

    Returns:
        float64 [gaussian, 7 or 9].
    """
    values = np.asarray(raw, np.float64)
    physical = values.copy()
    with np.errstate(over="ignore"):
        physical[:, [0, 1, 3]] = 1 / (1 + np.exp(-values[:, [0, 1, 3]]))
    physical[:, 2] = np.tanh(values[:, 2])
    physical[:, 4:-2] = np.clip(values[:, 4:-2], 0, 1)
    return physical


def deactivate(physical: Floats) -> NDArray[np.float32]:
    """Inverse of ``activate`` for deviations below 1 and colours in [0, 1]."""
    raw = physical.copy()
    with np.errstate(divide="ignore"):
        for column in (0, 1, 3):
            raw[:, column] = np.log(physical[:, column]) - np.log1p(-physical[:, column])
        raw[:, 2] = np.arctanh(physical[:, 2])
    raw[:, :4] = np.clip(raw[:, :4], -RAW_LIMIT, RAW_LIMIT)
    raw[:, 3] = np.minimum(raw[:, 3], RAW_ALPHA_OPAQUE)
    return raw.astype(np.float32)


def _covariance(physical: Floats) -> tuple[Floats, Floats, Floats]:
    """Deviations (first, second) and correlation, with the published repair of singular covariances."""
    first, second, rho = physical[:, 0], physical[:, 1], physical[:, 2]
    single = physical.astype(np.float32)
    cross = single[:, 2] * single[:, 0] * single[:, 1]
    if np.any(single[:, 0] ** 2 * single[:, 1] ** 2 - cross**2 <= 0):
        # The published renderer then adds 1e-6 to the variances of all Gaussians of the image.
        repaired_first, repaired_second = np.hypot(first, 1e-3), np.hypot(second, 1e-3)
        rho = rho * (first / repaired_first) * (second / repaired_second)
        first, second = repaired_first, repaired_second
    return first, second, rho


def to_splats(physical: Floats, frame: StampFrame, *, alpha: AlphaUse, match: StampMatch) -> Floats:
    """Columns of a store from physical stamp numbers.

    Args:
        physical: [gaussian, 7 or 9].
        frame: the image and its stamps.
        alpha: ``ignored`` or ``folded`` into the colour.
        match: ``fitted`` to what the renderer draws, or ``centres`` as written.

    Returns:
        float64 [gaussian, parameter] in the layout without alpha.

    Raises:
        UnreadableImageError: a number is not finite, a deviation is negative or a correlation beyond 1.
    """
    if not np.all(np.isfinite(physical)):
        raise UnreadableImageError("values that are not finite")
    if np.any(physical[:, :2] < 0) or np.any(np.abs(physical[:, 2]) > 1):
        raise UnreadableImageError("negative deviations, or correlations outside [-1, 1]")
    first, second, rho = _covariance(physical)
    row_unit, column_unit = (first, second) if frame.swapped else (second, first)
    sigma_row, sigma_column = row_unit * frame.pixels_per_unit, column_unit * frame.pixels_per_unit
    row = frame.centre(frame.height) - physical[:, -1] * (frame.height - 1) / 2
    column = frame.centre(frame.width) - physical[:, -2] * (frame.width - 1) / 2
    colours = physical[:, 4:-2] * (physical[:, 3:4] if alpha == "folded" else 1.0)
    amplitude = np.ones(len(physical))
    if match == "fitted":
        stamps = Stamp(
            sigma_row, sigma_column, rho, row - frame.centre(frame.height), column - frame.centre(frame.width)
        )
        # Invisible Gaussians need no fit; in published files they are the majority.
        seen = np.flatnonzero(np.any(colours != 0, axis=1))
        fitted = nearest_gaussians(stamps.take(seen), frame.kernel_size)
        sigma_row, sigma_column, rho = sigma_row.copy(), sigma_column.copy(), rho.copy()
        sigma_row[seen], sigma_column[seen], rho[seen] = fitted.sigma_row, fitted.sigma_column, fitted.rho
        row[seen] += fitted.row
        column[seen] += fitted.column
        amplitude[seen] = fitted.amplitude
    elif frame.kernel_size % 2 == 0:
        amplitude = _even_peak(sigma_row, sigma_column, rho)
    return _assemble(frame, sigma_column, sigma_row, rho, colours * amplitude[:, None], column, row)


def _even_peak(sigma_row: Floats, sigma_column: Floats, rho: Floats) -> Floats:
    """How far a Gaussian's own peak stands above the samples of an even stamp, which the renderer scales to 1."""
    across, down = 0.5 / np.maximum(sigma_column, 1e-6), 0.5 / np.maximum(sigma_row, 1e-6)
    slack = np.maximum((1 - rho) * (1 + rho), 1e-9)
    distance = (across**2 + down**2 - 2 * np.abs(rho) * across * down) / slack
    # A Gaussian much narrower than a pixel has no such peak: its stamp is four equal pixels.
    return np.minimum(np.exp(np.minimum(distance / 2, 10.0)), _EVEN_PEAK_LIMIT)


def _assemble(
    frame: StampFrame, sigma_x: Floats, sigma_y: Floats, rho: Floats, colours: Floats, column: Floats, row: Floats
) -> Floats:
    layout = layout_for(colours.shape[1])
    splats = np.empty((len(rho), layout.width))
    sigmas = np.stack([sigma_x * 2 / frame.width, sigma_y * 2 / frame.height], axis=1)
    splats[:, :2], splats[:, 2:3] = keep_invertible(sigmas, rho[:, None])
    splats[:, layout.colour_slice] = colours
    splats[:, -2] = (2 * column + 1) / frame.width - 1
    splats[:, -1] = (2 * row + 1) / frame.height - 1
    return splats


def from_splats(splats: Floats, layout: Layout, frame: StampFrame) -> Floats:
    """Physical stamp numbers from columns of a store: the inverse of ``to_splats`` with ``match="centres"``.

    Args:
        splats: float64 [gaussian, parameter] in ``layout``, without alpha.
        layout: the columns of ``splats``.
        frame: the image and its stamps, of odd kernel size and sides of at least 2 pixels.

    Returns:
        float64 [gaussian, 7 or 9] with opacity 1.
    """
    physical = np.empty((len(splats), 6 + layout.channels))
    sigma_x = splats[:, 0] * frame.width / 2 / frame.pixels_per_unit
    sigma_y = splats[:, 1] * frame.height / 2 / frame.pixels_per_unit
    physical[:, 0], physical[:, 1] = (sigma_y, sigma_x) if frame.swapped else (sigma_x, sigma_y)
    physical[:, 2] = splats[:, 2]
    physical[:, 3] = 1.0
    physical[:, 4:-2] = splats[:, layout.colour_slice]
    column = ((splats[:, -2] + 1) * frame.width - 1) / 2
    row = ((splats[:, -1] + 1) * frame.height - 1) / 2
    physical[:, -2] = (frame.centre(frame.width) - column) * 2 / (frame.width - 1)
    physical[:, -1] = (frame.centre(frame.height) - row) * 2 / (frame.height - 1)
    return physical


def holding_kernel_size(header: StoreHeader, found: Survey, asked: int | None, usual: int, *, bounded: bool) -> int:
    """The side of the stamps of a file to be written.

    Args:
        header: of the rows.
        found: what was seen of them.
        asked: the size from the options.
        usual: the published size (odd), taken where it holds every Gaussian and fits into the image.
        bounded: whether a deviation beyond a unit cannot be written at all.

    Returns:
        An odd number of pixels; of a bounded layout it may exceed the image's sides (see ``kernel_notes``).

    Raises:
        StoreError: an even or a too small size was asked for, no size is large enough, or the image has sides of a
            single pixel.
    """
    side = min(header.height, header.width)
    if side < 2:
        raise StoreError(
            f"Images of {header.height}x{header.width} pixels have no stamp layout: its centres are undefined there",
            allowed="sides of at least 2 pixels",
        )
    if asked is not None and asked % 2 == 0:
        raise StoreError(f"Kernel size {asked}", allowed="odd sizes on writing: even stamps have no centre pixel")
    within = side - 1 + side % 2
    chosen = asked
    if chosen is None:
        # The least odd n with widest < LARGEST_SHARE * (n - 1) / 10.
        least = int(10 * min(max(found.deviations.values()), 1e6) / LARGEST_SHARE) + 2
        chosen = max(min(usual, within), least + 1 - least % 2, 3)
        chosen = min(chosen, MAX_KERNEL_SIZE if bounded else max(within, 3))
    limit = LARGEST_SHARE * (chosen - 1) / 10
    too_wide = [name for name, deviation in found.deviations.items() if not deviation < limit]
    if bounded and too_wide:
        widest = max(found.deviations.values())
        raise StoreError(
            f"{len(too_wide)} images have Gaussians too wide for stamps of {chosen} px: {list_names(too_wide)}",
            allowed=f"standard deviations below {limit:.2f} px; the widest has {widest:.2f} px",
            next_step="convert to hdf5-rotated, which holds any width"
            + ("" if asked is None else ", or leave --kernel-size out to have it chosen"),
        )
    return chosen


def kernel_notes(header: StoreHeader, kernel_size: int) -> list[str]:
    """What a user should know of the stamps of a written file."""
    notes = [f"stamps of {kernel_size} px: give other programs this kernel size"]
    if kernel_size > min(header.height, header.width):
        notes.append(
            f"stamps of {kernel_size} px are larger than the image, because a Gaussian is that wide; "
            "programs that pad stamps to the image may refuse or crop them"
        )
    return notes


def refuse_outside_colours(found: Survey) -> None:
    """Stamp files clamp colours to [0, 1] when they are read.

    Raises:
        StoreError: names the images with others.
    """
    if found.outside_colours:
        raise StoreError(
            f"{len(found.outside_colours)} images have colours outside [0, 1], which this layout clamps: "
            + list_names(found.outside_colours),
            allowed="stores encoded with bounded colours",
            next_step="convert to hdf5-rotated or hdf5-columnar, or encode with --colours bounded",
        )
