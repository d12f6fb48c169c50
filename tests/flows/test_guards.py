"""The quality gate judges the figures of the report."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from data_schemas.errors import QualityError
from flows.guards import require_generator_quality, require_quality
from pipeline.evaluate.figures import Evaluation
from pipeline.report import Report


def judge(of_mean_error: float | None, p1: float | None, *, floor: float | None, floor_p1: float | None) -> None:
    report = cast(Report, SimpleNamespace(quality=SimpleNamespace(of_mean_error=of_mean_error, p1=p1)))
    require_quality(
        report, min_psnr=floor, min_psnr_p1=floor_p1, store=Path("a.zarr"), html_report=Path("a-report/report.html")
    )


@pytest.mark.parametrize(("floor", "floor_p1"), [(None, None), (30.0, None), (None, 25.0), (30.0, 25.0)])
def test_a_set_that_reaches_its_floors_passes(floor: float | None, floor_p1: float | None) -> None:
    judge(30.0, 25.0, floor=floor, floor_p1=floor_p1)


@pytest.mark.parametrize(
    ("floor", "floor_p1", "said"),
    [
        (30.01, 25.0, "PSNR of the mean error is 30.00 dB, below 30.01 dB (min_psnr)"),
        (30.0, 25.01, "PSNR of the 1st percentile is 25.00 dB, below 25.01 dB (min_psnr_p1)"),
    ],
)
def test_one_that_falls_short_is_named_with_its_figure(floor: float, floor_p1: float, said: str) -> None:
    with pytest.raises(QualityError) as caught:
        judge(30.0, 25.0, floor=floor, floor_p1=floor_p1)
    assert caught.value.got == f"a.zarr misses its quality: {said}"
    assert "a-report/report.html" in caught.value.next_step


def test_a_set_without_figures_reaches_no_floor() -> None:
    judge(None, None, floor=None, floor_p1=None)
    with pytest.raises(QualityError, match="unknown"):
        judge(None, None, floor=1.0, floor_p1=None)


def judge_generator(fid: float, recall: float, *, max_fid: float | None, min_recall: float | None) -> None:
    found = SimpleNamespace(
        headline=SimpleNamespace(fid=fid, recall=recall, evaluations=20, n=1000),
        features=SimpleNamespace(label="selfsup-01234567"),
        generator=SimpleNamespace(name="splatdit (small)"),
        reference=SimpleNamespace(source="sprites"),
    )
    require_generator_quality(
        cast(Evaluation, found), max_fid=max_fid, min_recall=min_recall, page=Path("run/evaluation/evaluation.html")
    )


@pytest.mark.parametrize(("max_fid", "min_recall"), [(None, None), (12.0, None), (None, 0.5), (12.0, 0.5)])
def test_a_generator_that_is_good_enough_passes(max_fid: float | None, min_recall: float | None) -> None:
    judge_generator(12.0, 0.5, max_fid=max_fid, min_recall=min_recall)


def test_a_generator_that_falls_short_is_named_with_all_figures() -> None:
    with pytest.raises(QualityError) as caught:
        judge_generator(12.01, 0.49, max_fid=12.0, min_recall=0.5)
    assert caught.value.got == (
        "splatdit (small) on sprites misses its quality at 20 evaluations and n = 1,000: "
        "FID[selfsup-01234567] is 12.01, above 12 (max_fid), recall is 0.490, below 0.5 (min_recall)"
    )
    assert "evaluation.html" in caught.value.next_step


@pytest.mark.parametrize(("fid", "recall"), [(float("nan"), 1.0), (1.0, float("nan"))])
def test_a_figure_that_is_no_number_is_not_good_enough(fid: float, recall: float) -> None:
    with pytest.raises(QualityError):
        judge_generator(fid, recall, max_fid=5.0, min_recall=0.5)
