"""What the arrays of a store are: names, dimensions, dtypes, fill values, units, and how rows are grouped on disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_schemas.errors import StoreError
from data_schemas.records import CONTENT_HASH_BYTES, RowBlock, RowState, StoreHeader
from data_schemas.splats import Layout

ARRAYS = ("splats", "image", "label", "psnr", "ssim", "steps", "dead", "source_id", "content_hash", "state", "failure")
"""Names of the arrays of a store, in the order in which they are written: ``state`` makes a row visible."""

MAX_TEXT_BYTES = 4096
"""Longest ``source_id`` or ``failure`` in UTF-8 bytes (the longest path of common file systems)."""

_WIDE_CHUNK_ROWS = 64
_TEXT_CHUNK_ROWS = 256
_SMALLEST_DIVISOR = 8
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    Attributes:
        name: one of ``ARRAYS``.
        dims: names of the dimensions, ``image`` (the rows) first.
        tail: lengths of the dimensions after the first.
        dtype: numpy dtype name, or ``str`` for UTF-8 text.
        fill: value of a row in state EMPTY.
        units: unit of the numbers ("1" where they are pure numbers), "" for text.
        meaning: one line for people.
        chunk_rows: rows that are compressed and checksummed together; divides ``header.block_rows``.
    """

    name: str
    dims: tuple[str, ...]
    tail: tuple[int, ...]
    dtype: str
    fill: Any
    units: str
    meaning: str
    chunk_rows: int

    @property
    def is_text(self) -> bool:
        """Whether the array holds strings."""
        return self.dtype == "str"


def array_specs(header: StoreHeader) -> dict[str, ArraySpec]:
    """The arrays of a store with this header, in the order of ``ARRAYS``.

    Args:
        header: sizes, dtype and block length.

    Returns:
        Name to ArraySpec; without ``image`` where the header says so, without ``splats`` where there are no Gaussians.
    """
    block = header.block_rows
    text = _largest_divisor(block, _TEXT_CHUNK_ROWS)
    numbers = (header.gaussians, header.splat_layout.width)
    pixels = (header.height, header.width, header.channels)
    splat_rows = _wide_chunk_rows(block, math.prod(numbers) * np.dtype(header.dtype).itemsize)
    pixel_rows = _wide_chunk_rows(block, math.prod(pixels))
    nan = float("nan")
    table = (
        ArraySpec("splats", ("image", "gaussian", "parameter"), numbers, header.dtype, 0.0,
                  "see parameter_units", "the Gaussians of each image", splat_rows),
        ArraySpec("image", ("image", "y", "x", "channel"), pixels, "uint8", 0, "1", "the source pixels", pixel_rows),
        ArraySpec("label", ("image",), (), "int32", -1, "1", "class number, -1 where there is none", block),
        ArraySpec("psnr", ("image",), (), "float32", nan, "dB", "PSNR of the decoded stored bytes, inf: lossless",
                  block),
        ArraySpec("ssim", ("image",), (), "float32", nan, "1", "SSIM of the decoded stored bytes", block),
        ArraySpec("steps", ("image",), (), "int32", 0, "1", "optimiser steps taken", block),
        ArraySpec("dead", ("image",), (), "int32", 0, "1", "Gaussians without a visible contribution", block),
        ArraySpec("source_id", ("image",), (), "str", "", "", "stable name of the image in its source", text),
        ArraySpec("content_hash", ("image", "hash_byte"), (CONTENT_HASH_BYTES,), "uint8", 0, "1",
                  "BLAKE2b-128 of shape and pixels", block),
        ArraySpec("state", ("image",), (), "uint8", 0, "1", "0 empty, 1 done, 2 failed", block),
        ArraySpec("failure", ("image",), (), "str", "", "", "the reason where state is 2", text),
    )  # fmt: skip
    specs = {spec.name: spec for spec in table}
    absent = {name for name, there in (("image", header.images), ("splats", header.gaussians)) if not there}
    return {name: specs[name] for name in ARRAYS if name not in absent}


