"""Which images of a store are the same, also where rows have no content hash.

Published layouts that are converted without their images give rows whose ``content_hash`` is zeros. Zeros are equal,
the images are not: there the splats are hashed instead.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import CONTENT_HASH_BYTES, content_hash
from data_schemas.store import SplatStore

_ROWS_AT_ONCE = 1024


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
    for first in range(0, len(unknown), _ROWS_AT_ONCE):
        part = unknown[first : first + _ROWS_AT_ONCE]
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
