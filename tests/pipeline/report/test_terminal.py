from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.report import build_report, report_table
from pipeline.report.terminal import MISSING, number, ratio_words, seconds, share, size_words


def text_of(renderable: object, width: int = 140) -> str:
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.slow
def test_table_holds_the_figures(make_store, fail_row, tmp_path):
    store = make_store(80)
    for row in range(8):
        fail_row(store, row, f"[bold]reason[/bold] {row}")
    store.rows.psnr[20] = float("nan")
    report = build_report(store, tmp_path).report
    text = text_of(report_table(report))
    assert report.predictability is not None
    for shown in (
        f"{report.quality.of_mean_error:.2f} dB",
        "72 done, 8 failed, 0 empty",
        f"{report.predictability.r2:.3f}",
        "1 done without a PSNR or SSIM",
        "00000.png: [bold]reason[/bold] 0",
        "and 3 more, all in report.json",
        "of CPU time",
    ):
        assert shown in text, shown


def test_table_of_an_empty_store(make_store, tmp_path):
    report = build_report(make_store(0), tmp_path).report
    assert f"mean {MISSING}, median {MISSING} dB" in text_of(report_table(report))


@pytest.mark.slow
def test_table_fits_a_narrow_terminal(make_store, tmp_path):
    report = build_report(make_store(60), tmp_path).report
    assert max(len(line) for line in text_of(report_table(report), 60).splitlines()) <= 60


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, MISSING), (0, "0 %"), (1, "100 %"), (0.0001, "< 0.1 %"), (0.99999, "> 99.9 %"), (0.1234, "12.3 %")],
)
def test_shares_never_round_to_all_or_nothing(value: float | None, words: str):
    assert share(value) == words


@pytest.mark.parametrize(
    ("value", "words"), [(None, MISSING), (2.5, "2.50 s"), (0.0123, "12.30 ms"), (2e-5, "20.0 \u00b5s"), (0, "0.00 s")]
)
def test_seconds(value: float | None, words: str):
    assert seconds(value) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, MISSING), (7.2, "7 bytes"), (9999, "9,999 bytes"), (12_345, "12.3 kB"), (2.5e6, "2.5 MB"), (3e9, "3.0 GB")],
)
def test_sizes(value: float | None, words: str):
    assert size_words(value) == words


def test_ratios_below_one_are_expansion():
    assert ratio_words(784 / 1200) == "0.65 (expansion: 1.53 times as large)"
    assert ratio_words(2.56) == "2.56 (compression)"
    assert ratio_words(None) == MISSING
    assert number(1234.5, 1) == "1,234.5"
    assert [number(value, 4) for value in (3e-5, -3.4e-5, 0.0, 5e-5)] == ["3e-5", "-3e-5", "0.0000", "0.0001"]


@pytest.mark.slow
def test_images_that_became_flat_are_counted_wherever_the_report_is_read(make_store, tmp_path):
    store = make_store(4)
    run = store.header.runs[-1].model_copy(update={"noted": {"flattened": 3, "invented later": 2}})
    source = store.header.source.model_copy(update={"background": "#ffffff"})
    store.set_header(store.header.model_copy(update={"runs": (run,), "source": source}))
    built = build_report(store, tmp_path, panels=0)
    assert built.report.noted == {"flattened": 3, "invented later": 2}
    assert "--background '#ffffff'" in (built.report.store.command or "")
    table, page = text_of(report_table(built.report)), built.html_path.read_text(encoding="utf-8")
    for text in (table, page):
        assert "3 images of more than 8 bits are of one grey or nearly" in text
        assert "2 images are noted as invented later" in text
    assert "transparency laid over #ffffff" in page
