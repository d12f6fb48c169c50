"""Artifacts: what they show, that text from outside stays text, and that they never fail a run."""

from __future__ import annotations

import base64
import io
import logging
from contextlib import nullcontext
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from PIL import Image

import flows.artifacts.report as artifacts
from data_schemas.errors import SplatSpaceError
from flows.artifacts.history import Point
from flows.artifacts.report import (
    LARGEST_SHEET_BYTES,
    MOST_FAILED_LISTED,
    artifact_key,
    escape,
    figure_rows,
    publish_report,
    report_markdown,
    small_sheet,
)
from pipeline.report import ReportSummary
from pipeline.report.figures import (
    CostFigures,
    DeadFigures,
    FailedImage,
    ImageCounts,
    PanelImage,
    QualityFigures,
    Report,
    SizeFigures,
    SourceFacts,
    StoreFacts,
)

NASTY = '<img src=x onerror="alert(1)">|`*a*`](javascript:x)\n# head.png'
NOW = datetime(2026, 1, 2, tzinfo=UTC)


def make_report(**changes: Any) -> Report:
    """A report of ten images, one of them failed."""
    fields: dict[str, Any] = dict(
        created=NOW,
        store=StoreFacts(
            name="demo.zarr", codec="additive/1", layout="rgb", gaussians=150, parameters=("x", "y"), height=32,
            width=32, channels=3, dtype="float32", colours="bounded", start="transport", engine="cpu",
            devices=("a CPU",), seed=0, settings={}, versions={}, created=NOW, updated=NOW, schema_version=1,
            command=None,
        ),
        source=SourceFacts(name="demo", split="all", digest="", licence="", attribution="", removed_duplicates=0),
        images=ImageCounts(total=10, done=9, failed=1, empty=0),
        quality=QualityFigures(images=9, mean=48.126, median=48.0, of_mean_error=47.5, lossless_share=0.125),
        cost=CostFigures(runs=1, images_fitted=9, images_reused=0, core_seconds_per_image=0.0115, wall_seconds=3.0),
        dead=DeadFigures(mean=1.5, share=0.01, maximum=3),
        size=SizeFigures(
            image_numbers=3072, splat_numbers=1200, image_bytes=3072, splat_bytes=4800, ratio_numbers=2.56,
            ratio_bytes=0.64,
        ),
        predictability=None,
        panels=(
            PanelImage(group="worst", row=3, source_id=NASTY, label=0, label_name="a|b", psnr=31.4, lossless=False,
                       ssim=0.9),
            PanelImage(group="best", row=5, source_id="best one", label=0, label_name="c", psnr=60.0, lossless=False,
                       ssim=1.0),
        ),
        failed=(FailedImage(row=7, source_id="cut.png", reason="cut short"),),
    )  # fmt: skip
    return Report(**{**fields, **changes})


