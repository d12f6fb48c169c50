"""Images of a store's finished rows: originals, renderings, and which of them are the same.

Published layouts that are converted without their images give rows whose ``content_hash`` is zeros. Zeros are equal,
the images are not: there the splats are hashed instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.errors import EvaluationError
from data_schemas.records import CONTENT_HASH_BYTES, content_hash
from data_schemas.stores.contract import SplatStore
from encoders.decode import decode, to_uint8
from pipeline.finite_splats import require_finite

_ROWS_AT_ONCE = 2048

_HASHED_AT_ONCE = 1024


def originals(store: SplatStore, rows: NDArray[np.int64]) -> Tensor:
    """The source images of some rows.

    Returns:
        uint8 [image, channel, row, column].

    Raises:
        EvaluationError: the store holds no source images.
    """
    if "image" not in store.arrays:
        raise EvaluationError(
            f"{store.path} holds no source images to compare with",
            allowed="a store that was encoded with --images (the default)",
            next_step="encode the set again without --no-images",
        )
    return as_channels_first(_read(store, "image", rows))


def renderings(store: SplatStore, rows: NDArray[np.int64]) -> Tensor:
    """The stored splats of some rows, decoded at the size of the originals; where there are none, the originals.

    Returns:
        uint8 [image, channel, row, column].

    Raises:
        StoreCorruptError: splats that are not finite.
    """
    header = store.header
    if not header.gaussians:
        return originals(store, rows)
    parts = [
        to_uint8(
            decode(
                _splats(store, rows[first : first + _ROWS_AT_ONCE]),
                layout=header.splat_layout,
                codec=header.codec,
                height=header.height,
                width=header.width,
            )
        )
        for first in range(0, len(rows), _ROWS_AT_ONCE)
    ]
    return as_channels_first(np.concatenate(parts))


def as_channels_first(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [image, row, column, channel] as [image, channel, row, column]."""
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def as_channels_last(pixels: Tensor) -> NDArray[np.uint8]:
    """uint8 [image, channel, row, column] as [image, row, column, channel]."""
    return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())


def labels(store: SplatStore, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Labels of some rows, -1 where there is none."""
    return _read(store, "label", rows).astype(np.int64)


def _splats(store: SplatStore, rows: NDArray[np.int64]) -> NDArray[Any]:
    splats = _read(store, "splats", rows)
    require_finite(splats, rows, store)
    return splats


def _read(store: SplatStore, name: str, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Rows in the order asked for; read in the order in which they are stored, whose blocks are then read once."""
    order = np.argsort(rows, kind="stable")
    values = store.read([name], [int(row) for row in rows[order]])[name]
    result = np.empty_like(values)
    result[order] = values
    return result


def content_identities(store: SplatStore, rows: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
    """What tells the contents of done rows apart: the content hash, or that of the splats where there is none.

    Args:
        store: open for reading.
        rows: numbers of rows that are done.

    Returns:
        uint8 [row, CONTENT_HASH_BYTES]; in a store of images only without hashes that of the pixels.
    """
    numbers = [int(row) for row in rows]
    hashes = store.read(["content_hash"], numbers)["content_hash"].copy()
    unknown = np.flatnonzero(~hashes.any(axis=1))
    # Pixels only where there is nothing else: a row without a hash may never have had any.
    kind = "splats" if "splats" in store.arrays else "image"
    for first in range(0, len(unknown), _HASHED_AT_ONCE):
        part = unknown[first : first + _HASHED_AT_ONCE]
        values = store.read([kind], [numbers[position] for position in part])[kind]
        for position, value in zip(part, values, strict=True):
            hashes[position] = _identity(value, pixels=kind == "image")
    return hashes


def _identity(value: NDArray[Any], *, pixels: bool) -> NDArray[np.uint8]:
    if pixels:
        return content_hash(value)
    digest = hashlib.blake2b(f"splats {value.shape} {value.dtype.str}".encode(), digest_size=CONTENT_HASH_BYTES)
    digest.update(np.ascontiguousarray(value).tobytes())
    return np.frombuffer(digest.digest(), np.uint8)
