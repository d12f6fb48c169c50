"""How much faster a data set is than a plain loop, and how near it comes to tensors in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.dataset import make_store, table


@pytest.mark.soak
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_a_data_set_is_fast(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"random.{suffix}"
    make_store(path, 8192, 1024)
    found = table(path, few=128, repeats=5)
    rows, streamed, whole, items, tensors = found.values()
    assert streamed > 5 * rows, found
    assert min(whole, items) > 0.8 * tensors, found
