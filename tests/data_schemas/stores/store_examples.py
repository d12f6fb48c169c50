"""Small headers and rows for the tests of stores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from data_schemas.records import RowBlock, RowState, SourceRecord, StoreHeader
from data_schemas.stores.contract import SplatStore


def example_header(**changes: Any) -> StoreHeader:
    """Grey-free small images: 6 x 5 RGB, K = 3, blocks of 16 rows in chunks of 16."""
    content: dict[str, Any] = {
        "codec": "additive/1",
        "layout": "rgb",
        "gaussians": 3,
        "height": 6,
        "width": 5,
        "channels": 3,
        "dtype": "float16",
        "anchors": ((-0.5, 0.25), (0.0, 0.0), (0.5, 1 / 3)),
        "start": "transport",
        "settings": {"steps": 40, "rates": [0.1, 0.2], "target_psnr": None},
        "source": SourceRecord(name="Bäume 🌳", split="train"),
        "block_rows": 16,
    }
    return StoreHeader(**{**content, **changes})


def example_rows(header: StoreHeader, count: int, seed: int, source_ids: Sequence[str] | None = None) -> RowBlock:
    """Rows with every state and with the special numbers (lossless, not done)."""
    random = np.random.default_rng(seed)
    rows = RowBlock.empty(count, header)
    rows.splats[:] = random.normal(size=rows.splats.shape)
    if rows.image is not None:
        rows.image[:] = random.integers(0, 256, rows.image.shape)
    rows.label[:] = random.integers(-1, 10, count)
    rows.psnr[:] = random.normal(40, 5, count)
    rows.ssim[:] = random.uniform(0.9, 1, count)
    rows.steps[:] = random.integers(0, 400, count)
    rows.dead[:] = random.integers(0, 3, count)
    rows.source_id[:] = [f"row {seed} {i}" for i in range(count)] if source_ids is None else list(source_ids)
    rows.content_hash[:] = random.integers(0, 256, rows.content_hash.shape)
    rows.state[:] = RowState.DONE
    rows.psnr[::5] = np.inf
    rows.state[3::7] = RowState.FAILED
    rows.psnr[3::7] = np.nan
    rows.splats[3::7] = 0
    rows.failure[3::7] = "cut short: größer"
    return rows


def content_of(store: SplatStore) -> dict[str, np.ndarray]:
    """Everything in a store."""
    return store.read(store.arrays)


def joined(blocks: Sequence[RowBlock]) -> dict[str, np.ndarray]:
    """The arrays of several blocks, one after another."""
    names = [name for name, value in vars(blocks[0]).items() if value is not None]
    return {name: np.concatenate([getattr(block, name) for block in blocks]) for name in names}


def assert_same(got: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    """Equal names, dtypes, shapes and values (bit for bit in numbers)."""
    assert set(got) == set(wanted)
    for name, values in wanted.items():
        assert got[name].dtype == values.dtype, name
        assert got[name].shape == values.shape, name
        if values.dtype == object:
            assert got[name].tolist() == values.tolist(), name
        else:
            assert got[name].tobytes() == values.tobytes(), name