class _Tags(HTMLParser):
    """Tags with their attributes, and the text of every table cell."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self._in_cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "td":
            self.cells.append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.cells[-1] += data


def rendered(markdown: str) -> _Tags:
    parser = _Tags()
    parser.feed(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))
    return parser


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("mnist", "psnr-mnist"),
        ("sprites64", "psnr-sprites64"),
        ("sprites (900 of 81648 images)", "psnr-sprites"),
        ("My Photos", "psnr-my-photos"),
        ("Summer_2026", "psnr-summer-2026"),
        ("../..", "psnr-images"),
        ("ÄÖ", "psnr-images"),
    ],
)
def test_keys_are_what_prefect_allows(name: str, key: str) -> None:
    assert artifact_key(name) == key


def test_figures_are_rounded_and_a_missing_one_is_a_dash() -> None:
    shown = dict(figure_rows(make_report()))
    assert shown["images encoded"] == "9 of 10"
    assert shown["images failed"] == "1"
    assert shown["PSNR mean, dB"] == "48.13"
    assert shown["lossless after rounding, %"] == "12.5"
    assert shown["core-ms per image"] == "11.50"
    assert shown["PSNR minimum, dB"] == "-"
    assert shown["predictability R2"] == "-"


def test_the_page_names_what_failed_and_what_is_worst() -> None:
    page = report_markdown(make_report(), store=Path("out/demo.zarr"), html_report=Path("out/r.html"), sheet=None)
    assert "## 1 failed" in page
    assert "| 7 | cut.png | cut short |" in page
    assert "31.40" in page
    assert "best one" not in page
    assert "out/demo.zarr" in page
    assert "out/r.html" in page


def test_a_long_list_of_failures_is_cut_and_counted() -> None:
    failed = tuple(FailedImage(row=row, source_id=f"image{row}", reason="cut") for row in range(MOST_FAILED_LISTED + 5))
    page = report_markdown(make_report(failed=failed), store=Path("s.zarr"), html_report=None, sheet=None)
    assert f"## {len(failed)} failed" in page
    assert "and 5 more" in page
    assert f"image{MOST_FAILED_LISTED - 1} " in page
    assert f"image{MOST_FAILED_LISTED} " not in page


def test_text_from_outside_stays_text() -> None:
    failed = (FailedImage(row=1, source_id=NASTY, reason=NASTY),)
    source = SourceFacts(name=NASTY, split="all", digest="", licence="", attribution="", removed_duplicates=0)
    page = report_markdown(
        make_report(failed=failed, source=source), store=Path("s.zarr"), html_report=None, sheet=None
    )
    parsed = rendered(page)
    names = [tag for tag, _ in parsed.tags]
    assert set(names) <= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert names.count("h1") == 1
    # In one cell and unchanged but for the line break: a bar that counts would cut the cell.
    assert parsed.cells.count(NASTY.replace("\n", " ")) == 3


@pytest.mark.parametrize(
    "text",
    [
        "a](javascript:alert(1))",
        "![x](https://somewhere.invalid/x.png)",
        "https://somewhere.invalid/a.png",
        "www.somewhere.invalid",
        "somebody@somewhere.invalid",
        "<https://somewhere.invalid>",
        "`code` **bold** ~~gone~~ a|b",
        "&lt;b&gt; &#60;",
        "    # head",
        "\\",
    ],
)
def test_no_text_becomes_markup_or_a_link(text: str) -> None:
    page = f"{escape(text)}\n\n| head |\n| --- |\n| {escape(text)} |\n"
    for viewer in (MarkdownIt("commonmark", {"html": True}).enable("table"), MarkdownIt("gfm-like", {"html": True})):
        parser = _Tags()
        parser.feed(viewer.render(page))
        assert {tag for tag, _ in parser.tags} == {"p", "table", "thead", "tbody", "tr", "th", "td"}
        assert parser.cells == [" ".join(text.split())]


def test_what_cannot_be_shown_is_replaced() -> None:
    assert escape("a\u202egnp.exe\x1b[31m\udc80") == "a\ufffdgnp.exe\ufffd\\[31m\ufffd"


def test_escape_keeps_ordinary_names_readable() -> None:
    assert escape("walk/left 07.png") == "walk/left 07.png"
    assert escape("a & b\n<c>") == "a &amp; b &lt;c&gt;"


def picture_of(size: int) -> bytes:
    """A PNG of noise, which hardly compresses."""
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (size, size, 3), np.uint8)).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.slow
def test_the_picture_is_shown_and_a_large_one_is_made_small() -> None:
    small, large = picture_of(16), picture_of(700)
    assert small_sheet(small) == small
    assert len(large) > LARGEST_SHEET_BYTES
    shrunk = small_sheet(large)
    assert len(shrunk) <= LARGEST_SHEET_BYTES
    with Image.open(io.BytesIO(shrunk)) as picture:
        assert min(picture.size) > 200
    page = report_markdown(make_report(), store=Path("s.zarr"), html_report=None, sheet=shrunk)
    (source,) = [attributes["src"] for tag, attributes in rendered(page).tags if tag == "img"]
    assert source is not None
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == shrunk


@pytest.mark.parametrize("fault", [RuntimeError("server away"), SplatSpaceError("no report"), OSError("disk")])
def test_what_goes_wrong_with_an_artifact_is_logged_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, fault: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setattr(artifacts, "create_markdown_artifact", broken)
    monkeypatch.setattr(artifacts, "get_client", lambda **_: nullcontext())
    monkeypatch.setattr(artifacts, "newest_point", lambda *_: None)
    built = ReportSummary(make_report(), tmp_path / "report.json", tmp_path / "report.html", None)
    with caplog.at_level(logging.WARNING, logger="splatspace"):
        publish_report(built, tmp_path / "demo.zarr")
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("artifact psnr-demo was not made")


def test_an_entry_of_the_history_has_the_figures_in_its_description(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    made: list[tuple[str, str]] = []

    def make(_: str, *, key: str, description: str) -> None:
        made.append((key, description))

    def away(*_: object) -> None:
        raise OSError("server away")

    monkeypatch.setattr(artifacts, "create_markdown_artifact", make)
    monkeypatch.setattr(artifacts, "get_client", lambda **_: nullcontext())
    built = ReportSummary(make_report(), tmp_path / "report.json", tmp_path / "report.html", None)
    before = Point(psnr=47.1, p1=None, done=10, total=10, failed=0)
    monkeypatch.setattr(artifacts, "newest_point", lambda *_: before)
    publish_report(built, tmp_path / "demo.zarr")
    monkeypatch.setattr(artifacts, "newest_point", away)
    with caplog.at_level(logging.WARNING, logger="splatspace"):
        publish_report(built, tmp_path / "demo.zarr")
    line = "47.50 dB, 9 of 10 images, 1 failed"
    assert made == [("psnr-demo", f"{line}, +0.40 dB"), ("psnr-demo", line)], "without the comparison where it fails"
    assert [record.getMessage() for record in caplog.records] == ["comparison with the report before was not made"]
