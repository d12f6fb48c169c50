"""Which images of some blocks have no splats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_schemas.errors import StoreCorruptError
from data_schemas.stores.open import open_store
from pipeline.encode.compute import open_compute
from pipeline.encode.job import resolve_job
from pipeline.encode.plan import plan_encode
from pipeline.encode.rows import UnfinishedRows, find_unfinished_rows


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 20 rows in blocks of 8, of which the middle one is done."""
    path = tmp_path_factory.mktemp("half") / "demo.zarr"
    job = resolve_job("demo", path, limit=20, gaussians=4, steps=1, workers=1, block_rows=8)
    with open_compute(plan_encode(job)) as compute:
        compute.encode([1])
    return path


@pytest.mark.slow
def test_rows_that_are_not_done_are_counted_and_the_first_are_named(half: Path) -> None:
    with open_store(half) as store:
        names = list(store.read(["source_id"])["source_id"])
        assert find_unfinished_rows(store, [1]) == UnfinishedRows(0, ())
        assert find_unfinished_rows(store, [2]) == UnfinishedRows(4, tuple(names[16:]))
        found = find_unfinished_rows(store, [0, 1, 2], most_named=10)
    assert found == UnfinishedRows(12, (*names[:8], *names[16:18]))
    assert str(found) == ", ".join(found.named) + " and 2 more"
    assert str(UnfinishedRows(1, ("a",))) == "a"


def test_a_block_that_cannot_be_read_counts_as_a_whole(half: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_store(half) as store:
        read = store.read

        def damaged(names: Any, rows: slice) -> dict[str, np.ndarray]:
            if rows.start == 8:
                raise StoreCorruptError("a flipped bit", rows=range(8, 16))
            return read(names, rows)

        monkeypatch.setattr(store, "read", damaged)
        assert find_unfinished_rows(store, [1], most_named=2) == UnfinishedRows(8, ("row 8", "row 9"))
