from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from data_schemas.records import RowState, SourceRecord
from encoders.quality import psnr_of_mean_error as encoders_psnr_of_mean_error
from pipeline.report.figures import LOSSLESS_PSNR, encode_command, finite
from pipeline.report.set_sizes import set_images
from pipeline.report.statistics import (
    class_figures,
    cost_figures,
    count_images,
    dead_figures,
    histogram_of,
    list_failed_images,
    psnr_of_mean_error,
    quality_of,
    read_rows,
    size_figures,
)

INF = math.inf


def test_quality_is_that_of_numpy_on_finite_values():
    psnr = np.linspace(30, 50, 1001)
    ssim = np.linspace(0.9, 1, 1001)
    figures = quality_of(psnr, ssim)
    assert figures.images == 1001
    assert figures.mean == pytest.approx(40)
    assert figures.median == pytest.approx(40)
    assert (figures.minimum, figures.maximum) == (30, 50)
    assert [figures.p1, figures.p5, figures.p25, figures.p75, figures.p95] == pytest.approx([30.2, 31, 35, 45, 49])
    assert figures.ssim_mean == pytest.approx(0.95)
    assert figures.ssim_p1 == pytest.approx(0.901)
    assert figures.ssim_minimum == pytest.approx(0.9)
    assert figures.of_mean_error == pytest.approx(-10 * math.log10(np.mean(10 ** (-psnr / 10))), abs=1e-6)
    assert figures.lossless == 0


def test_lossless_images_count_at_the_cap_in_means_and_as_no_error_in_the_psnr_of_the_mean_error():
    figures = quality_of(np.array([40.0, INF]), np.array([0.9, 1.0]))
    assert figures.mean == pytest.approx((40 + LOSSLESS_PSNR) / 2)
    assert figures.maximum == LOSSLESS_PSNR
    assert figures.of_mean_error == pytest.approx(40 + 10 * math.log10(2), abs=1e-6)  # half the error of the one image
    assert (figures.lossless, figures.lossless_share) == (1, 0.5)


def test_all_lossless_is_the_cap_everywhere():
    figures = quality_of(np.full(5, INF), np.ones(5))
    assert {figures.mean, figures.median, figures.p1, figures.of_mean_error} == {LOSSLESS_PSNR}
    assert figures.lossless_share == 1


def test_quality_of_nothing_is_none_not_nan():
    figures = quality_of(np.zeros(0), np.zeros(0))
    assert figures.images == 0
    assert figures.mean is None
    assert figures.of_mean_error is None


def test_psnr_of_mean_error_agrees_with_the_encoders_own():
    psnr = np.random.default_rng(0).uniform(20, 60, 500)
    assert psnr_of_mean_error(psnr) == pytest.approx(encoders_psnr_of_mean_error(psnr))


def test_counts_cover_every_row(make_store, fail_row):
    store = make_store(10)
    fail_row(store, 3)
    store.rows.state[4] = RowState.EMPTY
    store.rows.psnr[5] = np.nan
    store.rows.ssim[6] = np.nan
    rows = read_rows(store)
    counts = count_images(rows)
    assert (counts.total, counts.done, counts.failed, counts.empty, counts.unmeasured) == (10, 8, 1, 1, 2)
    assert quality_of(rows.psnr[rows.measured], rows.ssim[rows.measured]).images == 6


def test_failed_images_are_all_named_with_their_reasons(make_store, fail_row):
    store = make_store(200)
    for row in range(0, 200, 2):
        fail_row(store, row, f"reason {row}")
    fail_row(store, 1, "")
    failed = list_failed_images(store, read_rows(store))
    assert len(failed) == 101
    assert [(f.row, f.source_id, f.reason) for f in failed[:3]] == [
        (0, "00000.png", "reason 0"),
        (1, "00001.png", "no reason was recorded"),
        (2, "00002.png", "reason 2"),
    ]


def test_classes_are_summarised_one_by_one(make_store, fail_row):
    store = make_store(30, labels=("circle", "square"))
    store.rows.label[:3] = 7  # a class that the source does not name
    fail_row(store, 5)
    store.rows.label[5] = 1
    store.rows.label[6] = -1
    rows = read_rows(store)
    classes = {c.label: c for c in class_figures(rows, ("circle", "square"))}
    assert [classes[label].name for label in (-1, 0, 1, 7)] == ["no label", "circle", "square", "7"]
    assert sum(c.done for c in classes.values()) == 29
    assert classes[1].failed == 1
    chosen = (store.rows.label == 0) & (store.rows.state == RowState.DONE)
    assert classes[0].quality == quality_of(rows.psnr[chosen], rows.ssim[chosen])


def test_failed_images_without_a_label_make_no_class(make_store, fail_row):
    store = make_store(12)
    fail_row(store, 0)
    assert [c.label for c in class_figures(read_rows(store), ("a", "b", "c"))] == [0, 1, 2]


def test_no_labels_no_classes(make_store):
    assert class_figures(read_rows(make_store(5, labels=())), ()) == ()


