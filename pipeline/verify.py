"""Is a store still what was written? Checksums first, then every image decoded again and compared with its record."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from upath import UPath

from data_schemas.errors import StoreCorruptError
from data_schemas.locations import LocationField, location
from data_schemas.records import RowState, StoreHeader, content_hash
from data_schemas.splats import OVER
from data_schemas.stores.contract import SplatStore, block_range, blocks
from data_schemas.stores.open import open_store, verify_checksums
from encoders.decode import decode

logger = logging.getLogger("splatspace.verify")

CHANGED_PIXELS = "the source pixels differ from their content hash"

ROUNDING_LEVELS = 2e-3
"""How far two right decoders may differ before rounding to 8 bits, in levels (1/255) per unit of the greatest colour:
some hundred float32 additions in another order."""


class RowFault(BaseModel):
    """One row that is not what was written.

    Attributes:
        row: its number.
        source_id: the image's name, "" where it cannot be read.
        reason: for people.
    """

    model_config = ConfigDict(frozen=True)

    row: int
    source_id: str
    reason: str


class VerifySummary(BaseModel):
    """What was checked and what was found.

    Attributes:
        store: path of the store.
        rows: rows of the store.
        done: rows that hold splats.
        compared: rows whose image was decoded again and compared with the recorded PSNR.
        images: whether the store holds the source pixels; without them only checksums and numbers are checked.
        faults: every row that is not what was written.
    """

    store: LocationField
    rows: int
    done: int
    compared: int
    images: bool
    faults: tuple[RowFault, ...]

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not self.faults


def verify(
    path: str | os.PathLike[str] | UPath,
    *,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> VerifySummary:
    """Checks every stored byte and every done row.

    A row is at fault where its bytes do not match their checksum, where a number is not a valid Gaussian, where its
    source pixels do not match their hash, or where no rounding of the decoded image explains the recorded PSNR.

    Args:
        path: of the store.
        workers: threads; None takes every core.
        progress: called with (rows checked, rows).

    Raises:
        StoreError: the store cannot be opened at all.
    """
    with open_store(path, "r") as store:
        faults = {row: "stored bytes differ from their checksum" for row in verify_checksums(store)}
        done = compared = 0
        size = store.header.block_rows
        for block in blocks(len(store), size):
            span = block_range(block, size, len(store))
            good = [row for row in span if row not in faults]
            found, of_block, with_images = _check_rows(store, good, workers)
            faults.update(found)
            done += of_block
            compared += with_images
            if progress is not None:
                progress(span.stop, len(store))
        logger.info("%s: %d rows at fault of %d", path, len(faults), len(store))
        return VerifySummary(
            store=location(path),
            rows=len(store),
            done=done,
            compared=compared,
            images=store.header.images,
            faults=tuple(
                RowFault(row=row, source_id=_name(store, row), reason=reason) for row, reason in sorted(faults.items())
            ),
        )


def _name(store: SplatStore, row: int) -> str:
    try:
        return str(store.read(["source_id"], [row])["source_id"][0])
    except StoreCorruptError:
        return ""


def _check_rows(store: SplatStore, rows: list[int], workers: int | None) -> tuple[dict[int, str], int, int]:
    """Faults by row, done rows, and rows compared with their images."""
    header = store.header
    if not rows:
        return {}, 0, 0
    names = [name for name in ("state", "splats", "psnr", "content_hash", "image") if name in store.arrays]
    content = store.read(names, rows)
    at = np.flatnonzero(content["state"] == RowState.DONE)
    if not header.gaussians:
        altered = (p for p in at if not np.array_equal(content_hash(content["image"][p]), content["content_hash"][p]))
        return {rows[p]: CHANGED_PIXELS for p in altered}, len(at), len(at)
    faults: dict[int, str] = {}
    sound: list[int] = []
    for position in at:
        problem = _invalid(content["splats"][position], header)
        if problem:
            faults[rows[position]] = problem
        else:
            sound.append(int(position))
    if "image" not in content or not sound:
        return faults, len(at), 0
    decoded = decode(
        content["splats"][sound],
        layout=header.splat_layout,
        codec=header.codec,
        height=header.height,
        width=header.width,
        workers=workers,
    )
    compared = 0
    for index, position in enumerate(sound):
        image, recorded = content["image"][position], float(content["psnr"][position])
        digest = content["content_hash"][position]
        # An imported row may come without its image, hence without hash and PSNR: there is nothing to compare.
        if digest.any() and not np.array_equal(content_hash(image), digest):
            faults[rows[position]] = CHANGED_PIXELS
            continue
        if np.isnan(recorded):
            if digest.any():
                faults[rows[position]] = "a done row without a recorded PSNR"
            continue
        compared += 1
        levels = ROUNDING_LEVELS * max(
            1.0, float(np.abs(content["splats"][position][:, header.splat_layout.colour_slice]).max())
        )
        low, high = psnr_bounds(decoded[index], image, levels)
        if not low <= recorded <= high:
            faults[rows[position]] = f"the decoded image has {low:.3f} to {high:.3f} dB, {recorded:.3f} dB is recorded"
    return faults, len(at), compared


def _invalid(splats: NDArray[Any], header: StoreHeader) -> str:
    layout = header.splat_layout
    if not np.isfinite(splats).all():
        return "splats that are not finite"
    if (splats[:, [layout.index("sigma_x"), layout.index("sigma_y")]] <= 0).any():
        return "a sigma that is not above 0"
    if (np.abs(splats[:, layout.index("rho")]) >= 1).any():
        return "a rho that is not between -1 and 1"
    if header.codec == OVER and layout.has_alpha:
        alpha = splats[:, layout.index("alpha")]
        if ((alpha < 0) | (alpha > 1)).any():
            return "an alpha that is not between 0 and 1"
    return ""


def psnr_bounds(
    decoded: NDArray[np.float32], source: NDArray[np.uint8], levels: float = ROUNDING_LEVELS
) -> tuple[float, float]:
    """Least and greatest PSNR that a right decoder may have found for this image.

    Only values within ``levels`` of a rounding boundary can fall to either side; all others are certain. So the
    bounds are as tight as arithmetic allows, also for lossless images.

    Args:
        decoded: float32 [height, width, channel] in [0, 1].
        source: uint8 of the same shape.
        levels: how far two right decoders may differ, in units of 1/255.

    Returns:
        (least, greatest) in dB, with room for the float32 in which a PSNR is recorded.
    """
    value = decoded.astype(np.float64) * 255 + 0.5
    below = np.clip(np.floor(value - levels), 0, 255)
    above = np.clip(np.floor(value + levels), 0, 255)
    target = source.astype(np.float64)
    errors = np.stack([(below - target) ** 2, (above - target) ** 2])
    scale = 255.0**2 * source.size
    with np.errstate(divide="ignore"):
        least = 10 * np.log10(scale / errors.max(axis=0).sum())
        greatest = 10 * np.log10(scale / errors.min(axis=0).sum())
    return float(least) - 1e-4, float(greatest) + 1e-4
