"""Figures as people read them: each kind in one form wherever it is shown."""

from __future__ import annotations

import math

import pytest

from pipeline.format import (
    MISSING,
    format_bytes,
    format_cell,
    format_duration,
    format_loss,
    format_number,
    format_part,
    format_psnr,
    format_rate,
    format_ratio,
    format_seconds,
    format_share,
    list_counts,
    list_names,
    list_parts,
)


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, MISSING), (0, "0 %"), (1, "100 %"), (0.0001, "< 0.1 %"), (0.99999, "> 99.9 %"), (0.1234, "12.3 %")],
)
def test_shares_never_round_to_all_or_nothing(value: float | None, words: str) -> None:
    assert format_share(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(None, MISSING), (2.5, "2.50 s"), (0.0123, "12.30 ms"), (2e-5, "20.0 \u00b5s"), (0, "0.00 s")]
)
def test_seconds(value: float | None, words: str) -> None:
    assert format_seconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, MISSING), (7.2, "7 bytes"), (9999, "9,999 bytes"), (12_345, "12.3 kB"), (2.5e6, "2.5 MB"), (3e9, "3.0 GB")],
)
def test_sizes(value: float | None, words: str) -> None:
    assert format_bytes(value) == words


def test_ratios_below_one_are_expansion() -> None:
    assert format_ratio(784 / 1200) == "0.65 (expansion: 1.53 times as large)"
    assert format_ratio(2.56) == "2.56 (compression)"
    assert format_ratio(None) == MISSING
    assert format_number(1234.5, 1) == "1,234.5"
    assert [format_number(value, 4) for value in (3e-5, -3.4e-5, 0.0, 5e-5)] == ["3e-5", "-3e-5", "0.0000", "0.0001"]


def test_cells_scale_their_figure_and_show_a_dash_for_none() -> None:
    assert format_cell(None, ".2f", 100) == "-"
    assert format_cell(0.12345, ".1f", 100) == "12.3"
    assert [format_cell(12345, form) for form in ("d", ",", "+.2f")] == ["12345", "12,345", "+12345.00"]


@pytest.mark.parametrize(("seconds", "words"), [(-1, "0:00"), (123.4, "2:03"), (3599.6, "1:00:00"), (3723, "1:02:03")])
def test_durations(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_a_psnr_of_no_error_is_called_lossless() -> None:
    assert [format_psnr(psnr) for psnr in (37.456, math.inf, None)] == ["37.46 dB", "lossless", "lossless"]
    assert format_psnr(37.456, decimals=1) == "37.5 dB"
    assert format_psnr(None, none="no PSNR") == "no PSNR"
    assert format_psnr(math.inf, infinite="no error") == "no error"


def test_parts_that_are_unknown_are_left_out() -> None:
    assert list_parts(format_rate(1234.5), format_loss(None), format_loss(0.12345)) == "1,234 images/s, loss 0.1235"
    assert list_parts(format_rate(None), format_rate(7.25, 1)) == "7.2 images/s"
    assert list_counts({"fitted": 1000, "kept": 0, "failed": 3}) == "1,000 fitted, 3 failed"
    assert [format_part(200, 1256), format_part(1256, 1256)] == ["200 of 1,256", "1,256"]


def test_names_beyond_the_first_ones_are_counted() -> None:
    names = ["a", "b", "c"]
    assert list_names(names) == "a, b, c"
    assert list_names(names, most=3, by=";") == "a; b; c"
    assert list_names(names, most=2) == "a, b and 1 more"
    assert list_names(names, most=2, by=";") == "a; b; and 1 more"
    assert list_names(names, count=1234) == "a, b, c and 1,231 more"
    assert list_names([]) == ""
