"""The vector type: every operation against numpy."""

import numba
import numpy as np
import pytest

from encoders import vector
from encoders.vector import LANES


@numba.njit(error_model="numpy")
def _operations(a, b, c, result):
    x, y, z = vector.load(a, 0), vector.load(b, 0), vector.load(c, 0)
    vector.store(result, 0, x + y)
    vector.store(result, LANES, x - y)
    vector.store(result, 2 * LANES, x * y)
    vector.store(result, 3 * LANES, x / y)
    vector.store(result, 4 * LANES, vector.fused(x, y, z))
    vector.store(result, 5 * LANES, vector.minimum(x, y))
    vector.store(result, 6 * LANES, vector.maximum(x, y))
    vector.store(result, 7 * LANES, vector.floor(x))
    vector.store(result, 8 * LANES, vector.ceil(x))
    vector.store(result, 9 * LANES, vector.magnitude(x))
    vector.store(result, 10 * LANES, vector.square_root(vector.magnitude(x)))
    vector.store(result, 11 * LANES, vector.lanes() + vector.splat(2.5))
    return vector.total(x), vector.largest(x)


def test_operations_are_those_of_numpy():
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(0, 3, (3, LANES)).astype(np.float32)
    result = np.empty(12 * LANES, np.float32)
    total, largest = _operations(a, b, c, result)
    expected = [
        a + b,
        a - b,
        a * b,
        a / b,
        a * b + c,
        np.minimum(a, b),
        np.maximum(a, b),
        np.floor(a),
        np.ceil(a),
        np.abs(a),
        np.sqrt(np.abs(a)),
        np.arange(LANES) + 2.5,
    ]
    np.testing.assert_allclose(result.reshape(12, LANES), np.array(expected, np.float32), rtol=1e-6, atol=1e-6)
    assert total == pytest.approx(a.sum(dtype=np.float64), abs=1e-5)
    assert largest == a.max()


@numba.njit(error_model="numpy")
def _entries(values, result):
    for at in range(len(values)):
        result[at] = vector.entry(values, len(values) - 1 - at)


def test_entries_are_single_numbers():
    values = np.random.default_rng(0).normal(size=13).astype(np.float32)
    result = np.empty_like(values)
    _entries(values, result)
    np.testing.assert_array_equal(result, values[::-1])


@numba.njit(error_model="numpy")
def _exponentials(values, result):
    for at in range(0, len(values), LANES):
        vector.store(result, at, vector.exponential(vector.load(values, at)))


def test_exponential_is_exact_to_eight_millionths():
    values = np.linspace(-87, 88, 4096 * LANES).astype(np.float32)
    result = np.empty_like(values)
    _exponentials(values, result)
    np.testing.assert_allclose(result, np.exp(values.astype(np.float64)), rtol=8e-6)


@numba.njit(error_model="numpy")
def _exponentials_to_rounding(values, result):
    for at in range(0, len(values), LANES):
        vector.store(result, at, vector.exponential_to_rounding(vector.load(values, at)))


def test_exponential_to_rounding_errs_by_little_more_than_its_argument():
    values = np.linspace(-87, 88, 4096 * LANES).astype(np.float32)
    result = np.empty_like(values)
    _exponentials_to_rounding(values, result)
    error = np.abs(result / np.exp(values.astype(np.float64)) - 1)
    assert (error < 2e-7 + 8e-8 * np.abs(values)).all()


def test_exponential_holds_its_argument():
    result = np.empty(LANES, np.float32)
    _exponentials(np.full(LANES, -1e30, np.float32), result)
    assert (result < 1e-37).all()
    _exponentials(np.full(LANES, 1e30, np.float32), result)
    assert np.isfinite(result).all()
    assert (result > 1e38).all()
    _exponentials_to_rounding(np.full(LANES, -87.1, np.float32), result)
    assert (result == 0).all()
    _exponentials_to_rounding(np.full(LANES, 1e30, np.float32), result)
    assert (result > 1e38).all()
    assert np.isfinite(result).all()


@numba.njit(error_model="numpy")
def _scatter(values, result, stride):
    a, b, c, d = (
        vector.load(values, 0),
        vector.load(values, LANES),
        vector.load(values, 2 * LANES),
        vector.load(values, 3 * LANES),
    )
    e, f, g, h = (
        vector.load(values, 4 * LANES),
        vector.load(values, 5 * LANES),
        vector.load(values, 6 * LANES),
        vector.load(values, 7 * LANES),
    )
    vector.scatter_totals(result, 1, stride, np.float32(2), a, b, c, d, e, f, g, h)


def test_scatter_totals_sums_each_vector():
    values = np.random.default_rng(0).normal(size=(8, LANES)).astype(np.float32)
    result = np.zeros(30, np.float32)
    _scatter(values.ravel(), result, 3)
    np.testing.assert_allclose(result[1:25:3], 2 * values.sum(axis=1), rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(result) == 8


@numba.njit(error_model="numpy")
def _flushed(value):
    before = vector.flush_denormals()
    result = value * np.float32(0.5)
    vector.restore_denormals(before)
    return result


def test_denormals_are_back_afterwards():
    tiny = np.full(4, 2e-38, np.float32)
    _flushed(tiny[0])
    assert (tiny * np.float32(0.1) > 0).all()
