"""Stores with valid Gaussians, some rows unfinished, for the tests of data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from upath import UPath

from data_schemas.records import RowBlock, RowState
from data_schemas.splats import Layout
from data_schemas.stores.open import create_store
from tests.data_schemas.stores.store_examples import example_header


def valid_splats(rows: int, gaussians: int, layout: Layout, seed: int = 0) -> np.ndarray:
    """Random numbers that every codec can render."""
    random = np.random.default_rng(seed)
    splats = random.uniform(0.1, 0.6, (rows, gaussians, layout.width))
    for name in ("x", "y", "rho"):
        splats[..., layout.index(name)] = random.uniform(-0.9, 0.9, (rows, gaussians))
    return splats


def make_store(
    path: Path | UPath, *, blocks: int = 3, unfinished: tuple[int, ...] = (5, 20), **header: Any
) -> RowBlock:
    """Writes blocks of 16 rows and returns all rows; those named are FAILED."""
    made = example_header(**header)
    count = blocks * made.block_rows
    rows = RowBlock.empty(count, made)
    if made.gaussians:
        rows.splats[:] = valid_splats(count, made.gaussians, made.splat_layout)
    if rows.image is not None:
        rows.image[:] = np.random.default_rng(1).integers(0, 256, rows.image.shape)
    rows.label[:] = np.arange(count) % 4 - 1
    rows.source_id[:] = [f"image {number}" for number in range(count)]
    rows.state[:] = RowState.DONE
    for row in unfinished:
        rows.state[row], rows.splats[row], rows.failure[row] = RowState.FAILED, 0, "cut short"
    with create_store(path, made) as store:
        store.append(rows.source_id.tolist())
        for block in range(blocks):
            part = slice(block * made.block_rows, (block + 1) * made.block_rows)
            columns: dict[str, Any] = {n: None if v is None else v[part] for n, v in vars(rows).items()}
            store.write_block(block, RowBlock(**columns))
    return rows
