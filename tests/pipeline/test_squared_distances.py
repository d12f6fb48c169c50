"""Squared distances, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics.pairwise import euclidean_distances

from pipeline import squared_distances as module
from pipeline.squared_distances import squared_distances


@pytest.mark.parametrize("rows_at_once", [4, 512])
def test_they_are_those_of_scikit_learn_whatever_the_portions(
    monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", rows_at_once)
    generator = np.random.default_rng(0)
    # Far from the origin and near each other: in float32 alone nothing would be left of the differences.
    first, second = ((1000 + generator.random((rows, 30), np.float32)).astype(np.float32) for rows in (9, 13))
    found = squared_distances(first, second)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, euclidean_distances(first, second, squared=True), rtol=1e-5)
    np.testing.assert_allclose(
        found, np.square(first[:, None].astype(float) - second[None].astype(float)).sum(axis=-1), rtol=1e-5
    )
    alone = squared_distances(first)
    np.testing.assert_allclose(alone, euclidean_distances(first, squared=True), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(alone, alone.T)
    assert not alone.diagonal().any()


def test_equal_rows_are_no_distance_apart() -> None:
    rows = np.full((3, 7), 0.1, np.float32)
    np.testing.assert_array_equal(squared_distances(rows, rows.copy()) < 1e-12, True)
