"""Splats that are not finite numbers are refused by name: drawn or learned from they make nonsense without a word."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreCorruptError
from data_schemas.stores.contract import SplatStore
from pipeline.format import list_names

MOST_NAMED = 5


def require_finite(splats: NDArray[Any], rows: Sequence[int] | NDArray[np.integer], store: SplatStore) -> None:
    """Refuses NaN and infinity, which no encoder writes but a damaged or foreign store may hold.

    Args:
        splats: [row, gaussian, parameter], of rows that are done.
        rows: their numbers in the store.
        store: for path and names.

    Raises:
        StoreCorruptError: names the rows.
    """
    bad = np.flatnonzero(~np.isfinite(splats).all(axis=(1, 2)))
    if not len(bad):
        return
    numbers = [int(rows[int(position)]) for position in bad]
    names = store.read(["source_id"], numbers[:MOST_NAMED])["source_id"]
    named = [f"row {row} ({name})" for row, name in zip(numbers, names, strict=False)]
    told = list_names(named, count=len(numbers))
    raise StoreCorruptError(
        f"{store.path}: the splats of {told} are not finite (NaN or infinity)",
        rows=numbers,
        allowed="finite numbers",
        next_step=f"'splatspace verify {store.path}' lists all such rows; restore a copy or encode them again",
    )
