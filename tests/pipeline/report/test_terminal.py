from __future__ import annotations

import io

import pytest
from rich.console import Console

from pipeline.format import MISSING
from pipeline.report import build_report, report_table


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
