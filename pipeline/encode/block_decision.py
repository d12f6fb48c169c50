"""Which rows of a block need a fit, by content; and from an engine's numbers to the numbers that a store keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import RowBlock, RowState, StoreHeader, content_hash
from data_schemas.splats import OVER
from pipeline.sources.base import SourceImage

SMALLEST_SIGMA = 2.0**-14
"""Least sigma that is stored: the smallest normal float16, three thousandths of a pixel in a 100-pixel image."""


@dataclass
class BlockInput:
    """A block as read, before anything is decided.

    Attributes:
        block: its number.
        first_row: number of its first row.
        rows: what the store holds.
        images: the source image of each row that belongs to the job, None for the others.
        repaired: whether the stored bytes were damaged, so that ``rows`` had to be started again.
        started: ``time.perf_counter()`` when reading began.
    """

    block: int
    first_row: int
    rows: RowBlock
    images: list[SourceImage | None]
    repaired: bool
    started: float


@dataclass
class Decision:
    """What is to be done with the rows of a block; lists hold positions inside the block.

    Attributes:
        fit: to be fitted, with their pixels.
        same: position -> position in ``fit`` of identical pixels.
        kept: done before, unchanged.
        changed: rows that held another content.
        retried: rows that had failed.
        failed: rows without a readable image, with the reason.
        relabelled: kept rows whose label is new.
    """

    fit: list[int] = field(default_factory=list)
    same: dict[int, int] = field(default_factory=dict)
    kept: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    retried: list[int] = field(default_factory=list)
    failed: dict[int, str] = field(default_factory=dict)
    relabelled: list[int] = field(default_factory=list)


def decide(block: BlockInput, header: StoreHeader) -> tuple[Decision, NDArray[np.uint8]]:
    """Compares the images with the rows; images that are identical to one another are fitted once.

    Returns:
        The decision, and uint8 [row, CONTENT_HASH_BYTES] of the images read (zeros where none was).
    """
    rows, decision = block.rows, Decision()
    hashes = np.zeros_like(rows.content_hash)
    first_with: dict[bytes, int] = {}
    for position, image in enumerate(block.images):
        if image is None:
            continue
        done = rows.state[position] == RowState.DONE
        reason = why_unreadable(image, header)
        if reason or image.pixels is None:
            decision.failed[position] = reason + ("; the splats fitted before are kept" if done else "")
            continue
        hashes[position] = content_hash(image.pixels)
        if done and np.array_equal(hashes[position], rows.content_hash[position]):
            decision.kept.append(position)
            if rows.label[position] != image.label:
                decision.relabelled.append(position)
            continue
        if done:
            decision.changed.append(position)
        elif rows.state[position] == RowState.FAILED:
            decision.retried.append(position)
        key = hashes[position].tobytes()
        if key in first_with:
            decision.same[position] = first_with[key]
        else:
            first_with[key] = position
            decision.fit.append(position)
    return decision, hashes


def why_unreadable(image: SourceImage, header: StoreHeader) -> str:
    """The reason why an image cannot enter a store, "" where it can."""
    if image.pixels is None:
        return image.failure or "the image could not be read"
    expected = (header.height, header.width, header.channels)
    if image.pixels.shape != expected or image.pixels.dtype != np.uint8:
        return f"{image.pixels.dtype} image of shape {image.pixels.shape}, uint8 of {expected} is needed"
    return ""


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
