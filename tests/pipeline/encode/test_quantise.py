"""Rounding to the store's type keeps every Gaussian valid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from data_schemas.records import SourceRecord, StoreHeader
from pipeline.encode.block_decision import SMALLEST_SIGMA, quantise


def header(**changes: Any) -> StoreHeader:
    fields: dict[str, Any] = {
        "codec": "additive/1",
        "layout": "grey",
        "gaussians": 2,
        "height": 4,
        "width": 4,
        "channels": 1,
        "source": SourceRecord(name="test"),
    }
    return StoreHeader(**{**fields, **changes})


def one(sigma_x: float = 0.1, sigma_y: float = 0.2, rho: float = 0.3, grey: float = 0.4, x: float = 0.5) -> Any:
    return np.array([[[sigma_x, sigma_y, rho, grey, x, -0.5]] * 2], np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_ordinary_numbers_are_only_rounded(dtype: str) -> None:
    stored, problems = quantise(one(), header(dtype=dtype))
    assert problems == [""]
    np.testing.assert_array_equal(stored, one().astype(dtype), strict=True)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("rho", [0.99999999, -0.99999999, 1.0, -1.0])
def test_rho_stays_inside(dtype: str, rho: float) -> None:
    stored, _ = quantise(one(rho=rho), header(dtype=dtype))
    assert (np.abs(stored[..., 2]) < 1).all()
    assert (np.abs(stored[..., 2]) > 0.999).all()


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("sigma", [1e-9, 1e-30, 0.0])
def test_sigma_stays_above_zero(dtype: str, sigma: float) -> None:
    stored, _ = quantise(one(sigma_x=sigma, sigma_y=sigma), header(dtype=dtype))
    assert (stored[..., :2] == SMALLEST_SIGMA).all()


def test_bounded_colours_are_bounded_and_signed_ones_are_not() -> None:
    low, _ = quantise(one(grey=-0.25), header())
    high, _ = quantise(one(grey=1.25), header())
    assert (low[..., 3] == 0).all()
    assert (high[..., 3] == 1).all()
    signed, _ = quantise(one(grey=-2.5), header(colours="signed"))
    assert (signed[..., 3] == -2.5).all()


def test_numbers_beyond_float16_are_a_problem_with_a_way_out() -> None:
    stored, problems = quantise(one(grey=1e6), header(dtype="float16", colours="signed"))
    assert "--dtype float32" in problems[0]
    assert not stored.any()
    assert quantise(one(grey=1e6), header(colours="signed"))[1] == [""]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_a_problem_of_their_image_alone(value: float) -> None:
    splats = np.concatenate([one(), one(x=value), one()])
    stored, problems = quantise(splats, header())
    assert [bool(problem) for problem in problems] == [False, True, False]
    assert "x of Gaussian 0" in problems[1]
    assert not stored[1].any()
    np.testing.assert_array_equal(stored[2], one()[0])
