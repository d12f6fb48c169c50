"""From an engine's numbers to the numbers that a store keeps, always a valid Gaussian."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import StoreHeader
from data_schemas.splats import OVER

SMALLEST_SIGMA = 2.0**-14
"""Least sigma that is stored: the smallest normal float16, three thousandths of a pixel in a 100-pixel image."""


def quantise(splats: NDArray[np.float32], header: StoreHeader) -> tuple[NDArray[Any], list[str]]:
    """Rounds splats to the store's type, and to the nearest valid Gaussian.

    Sigma stays above 0, abs(rho) below 1, bounded colours in [0, 1], and so the opacity of ``over/1``.

    Args:
        splats: float32 [image, gaussian, parameter] in the header's layout.
        header: of the store that will hold them.

    Returns:
        The rounded splats [image, gaussian, parameter] (zeros where an image has a problem), and for each image
        what is wrong with it, "" where nothing is.
    """
    layout = header.splat_layout
    dtype = np.dtype(header.dtype)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        stored = splats.astype(dtype)
    problems = [_problem(splats[image], stored[image], header) for image in range(len(splats))]
    for image, problem in enumerate(problems):
        if problem:
            stored[image] = 0
    good = np.array([not problem for problem in problems], bool)
    below_one = np.nextafter(dtype.type(1), dtype.type(0))
    for name in ("sigma_x", "sigma_y"):
        column = stored[good, :, layout.index(name)]
        stored[good, :, layout.index(name)] = np.maximum(column, dtype.type(SMALLEST_SIGMA))
    rho = layout.index("rho")
    stored[good, :, rho] = np.clip(stored[good, :, rho], -below_one, below_one)
    if header.colours == "bounded":
        stored[good, :, layout.colour_slice] = np.clip(stored[good, :, layout.colour_slice], 0, 1)
    if header.codec == OVER and layout.has_alpha:
        stored[good, :, layout.index("alpha")] = np.clip(stored[good, :, layout.index("alpha")], 0, 1)
    return stored, problems


def _problem(fitted: NDArray[np.float32], stored: NDArray[Any], header: StoreHeader) -> str:
    """Why these splats cannot be kept, "" where they can."""
    if np.isfinite(stored).all():
        return ""
    gaussian, column = (int(index) for index in np.argwhere(~np.isfinite(stored))[0])
    name = header.splat_layout.names[column]
    value = float(fitted[gaussian, column])
    if np.isfinite(fitted).all():
        return f"{name} of Gaussian {gaussian} is {value:g}, beyond {header.dtype}; encode with --dtype float32"
    return f"the fit gave {value} for {name} of Gaussian {gaussian}"
