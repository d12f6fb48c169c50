"""Kernel ridge regression in folds, and squared distances, against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics.pairwise import euclidean_distances
from sklearn.model_selection import KFold

from pipeline import kernel_ridge as module
from pipeline.kernel_ridge import (
    FOLDS,
    RIDGES,
    FoldSums,
    kernel_width,
    out_of_fold_error,
    shuffled_folds,
    squared_distances,
)


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


ROWS, TARGETS = 60, 7


@pytest.fixture(scope="module")
def inputs() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(ROWS, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def kernel(inputs: np.ndarray) -> np.ndarray:
    squared = squared_distances(inputs).astype(np.float64)
    return np.exp(-squared / kernel_width(squared))


@pytest.fixture(scope="module")
def targets(inputs: np.ndarray) -> np.ndarray:
    generator = np.random.default_rng(1)
    noise = 0.3 * generator.normal(size=(ROWS, TARGETS))
    return (np.sin(inputs @ generator.normal(size=(4, TARGETS))) + noise).astype(np.float32)


def _predict_out_of_fold(kernel: np.ndarray, targets: np.ndarray, folds: list[np.ndarray], ridge: float) -> np.ndarray:
    """Each row predicted by scikit-learn from the other folds."""
    expected = np.empty(targets.shape)
    for test in folds:
        train = np.setdiff1d(np.arange(len(kernel)), test)
        model = KernelRidge(kernel="precomputed").set_params(alpha=ridge)
        model.fit(kernel[np.ix_(train, train)], targets[train])
        expected[test] = model.predict(kernel[np.ix_(test, train)])
    return expected


@pytest.mark.parametrize(("rows", "seed"), [(50, 0), (53, 7), (999, 2**32 - 1)])
def test_folds_are_those_of_scikit_learn(rows: int, seed: int) -> None:
    expected = [test for _, test in KFold(FOLDS, shuffle=True, random_state=seed).split(np.empty(rows))]
    for found, fold in zip(shuffled_folds(rows, seed), expected, strict=True):
        np.testing.assert_array_equal(found, fold)


@pytest.mark.parametrize("ridge", RIDGES)
def test_out_of_fold_errors_are_those_of_scikit_learn(kernel: np.ndarray, targets: np.ndarray, ridge: float) -> None:
    folds = shuffled_folds(ROWS, 0)
    square = np.square(targets - _predict_out_of_fold(kernel, targets, folds, ridge))
    found = out_of_fold_error(kernel, targets, folds, ridge)
    np.testing.assert_allclose(found, square.sum(axis=0), rtol=1e-4)
    counted = np.random.default_rng(2).random(targets.shape) < 0.5
    found = out_of_fold_error(kernel, targets, folds, ridge, counted)
    np.testing.assert_allclose(found, np.sum(square, axis=0, where=counted), rtol=1e-4)


def test_sums_with_every_row_a_landmark_give_the_regression_of_scikit_learn_and_its_best_ridge(
    kernel: np.ndarray, targets: np.ndarray
) -> None:
    folds = shuffled_folds(ROWS, 3)
    fold_of = np.empty(ROWS, np.int64)
    for number, fold in enumerate(folds):
        fold_of[fold] = number
    sums = FoldSums.empty(ROWS, TARGETS)
    for part in (slice(0, 25), slice(25, ROWS)):
        sums.add(kernel[part], targets[part].astype(np.float64), fold_of[part])
    variance = targets.var(axis=0).astype(np.float64)
    weights, ridge, r2 = sums.solve(kernel, variance)
    expected = {each: _predict_out_of_fold(kernel, targets, folds, each) for each in RIDGES}
    scores = {
        each: 1 - float(np.mean(np.square(targets - found).mean(axis=0) / variance)) for each, found in expected.items()
    }
    assert ridge == max(scores, key=lambda each: scores[each])
    assert r2 == pytest.approx(scores[ridge], abs=1e-3)
    predicted = np.einsum("rl,rlt->rt", kernel, weights[fold_of])
    np.testing.assert_allclose(predicted, expected[ridge], atol=1e-3)


def test_a_kernel_is_as_wide_as_the_median_distance_and_never_of_no_width() -> None:
    points = np.array([[0.0], [1.0], [3.0]], np.float32)
    assert kernel_width(squared_distances(points).astype(np.float64)) == 4
    mostly_equal = squared_distances(np.array([[0.0]] * 5 + [[0.5]], np.float32)).astype(np.float64)
    assert kernel_width(mostly_equal) == 0.25
    assert kernel_width(mostly_equal, least=1.0) == 1
    assert kernel_width(np.zeros((3, 3))) == 0
