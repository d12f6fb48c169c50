"""Which images the page shows beyond the first, and that they fit."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from PIL import Image

from encoders.decode import decode
from pipeline.report.page.more_panels import MOST_PANELS, choose_more, make_page_panels
from pipeline.report.panels import make_panels
from pipeline.report.statistics import read_rows


def test_worst_of_each_class_then_of_all_then_some_across(make_store) -> None:
    store = make_store(600, gaussians=1, size=(2, 2), noise=0, with_images=False)
    store.rows.psnr[:] = 30 + np.random.default_rng(1).permutation(600) / 10
    store.rows.label[:] = np.arange(600) % 20
    rows = read_rows(store)
    taken = [int(row) for row in np.argsort(store.rows.psnr)[:6]]
    chosen = choose_more(rows, taken)
    by_group = {group: [row for one, row in chosen if one == group] for group in dict(chosen)}
    everywhere = [row for _, row in chosen]
    assert len(chosen) == MOST_PANELS == len(set(everywhere))
    assert not set(taken) & set(everywhere)
    assert list(by_group) == ["worst of its class", "next worst", "across the range"]
    of_classes = by_group["worst of its class"]
    for label in range(20):
        members = [row for row in np.argsort(store.rows.psnr) if row % 20 == label and row not in taken]
        assert [row for row in of_classes if row % 20 == label] == members[:6]
    first_of_class = [rows.psnr[of_classes[place]] for place in range(0, 120, 6)]
    assert first_of_class == sorted(first_of_class)
    left = [row for row in np.argsort(store.rows.psnr) if row not in {*taken, *of_classes}]
    assert by_group["across the range"][0] == left[0]
    assert by_group["across the range"][-1] == left[-1]
    assert len(by_group["across the range"]) == 24


@pytest.mark.parametrize("images", [0, 1, 2, 5])
def test_small_stores_show_each_image_once(make_store, images: int) -> None:
    rows = read_rows(make_store(images))
    assert sorted(row for _, row in choose_more(rows, [])) == list(range(images))


def test_more_classes_than_panels(make_store) -> None:
    store = make_store(300, gaussians=1, size=(2, 2), noise=0, with_images=False, labels=())
    store.rows.label[:] = np.arange(300)
    store.rows.psnr[:] = 60 - np.arange(300) / 10
    chosen = [row for group, row in choose_more(read_rows(store), []) if group == "worst of its class"]
    assert chosen == list(range(299, 179, -1))


def test_panels_hold_the_store_s_own_numbers(make_store) -> None:
    store = make_store(30)
    rows = read_rows(store)
    first, _ = make_panels(store, rows, (), each=2, decoder=decode)
    made = make_page_panels(store, rows, ("circle",), first, decoder=decode, most_bytes=1_000_000)
    assert list(made.splats) == [panel.image.row for panel in first]
    assert (len(made.more), made.left_out) == (24, 0)
    for panel in made.more:
        row = panel["row"]
        numbers = np.frombuffer(base64.b64decode(panel["splats"]), "<f4").reshape(6, 9)
        np.testing.assert_array_equal(numbers[:, 6:], store.rows.splats[row][:, store.header.splat_layout.colour_slice])
        pixels = Image.open(io.BytesIO(base64.b64decode(panel["source"].partition(",")[2])))
        assert store.rows.image is not None
        np.testing.assert_array_equal(np.asarray(pixels), store.rows.image[row])
        assert panel["psnr"] in (f"{rows.psnr[row]:.2f} dB", "lossless")


@pytest.mark.parametrize("most_bytes", [0, 900, 3_000, 9_000])
def test_what_does_not_fit_is_counted(make_store, most_bytes: int) -> None:
    store = make_store(30)
    rows = read_rows(store)
    first, _ = make_panels(store, rows, (), each=2, decoder=decode)
    made = make_page_panels(store, rows, (), first, decoder=decode, most_bytes=most_bytes)
    used = sum(map(len, made.splats.values()))
    used += sum(len(value) for panel in made.more for value in panel.values() if isinstance(value, str))
    assert used <= most_bytes
    assert len(made.more) + made.left_out == 24
    assert made.left_out > 0
