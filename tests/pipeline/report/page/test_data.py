"""What the scripts of a page read is what the store holds, within the bytes that a page may have."""

from __future__ import annotations

import base64
import gzip
from typing import Any

import numpy as np
import pytest

from data_schemas.records import RowState
from data_schemas.splats import layout_for
from pipeline.report.page.data import EMPTY, FAILED, LOSSLESS, UNMEASURED, pack_rows, psnr_codes, splat_table
from pipeline.report.statistics import read_rows


def unpacked(listed: dict[str, Any]) -> tuple[list[str], np.ndarray]:
    """Names, and uint32 [3, row]: row, code, label + 1, as the script reads them."""
    raw = {}
    for name in ("names", "columns"):
        data = base64.b64decode(listed[name]["data"])
        raw[name] = gzip.decompress(data) if listed[name]["form"] == "gzip" else data
    planes = np.frombuffer(raw["columns"], np.uint8).reshape(3, 4, listed["kept"])
    values = np.ascontiguousarray(planes.transpose(0, 2, 1)).view("<u4")[..., 0].copy()
    values[0] = np.cumsum(values[0], dtype=np.uint32) - 1
    return raw["names"].decode().split("\n") if listed["kept"] else [], values


def test_every_row_is_listed(make_store, fail_row) -> None:
    store = make_store(6)
    store.rows.psnr[:] = [40.004, 7.126, np.inf, np.nan, 0, 50]
    fail_row(store, 4)
    store.rows.state[5] = RowState.EMPTY
    store.rows.source_id[1] = "two\nlines \u202e.png"
    listed = pack_rows(store, read_rows(store), ("circle", "square", "star"))
    names, values = unpacked(listed)
    assert names == ["00000.png", "two\\nlines \\u202e.png", *(f"{row:05d}.png" for row in range(2, 6))]
    assert values.tolist() == [
        [0, 1, 2, 3, 4, 5],
        [8 + 4000, 8 + 713, LOSSLESS, UNMEASURED, FAILED, EMPTY],
        [1, 2, 3, 1, 0, 3],
    ]
    assert (listed["total"], listed["kept"], listed["classes"]) == (6, 6, ["circle", "square", "star"])


def test_codes_are_in_the_order_of_quality(make_store, fail_row) -> None:
    store = make_store(5)
    store.rows.psnr[:] = [0, 130.5, np.inf, np.nan, 20]
    fail_row(store, 4)
    assert np.argsort(psnr_codes(read_rows(store))).tolist() == [4, 3, 0, 1, 2]


def test_the_worst_rows_are_kept_where_not_all_fit(make_store) -> None:
    store = make_store(3000, gaussians=1, size=(2, 2), noise=0, with_images=False)
    random = np.random.default_rng(0)
    store.rows.psnr[:] = random.uniform(30, 60, 3000)
    store.rows.source_id[:] = [random.bytes(16).hex() for _ in range(3000)]
    rows = read_rows(store)
    listed = pack_rows(store, rows, (), most_bytes=30_000)
    assert len(listed["names"]["data"]) + len(listed["columns"]["data"]) <= 30_000
    names, values = unpacked(listed)
    assert 600 < listed["kept"] < 3000
    assert listed["total"] == 3000
    worst = np.sort(np.argsort(psnr_codes(rows), kind="stable")[: listed["kept"]])
    assert values[0].tolist() == worst.tolist()
    assert names == [store.rows.source_id[row] for row in worst]
    assert listed == pack_rows(store, rows, (), most_bytes=30_000)


def test_nothing_is_listed_of_nothing(make_store) -> None:
    store = make_store(0)
    listed = pack_rows(store, read_rows(store), ())
    assert unpacked(listed)[0] == []
    assert (listed["total"], listed["kept"]) == (0, 0)


def test_class_names_end_where_they_would_fill_the_page(make_store) -> None:
    store = make_store(3)
    names = tuple(f"class {number:060d}" for number in range(5000))
    spelled = pack_rows(store, read_rows(store), names)["classes"]
    assert spelled == list(names[: len(spelled)])
    assert 60_000 < sum(map(len, spelled)) <= 100_000


@pytest.mark.parametrize("alpha", [False, True])
def test_the_canvas_gets_the_numbers_in_its_order(alpha: bool) -> None:
    layout = layout_for(3, alpha=alpha)
    splats = np.arange(2 * layout.width, dtype=np.float16).reshape(2, layout.width)
    table = splat_table(splats, layout)
    names = ["sigma_x", "sigma_y", "rho", "x", "y"]
    assert table.dtype == np.float16
    np.testing.assert_array_equal(table[:, :5], splats[:, [layout.index(name) for name in names]])
    np.testing.assert_array_equal(table[:, 5], splats[:, layout.index("alpha")] if alpha else [1, 1])
    np.testing.assert_array_equal(table[:, 6:], splats[:, layout.colour_slice])