def array_attributes(spec: ArraySpec, layout: Layout) -> dict[str, str]:
    """Attributes of one array, equal in both formats."""
    shown = {"long_name": spec.meaning}
    if spec.units:
        shown["units"] = spec.units
    if "parameter" in spec.dims:
        shown["parameter_units"] = "; ".join(f"{column.name}: {column.unit}" for column in layout.columns)
    return shown


def check_block(rows: RowBlock, header: StoreHeader, expected_rows: int) -> RowBlock:
    """Checks a block against the header and makes its text storable.

    Args:
        rows: the rows to be written.
        header: of the store.
        expected_rows: how many rows the block has.

    Returns:
        The same arrays, with ``failure`` cleaned by ``storable_reason``.

    Raises:
        StoreError: a shape or dtype differs, an unknown state, a done row with NaN or infinite splats, or a
            ``source_id`` that no UTF-8 text can hold.
    """
    for name, spec in array_specs(header).items():
        array = getattr(rows, name)
        expected = (expected_rows, *spec.tail)
        dtype = "object" if spec.is_text else spec.dtype
        if not isinstance(array, np.ndarray) or array.shape != expected or array.dtype != np.dtype(dtype):
            got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise StoreError(f"Array {name!r} of a block is {got}", allowed=f"{dtype} {expected}")
    if rows.image is not None and not header.images:
        raise StoreError(
            "A block with source images for a store without them",
            allowed="image=None",
            next_step="create the store with images=True to keep them",
        )
    if (rows.state > max(RowState)).any():
        raise StoreError(
            f"Row state {int(rows.state.max())}", allowed=", ".join(f"{s.value} {s.name}" for s in RowState)
        )
    bad = np.flatnonzero((rows.state == RowState.DONE) & ~np.isfinite(rows.splats).all(axis=(1, 2)))
    if len(bad):
        raise StoreError(
            f"Splats of done rows {bad[:10].tolist()} of the block hold NaN or infinity",
            allowed="finite numbers",
            next_step="store float32, or mark these rows FAILED",
        )
    check_source_ids(rows.source_id.tolist())
    failure = np.array([storable_reason(str(reason)) for reason in rows.failure], dtype=object)
    return RowBlock(**{**vars(rows), "failure": failure.reshape(expected_rows)})


def check_source_ids(source_ids: list[str]) -> None:
    """Refuses names that cannot be stored in both formats.

    Raises:
        StoreError: not a string, not encodable as UTF-8, holds U+0000, or is too long.
    """
    for name in source_ids:
        if not isinstance(name, str):
            raise StoreError(f"source_id {name!r} is a {type(name).__name__}", allowed="str")
        try:
            size = len(name.encode("utf-8"))
        except UnicodeEncodeError:
            raise StoreError(
                f"source_id {name!r} is not valid Unicode",
                allowed="text that UTF-8 can encode",
                next_step="rename the file",
            ) from None
        if "\0" in name or size > MAX_TEXT_BYTES:
            raise StoreError(
                f"source_id {name[:80]!r} of {size} bytes", allowed=f"up to {MAX_TEXT_BYTES} UTF-8 bytes without U+0000"
            )


def storable_reason(reason: str) -> str:
    """A failure reason as stored: control zero and lone surrogates escaped, cut at ``MAX_TEXT_BYTES`` bytes.

    A message must never keep its row from being recorded, so it is cleaned where a name would be refused.
    """
    encoded = reason.replace("\0", "\\x00").encode("utf-8", errors="backslashreplace")
    return encoded[:MAX_TEXT_BYTES].decode("utf-8", errors="ignore")


def _wide_chunk_rows(block_rows: int, row_bytes: int) -> int:
    """Rows per chunk of an array with many numbers a row: few enough that one row is cheap to fetch."""
    return _largest_divisor(block_rows, max(1, min(_WIDE_CHUNK_ROWS, _CHUNK_BYTES // max(1, row_bytes))))


def _largest_divisor(block_rows: int, cap: int) -> int:
    """Greatest divisor of ``block_rows`` up to ``cap``; the whole block where only tiny ones exist (primes)."""
    best = max(size for size in range(1, min(cap, block_rows) + 1) if block_rows % size == 0)
    return best if best >= min(_SMALLEST_DIVISOR, cap, block_rows) else block_rows
