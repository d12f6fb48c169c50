"""Artifacts: what they show, that text from outside stays text, and that they never fail a run."""

from __future__ import annotations

import base64
import logging
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from markdown_it import MarkdownIt
from PIL import Image

import flows.artifacts as artifacts
from data_schemas.errors import SplatSpaceError
from flows.artifacts import (
    LARGEST_PANEL_BYTES,
    MOST_FAILED_LISTED,
    artifact_key,
    escape,
    figure_rows,
    publish_report,
    report_markdown,
)
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
            devices=("a processor",), seed=0, settings={}, versions={}, created=NOW, updated=NOW, schema_version=1,
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
    ("dataset", "key"),
    [
        ("mnist", "psnr-mnist"),
        ("sprites64", "psnr-sprites64"),
        ("My Photos/Summer_2026.zip", "psnr-summer-2026"),
        ("../..", "psnr-images"),
        ("ÄÖ", "psnr-images"),
        ("C:\\pictures\\cats", "psnr-cats"),
    ],
)
def test_keys_are_what_prefect_allows(dataset: str, key: str) -> None:
    assert artifact_key(dataset) == key


def test_figures_are_rounded_and_a_missing_one_is_a_dash() -> None:
    shown = {row["figure"]: row["value"] for row in figure_rows(make_report())}
    assert shown["images encoded"] == "9 of 10"
    assert shown["images failed"] == "1"
    assert shown["PSNR mean, dB"] == "48.13"
    assert shown["lossless after rounding, %"] == "12.5"
    assert shown["core-ms per image"] == "11.50"
    assert shown["PSNR minimum, dB"] == "-"
    assert shown["predictability R2"] == "-"


def test_the_page_names_what_failed_and_what_is_worst() -> None:
    page = report_markdown(make_report(), store=Path("out/demo.zarr"), html_report=Path("out/r.html"), panel=None)
    assert "## 1 failed" in page
    assert "| 7 | cut.png | cut short |" in page
    assert "31.40" in page
    assert "best one" not in page
    assert "out/demo.zarr" in page
    assert "out/r.html" in page


def test_a_long_list_of_failures_is_cut_and_counted() -> None:
    failed = tuple(FailedImage(row=row, source_id=f"image{row}", reason="cut") for row in range(MOST_FAILED_LISTED + 5))
    page = report_markdown(make_report(failed=failed), store=Path("s.zarr"), html_report=None, panel=None)
    assert f"## {len(failed)} failed" in page
    assert "and 5 more" in page
    assert f"image{MOST_FAILED_LISTED - 1} " in page
    assert f"image{MOST_FAILED_LISTED} " not in page


def test_text_from_outside_stays_text() -> None:
    failed = (FailedImage(row=1, source_id=NASTY, reason=NASTY),)
    source = SourceFacts(name=NASTY, split="all", digest="", licence="", attribution="", removed_duplicates=0)
    page = report_markdown(
        make_report(failed=failed, source=source), store=Path("s.zarr"), html_report=None, panel=None
    )
    parsed = rendered(page)
    names = [tag for tag, _ in parsed.tags]
    assert set(names) <= {"h1", "h2", "p", "table", "thead", "tbody", "tr", "th", "td"}
    assert names.count("h1") == 1
    # In one cell and unchanged but for the line break: a bar that counts would cut the cell.
    assert parsed.cells.count(NASTY.replace("\n", " ")) == 3


def test_escape_keeps_ordinary_names_readable() -> None:
    assert escape("walk/left 07.png") == "walk/left 07.png"
    assert escape("a & b\n<c>") == "a &amp; b &lt;c&gt;"


def test_a_small_picture_is_shown_and_a_large_one_is_named(tmp_path: Path) -> None:
    panel = tmp_path / "panel.png"
    Image.new("RGB", (8, 8), "red").save(panel)
    page = report_markdown(make_report(), store=Path("s.zarr"), html_report=None, panel=panel)
    (source,) = [attributes["src"] for tag, attributes in rendered(page).tags if tag == "img"]
    assert source is not None
    assert base64.b64decode(source.removeprefix("data:image/png;base64,")) == panel.read_bytes()
    panel.write_bytes(b"\x00" * (LARGEST_PANEL_BYTES + 1))
    page = report_markdown(make_report(), store=Path("s.zarr"), html_report=None, panel=panel)
    assert "base64" not in page
    assert "panel.png" in page


@pytest.mark.parametrize("fault", [RuntimeError("server away"), SplatSpaceError("no report"), OSError("disk")])
def test_what_goes_wrong_with_an_artifact_is_logged_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise fault

    for name in ("create_markdown_artifact", "create_table_artifact", "create_progress_artifact"):
        monkeypatch.setattr(artifacts, name, broken)
    with caplog.at_level(logging.WARNING, logger="splatspace"):
        publish_report("demo", make_report(), store=Path("demo.zarr"))
        artifacts.progress_reporter(3, "shards")(1)
    messages = [record.getMessage() for record in caplog.records]
    assert [message.split(" was not made")[0] for message in messages] == [
        "artifact psnr-demo", "artifact psnr-demo-figures", "progress artifact",
    ]  # fmt: skip


def test_progress_is_sent_at_most_once_a_second_and_always_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[float] = []
    now = [0.0]
    monkeypatch.setattr(artifacts, "monotonic", lambda: now[0])
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda **_: uuid4())
    monkeypatch.setattr(artifacts, "update_progress_artifact", lambda _, progress: sent.append(progress))
    show = artifacts.progress_reporter(4, "shards")
    for finished, seconds in ((1, 0.5), (2, 1.5), (3, 1.6), (4, 1.7)):
        now[0] = seconds
        show(finished)
    assert sent == [50.0, 100.0]