def test_cost_is_per_fitted_image_over_all_runs(make_store):
    store = make_store(10, runs=2)
    cost = cost_figures(store.header.runs, read_rows(store))
    assert cost.images_fitted == 20
    assert cost.core_seconds_per_image == pytest.approx(12 / 20)
    assert cost.fit_seconds_per_image == pytest.approx(4 / 20)
    assert cost.wall_seconds_per_image == pytest.approx(6 / 20)
    assert cost.steps_mean == 200


def test_cost_of_a_store_without_runs_is_unknown_not_zero(make_store):
    cost = cost_figures((), read_rows(make_store(10)))
    assert cost.core_seconds_per_image is None
    assert cost.wall_seconds is None


def test_dead_gaussians(make_store):
    store = make_store(4, gaussians=6)
    store.rows.dead[:] = [0, 3, 3, 6]
    dead = dead_figures(read_rows(store), 6)
    assert (dead.mean, dead.share, dead.maximum) == (3, 0.5, 6)


def test_size_follows_the_published_formula_and_counts_bytes(make_store):
    header = make_store(1).header.model_copy(
        update={"height": 28, "width": 28, "channels": 1, "layout": "grey_alpha", "gaussians": 150}
    )
    size = size_figures(header, {"splats": 40_000, "psnr": 40}, 10)
    assert size.ratio_numbers == pytest.approx(784 / (150 * 7), abs=1e-6)
    assert size.ratio_bytes == pytest.approx(784 / (150 * 7 * 4), abs=1e-6)
    assert size.ratio_bytes_on_disk == pytest.approx(784 / 4000)
    assert size.store_bytes == 40_040


def test_size_without_done_rows_has_no_bytes_per_image(make_store):
    size = size_figures(make_store(1).header, {"splats": 100}, 0)
    assert size.splat_bytes_on_disk is None
    assert size.ratio_bytes_on_disk is None


@pytest.mark.parametrize(
    "psnr", [[40.0], [40.0, 40.0], [30.2, 41.5, INF], [INF, INF], [40.0, 123.0], list(range(20, 60))]
)
def test_histogram_counts_every_image_once(psnr: list[float]):
    histogram = histogram_of(np.array(psnr, np.float64))
    assert sum(histogram.counts) == len(psnr)
    assert len(histogram.edges) == len(histogram.counts) + 1
    assert list(histogram.edges) == sorted(set(histogram.edges))


def test_command_names_every_choice(make_store):
    header = make_store(1, name="my photos", with_images=False).header
    command = encode_command(header, Path("/secret/place/a b.zarr"))
    assert command == (
        "splatspace encode 'my photos' --out 'a b.zarr' --split train --gaussians 6 --steps 200 --codec additive "
        "--colours bounded --start grid --dtype float32 --engine cpu --seed 0 --no-images"
    )


def test_command_names_size_and_number_of_the_images(make_store):
    header = make_store(1).header
    square = header.model_copy(update={"width": header.height})
    assert f"--split train --size {header.height} --limit 40 --gaussians 6" in str(
        encode_command(square, Path("a.zarr"), 40)
    )
    wide = header.model_copy(update={"width": header.height + 1})
    command = str(encode_command(wide, Path("a.zarr"), 40))
    assert "--size" not in command, "it makes squares: these images have the size that they had"
    assert "--limit 40" in command


def test_command_names_rounds_where_there_are_several(make_store):
    header = make_store(1).header
    rounds = header.model_copy(update={"settings": {"steps": 200, "target_psnr": 42.5, "rounds": 3}})
    assert "--steps 200 --target-psnr 42.5 --rounds 3 --codec" in str(encode_command(rounds, Path("a.zarr")))
    once = header.model_copy(update={"settings": {"steps": 200, "target_psnr": 42.5, "rounds": 1}})
    assert "--rounds" not in str(encode_command(once, Path("a.zarr")))


def test_no_command_for_a_store_that_was_not_fitted(make_store):
    header = make_store(1).header.model_copy(update={"engine": "", "start": None})
    assert encode_command(header, Path("a.zarr")) is None
    for engine in ("generated", "imported"):
        other = make_store(1).header.model_copy(update={"engine": engine})
        assert encode_command(other, Path("a.zarr")) is None


def test_finite_keeps_json_and_spells_the_rest():
    value = {"a": [1, 2.5, INF, -INF, math.nan], "b": (True, None, "x"), 3: Path("p")}
    assert finite(value) == {"a": [1, 2.5, "inf", "-inf", "nan"], "b": [True, None, "x"], "3": "p"}


def test_command_names_the_set_also_of_an_incomplete_copy(make_store):
    header = make_store(3, name="cifar10 (without data_batch_2, data_batch_3)").header
    assert str(encode_command(header, Path("a.zarr"))).startswith("splatspace encode cifar10 --out a.zarr")
    other = make_store(3, name="holiday (2024)").header
    assert str(encode_command(other, Path("a.zarr"))).startswith("splatspace encode 'holiday (2024)' --out a.zarr")


@pytest.mark.parametrize(
    ("name", "split", "images"),
    [
        ("sprites", "all", 81_648),
        ("mnist", "train", 60_000),
        ("cifar10 (without data_batch_2)", "train", None),
        ("holiday", "all", None),
        ("cats", "train", None),
    ],
)
def test_how_large_the_whole_set_is(name: str, split: str, images: int | None):
    assert set_images(SourceRecord(name=name, split=split)) == images
