from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from encoders.decode import decode
from pipeline.report.panels import (
    MAXIMUM_BYTES,
    NO_SOURCE,
    Panel,
    choose_rows,
    error_factor,
    make_panels,
    picture,
    png_bytes,
    sheet_bytes,
)
from pipeline.report.statistics import read_rows


def test_worst_median_and_best_by_psnr(make_store):
    store = make_store(31)
    psnr = np.random.default_rng(3).permutation(31).astype(np.float32) + 30
    store.rows.psnr[:] = psnr
    chosen = choose_rows(read_rows(store), 3)
    values = {group: [psnr[row] - 30 for g, row in chosen if g == group] for group in ("worst", "median", "best")}
    assert values == {"worst": [0, 1, 2], "median": [14, 15, 16], "best": [28, 29, 30]}


@pytest.mark.parametrize("images", range(12))
def test_no_image_is_shown_twice_in_small_stores(make_store, images: int):
    chosen = choose_rows(read_rows(make_store(images)), 4)
    rows = [row for _, row in chosen]
    assert len(set(rows)) == len(rows)
    assert len(rows) == (images if images < 3 else 3 * min(4, images // 3))


def test_ties_are_broken_by_ssim_then_row(make_store):
    store = make_store(9)
    store.rows.psnr[:] = np.inf
    store.rows.ssim[:] = 1
    store.rows.ssim[7] = 0.5
    assert [row for _, row in choose_rows(read_rows(store), 2)] == [7, 0, 2, 3, 6, 8]


def test_rows_without_a_measure_are_never_shown(make_store, fail_row):
    store = make_store(9)
    fail_row(store, 0)
    store.rows.psnr[1] = np.nan
    assert not {0, 1} & {row for _, row in choose_rows(read_rows(store), 3)}


def test_panels_hold_what_the_store_holds(make_store):
    store = make_store(20)
    panels, reason = make_panels(store, read_rows(store), ("circle", "square"), each=2, decoder=decode)
    assert reason == ""
    assert [panel.image.group for panel in panels] == ["worst"] * 2 + ["median"] * 2 + ["best"] * 2
    for panel in panels:
        row = panel.image.row
        assert panel.image.source_id == f"{row:05d}.png"
        assert panel.image.label_name == ["circle", "square", "2"][row % 3]
        assert panel.source is not None
        np.testing.assert_array_equal(panel.source, store.rows.image[row])
        error = panel.error
        assert error is not None
        expected = np.abs(panel.decoded.astype(int) - panel.source.astype(int))
        np.testing.assert_array_equal(error, expected)


def test_without_source_images_the_panels_say_so(make_store):
    store = make_store(20, with_images=False)
    panels, reason = make_panels(store, read_rows(store), (), each=2, decoder=decode)
    assert reason == NO_SOURCE
    assert len(panels) == 6
    assert all(panel.source is None and panel.error is None for panel in panels)


def test_a_codec_that_cannot_be_decoded_gives_a_reason(make_store):
    store = make_store(20)
    store.set_header(store.header.model_copy(update={"codec": "over/2"}))
    panels, reason = make_panels(store, read_rows(store), (), each=2, decoder=decode)
    assert panels == []
    assert "over/2" in reason


def _panel_of_error(panel: Panel, level: int) -> Panel:
    source = np.full_like(panel.decoded, 100)
    return Panel(panel.image, source, np.full_like(source, 100 + level), panel.splats)


@pytest.mark.parametrize(("level", "factor"), [(0, 100), (1, 100), (3, 50), (12, 20), (30, 5), (100, 2), (150, 1)])
def test_error_factor_fills_the_range_and_no_more(make_store, level: int, factor: int):
    store = make_store(3)
    panels, _ = make_panels(store, read_rows(store), (), each=1, decoder=decode)
    assert error_factor([_panel_of_error(panel, level) for panel in panels]) == factor


def test_pictures_keep_every_value(make_store):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    image = Image.open(io.BytesIO(png_bytes(picture(pixels))))
    np.testing.assert_array_equal(np.asarray(image)[..., 1], pixels[..., 0])
    np.testing.assert_array_equal(
        np.asarray(picture(pixels, 3))[..., 0], np.minimum(pixels[..., 0].astype(int) * 3, 255)
    )


def test_pictures_of_large_images_are_reduced():
    image = Image.open(io.BytesIO(png_bytes(picture(np.zeros((900, 300, 3), np.uint8)))))
    assert image.size == (85, 256)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(12, 10), (200, 160), (3, 90)])
@pytest.mark.parametrize("with_images", [True, False])
def test_contact_sheet_is_small_whatever_it_shows(make_store, size: tuple[int, int], with_images: bool):
    store = make_store(18, size=size, noise=120, with_images=with_images)
    panels, _ = make_panels(store, read_rows(store), (), each=6, decoder=decode)
    data = sheet_bytes(panels)
    assert len(data) < MAXIMUM_BYTES
    image = Image.open(io.BytesIO(data))
    image.load()
    assert image.width > 300
