from __future__ import annotations

import io
import json

import numpy as np
import pytest
from rich.console import Console

from data_schemas.errors import StoreMismatchError
from data_schemas.records import RowState
from pipeline.report.compare import Comparison, compare_stores, comparison_table
from pipeline.report.figures import LOSSLESS_PSNR


def test_differences_are_b_minus_a_by_content(make_store):
    a, b = make_store(50, path="a.zarr"), make_store(50, path="b.h5")
    order = np.random.default_rng(0).permutation(50)
    for name in b.arrays:
        getattr(b.rows, name)[:] = getattr(b.rows, name)[order]
    a.rows.psnr[:] = 40
    b.rows.psnr[:] = 41
    b.rows.psnr[order == 7] = 30
    b.rows.psnr[order == 8] = 40.001
    b.rows.ssim[:] = a.rows.ssim[order] + np.float32(0.001)
    comparison = compare_stores(a, b)
    assert comparison.matched == 50
    assert (comparison.wins_a, comparison.wins_b, comparison.ties) == (1, 48, 1)
    assert comparison.differences.median == 1
    assert comparison.differences.minimum == -10
    assert comparison.differences.ssim_mean == pytest.approx(0.001, abs=1e-5)
    (worst,) = comparison.worst_regressions
    assert (worst.row_a, worst.source_id_a, worst.source_id_b) == (7, "00007.png", "00007.png")
    assert order[worst.row_b] == 7
    assert (worst.psnr_a, worst.psnr_b, worst.difference) == (40, 30, -10)
    assert len(comparison.best_gains) == 10
    assert (comparison.a.name, comparison.b.name) == ("a.zarr", "b.h5")
    assert comparison.a.quality.mean == 40


def test_a_store_against_itself_is_all_ties_even_where_lossless(make_store):
    store = make_store(40, noise=2)
    assert np.isinf(store.rows.psnr).any()
    comparison = compare_stores(store, store)
    assert comparison.ties == comparison.matched == 40
    assert comparison.differences.mean == 0
    assert comparison.worst_regressions == comparison.best_gains == ()
    assert comparison.settings == {}


def test_lossless_counts_at_the_cap(make_store):
    a, b = make_store(1), make_store(1)
    a.rows.psnr[:] = 60
    b.rows.psnr[:] = np.inf
    assert compare_stores(a, b).differences.mean == LOSSLESS_PSNR - 60


def test_whatever_is_not_compared_is_named_with_its_reason(make_store, fail_row):
    a, b = make_store(20, path="a.zarr"), make_store(20, path="b.zarr")
    fail_row(a, 0)
    a.rows.state[1] = RowState.EMPTY
    a.rows.psnr[2] = np.nan
    a.rows.content_hash[3] = 0
    a.rows.content_hash[4] = 200
    fail_row(b, 5)
    b.rows.psnr[6] = np.nan
    comparison = compare_stores(a, b)
    assert comparison.matched == 13
    assert {image.row: image.reason for image in comparison.unmatched_a} == {
        0: "failed",
        1: "not encoded yet",
        2: "has no PSNR or SSIM",
        3: "has no content hash",
        4: "not in b.zarr",
        5: "not in b.zarr",
        6: "not done in b.zarr, or held there less often",
    }
    assert len(comparison.unmatched_b) == 7
    assert comparison.unmatched_a[0].source_id == "00000.png"


def test_repeats_meet_in_order_and_the_rest_is_left_over(make_store):
    a, b = make_store(5), make_store(5)
    a.rows.content_hash[1:3] = a.rows.content_hash[0]  # three copies in A
    b.rows.content_hash[1] = b.rows.content_hash[0]  # two in B
    comparison = compare_stores(a, b)
    assert comparison.matched == 4
    assert [(i.row, i.reason) for i in comparison.unmatched_a] == [
        (2, "not done in memory.zarr, or held there less often")
    ]
    assert [i.row for i in comparison.unmatched_b] == [2]


def test_settings_that_differ_are_named(make_store):
    a, b = make_store(5), make_store(5, gaussians=9)
    b.rows.content_hash[:] = a.rows.content_hash
    b.set_header(b.header.model_copy(update={"settings": {**a.header.settings, "steps": 400, "new": float("inf")}}))
    assert compare_stores(a, b).settings == {
        "gaussians": (6, 9),
        "settings.steps": (200, 400),
        "settings.new": (None, "inf"),
    }


@pytest.mark.parametrize("images", [0, 5])
def test_nothing_in_common_is_an_error_that_says_what_both_hold(make_store, images: int):
    with pytest.raises(StoreMismatchError, match=rf"{images} measured images of 12x10x3.*5 measured images of 8x8x1"):
        compare_stores(make_store(images), make_store(5, size=(8, 8), channels=1))


def test_json_round_trips_without_nan(make_store, fail_row):
    a, b = make_store(10), make_store(10, runs=0)
    fail_row(a, 0)
    comparison = compare_stores(a, b)
    text = comparison.model_dump_json()
    assert Comparison.model_validate_json(text) == comparison
    assert "NaN" not in text
    assert json.loads(text)["matched"] == 9


def test_table(make_store, fail_row):
    a, b = make_store(10, path="[red]a.zarr"), make_store(10, path="b.h5", gaussians=9)
    b.rows.content_hash[:] = a.rows.content_hash
    a.rows.psnr[:] = 40
    b.rows.psnr[:] = 39
    fail_row(b, 0, "broken")
    console = Console(file=io.StringIO(), width=150, color_system=None)
    console.print(comparison_table(compare_stores(a, b)))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    for shown in (
        "9 images in both stores",
        "[red]a.zarr",
        "-1.00",
        "Worse: 00001.png",
        "Not compared: 1 images of A, 1 of B.",
        "B: 00000.png: failed",
        "gaussians (6 / 9)",
    ):
        assert shown in text, shown
