from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_schemas.errors import ReportError
from data_schemas.records import RowState
from pipeline.report import LOSSLESS_PSNR, Report, build_report, read_report
from pipeline.report.panels import MAXIMUM_BYTES, NO_SOURCE

HOSTILE = "<img src=x onerror=alert(1)>'\"&{{ 7*7 }}.png"
VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and text; and whether it nests."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.is_nested = True
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self.is_nested = self.is_nested and bool(self.open) and self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def no_nan(text: str) -> Any:
    def refuse(name: str) -> None:
        raise AssertionError(f"{name} in JSON")

    return json.loads(text, parse_constant=refuse)


def build(store: Any, folder: Path, **options: Any) -> tuple[Report, Page]:
    """Builds a report and checks what holds for every one: valid JSON, whole page, no network, our script only."""
    summary = build_report(store, folder, **options)
    no_nan(summary.json_path.read_text())
    assert read_report(summary.json_path) == read_report(summary.json_path.parent) == summary.report
    text = summary.html_path.read_text()
    assert len(text.encode()) <= 5_000_000
    page = Page(text)
    assert page.is_nested
    scripts = [attributes for tag, attributes in page.elements if tag == "script"]
    assert [one.get("type") for one in scripts if one] == ["application/json"] * (len(scripts) - 1)
    ours = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(ours[0].encode()).digest()).decode()
    assert len(ours) == 1
    policy = next(one["content"] for tag, one in page.elements if tag == "meta" and "http-equiv" in one)
    assert f"script-src 'sha256-{digest}';" in str(policy)
    assert page.open == []
    for tag, attributes in page.elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} {name}={value}"
            if name in {"src", "href", "xlink:href"}:
                assert value is not None
                assert value.startswith(("data:image/png;base64,", "#")), value[:80]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert "url(http" not in summary.html_path.read_text()
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
    if summary.panel_path is None:
        assert not (folder / "panel.png").exists()
    else:
        assert summary.panel_path.stat().st_size < MAXIMUM_BYTES
        Image.open(folder / "panel.png").verify()
    return summary.report, page


def island(folder: Path, name: str) -> Any:
    """What the script of a page reads."""
    page = (folder / "report.html").read_text()
    found = re.search(rf'<script id="{name}" type="application/json">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])


@pytest.mark.slow
def test_a_report_says_everything(make_store, fail_row, tmp_path):
    store = make_store(120)
    fail_row(store, 4, "the file ends early")
    report, page = build(store, tmp_path / "deep" / "out")
    assert report.images.total == 120
    assert report.quality.images == 119
    assert report.predictability is not None
    assert report.source.licence == "CC0-1.0"
    assert report.store.versions == {"numpy": "2.0"}
    assert report.store.devices == ("cpu (4 workers)",)
    assert len(report.panels) == 18
    for shown in (
        "120 images of made up (train)",
        f"{report.quality.of_mean_error:,.2f} dB",
        f"{report.quality.ssim_mean:.4f}",
        f"{report.predictability.r2:.3f}",
        "1 failed.",
        "the file ends early",
        "CC0-1.0",
        "splatspace encode 'made up'",
        "= 0.65 by the formula",
        "circle",
        "(compression)",
        "learning_rate",
    ):
        assert shown in page.text, shown
    images = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(images) == 18 * 4  # the others are made when they are scrolled to
    panels = island(tmp_path / "deep" / "out", "panel-data")
    assert len(panels["splats"]) == 18
    assert len(panels["more"]) == 119 - 18
    assert "101 more: the worst of each class" in page.text
    assert sum(tag == "svg" for tag, _ in page.elements) == 2


@pytest.mark.slow
def test_names_from_outside_stay_text(make_store, fail_row, tmp_path):
    store = make_store(60, name=HOSTILE, licence=HOSTILE, labels=(HOSTILE, "</style><script>alert(1)</script>", "b"))
    store.path = Path("<b onload=alert(2)>.zarr")
    store.rows.source_id[:] = HOSTILE
    fail_row(store, 0, "<svg onload=alert(3)>")
    header = store.header
    settings = {**header.settings, "</pre><script>": "<b>"}
    store.set_header(header.model_copy(update={"settings": settings}))
    _, page = build(store, tmp_path)  # which refuses scripts and handlers
    assert island(tmp_path, "row-data")["classes"][0] == HOSTILE
    assert {panel["name"] for panel in island(tmp_path, "panel-data")["more"]} == {HOSTILE}
    assert page.text.count(HOSTILE) > 18
    assert "<svg onload=alert(3)>" in page.text
    assert "<b onload=alert(2)>.zarr" in page.text
    assert not any(attributes.get("src") == "x" for _, attributes in page.elements)


@pytest.mark.slow
def test_the_same_store_gives_the_same_files(make_store, tmp_path):
    pages = []
    for name in ("a", "b"):
        report, _ = build(make_store(80), tmp_path / name)
        data = no_nan((tmp_path / name / "report.json").read_text())
        page = (tmp_path / name / "report.html").read_text()
        pages.append((data.pop("created") and data, page.replace(report.created.strftime("%Y-%m-%d %H:%M %Z"), "")))
        pages[-1] += ((tmp_path / name / "panel.png").read_bytes(),)
    assert pages[0] == pages[1]


@pytest.mark.slow
def test_empty_store(make_store, tmp_path):
    report, page = build(make_store(0), tmp_path)
    assert report.images.total == 0
    assert report.quality.mean is None
    assert report.panels_reason
    assert "no distribution" in page.text


@pytest.mark.slow
def test_store_without_a_done_row(make_store, tmp_path):
    store = make_store(5)
    store.rows.state[:] = RowState.EMPTY
    report, page = build(store, tmp_path)
    assert report.images.empty == 5
    assert "5 not encoded yet." in page.text


@pytest.mark.slow
def test_all_failed(make_store, fail_row, tmp_path):
    store = make_store(70)
    for row in range(70):
        fail_row(store, row, f"broken in way {row}")
    report, page = build(store, tmp_path)
    assert len(report.failed) == 70
    assert "The first 50 of 70; report.json lists all." in page.text
    assert "broken in way 49" in page.text
    assert "broken in way 50" not in page.text


@pytest.mark.slow
def test_all_lossless(make_store, tmp_path):
    report, page = build(make_store(60, noise=0), tmp_path)
    assert report.quality.lossless_share == 1
    assert report.quality.of_mean_error == LOSSLESS_PSNR
    assert report.histogram.counts == (60,)
    assert "each counts as 100 dB" in page.text


@pytest.mark.slow
def test_one_image(make_store, tmp_path):
    report, _ = build(make_store(1), tmp_path)
    assert [panel.group for panel in report.panels] == ["median"]
    assert report.predictability is None
    assert "too few images: 1," in report.predictability_reason


@pytest.mark.slow
def test_no_labels(make_store, tmp_path):
    report, page = build(make_store(9, labels=()), tmp_path)
    assert report.classes == ()
    assert "The images have no labels." in page.text


@pytest.mark.slow
def test_no_source_images(make_store, tmp_path):
    report, page = build(make_store(60, with_images=False), tmp_path)
    assert report.panels_reason == NO_SOURCE
    assert NO_SOURCE in page.text
    assert sum(tag == "img" for tag, _ in page.elements) == 18 * 2  # decoded and splats
    assert report.predictability is not None
    assert report.predictability.pixels == "decoded"


@pytest.mark.slow
def test_rows_that_are_nan_are_named_and_left_out(make_store, tmp_path, caplog):
    store = make_store(60)
    clean, _ = build(store, tmp_path / "clean")
    store.rows.psnr[10] = np.nan
    store.rows.ssim[11] = np.nan
    with caplog.at_level(logging.WARNING, "splatspace.report"):
        report, page = build(store, tmp_path / "nan")
    assert report.unmeasured_rows == (10, 11)
    assert report.quality.images == clean.quality.images - 2
    assert "Rows 10, 11." in page.text
    assert "no figure of quality: 2 images" in caplog.text


@pytest.mark.slow
def test_grey_stores_of_other_shapes(make_store, tmp_path):
    report, _ = build(make_store(60, channels=1, size=(7, 40)), tmp_path)
    assert report.store.parameters == ("sigma_x", "sigma_y", "rho", "grey", "x", "y")


@pytest.mark.slow
def test_expansion_is_called_expansion(make_store, tmp_path):
    report, page = build(make_store(9, gaussians=50, size=(6, 6)), tmp_path)
    assert report.size.ratio_numbers == pytest.approx(0.27)
    assert "0.27 (expansion: 3.70 times as large)" in page.text


@pytest.mark.slow
def test_many_classes_are_cut_on_the_page_only(make_store, tmp_path):
    labels = tuple(f"class {n:03d}" for n in range(250))
    report, page = build(make_store(500, labels=labels), tmp_path, predictability_images=0, panels=0)
    assert len(report.classes) == 250
    assert "The 200 classes of lowest PSNR; report.json lists 50 more." in page.text


@pytest.mark.slow
def test_parts_can_be_left_out(make_store, tmp_path):
    build(make_store(60), tmp_path)
    report, _ = build(make_store(60), tmp_path, panels=0, predictability_images=0)  # an old panel.png goes
    assert report.panels == ()
    assert report.predictability_reason == "predictability was not asked for"


@pytest.mark.slow
def test_settings_that_json_cannot_hold_are_spelled(make_store, tmp_path):
    store = make_store(3)
    store.set_header(store.header.model_copy(update={"settings": {"limit": float("inf"), "path": Path("x")}}))
    report, _ = build(store, tmp_path)
    assert report.store.settings == {"limit": "inf", "path": "x"}


@pytest.mark.slow
def test_a_folder_that_cannot_be_written_is_a_clear_error(make_store, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ReportError, match="cannot be written"):
        build_report(make_store(3), tmp_path / "file" / "out")


@pytest.mark.slow
def test_a_full_disk_leaves_the_old_report(make_store, tmp_path, monkeypatch):
    build(make_store(3), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("data_schemas.files.os.fsync", full)
    with pytest.raises(ReportError, match="No space left on device"):
        build_report(make_store(9), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "is not a report"),
        ("not json", "is not a report"),
        ('{"report_version": 99, "new": 1}', "version 99.*newer SplatSpace"),
        ('{"report_version": 1}', "is not a report"),
    ],
)
def test_reading_what_is_no_report(tmp_path, text: str, message: str):
    path = tmp_path / "report.json"
    path.write_text(text)
    with pytest.raises(ReportError, match=message):
        read_report(path)


def test_reading_a_report_that_is_not_there(tmp_path):
    with pytest.raises(ReportError, match="splatspace report STORE"):
        read_report(tmp_path / "report.json")


def test_docs_describe_every_field(repository):
    text = (repository / "docs" / "report.md").read_text()

    def fields(schema: dict[str, Any]) -> set[str]:
        names = set(schema.get("properties", {}))
        for part in schema.get("$defs", {}).values():
            names |= set(part.get("properties", {}))
        return names

    missing = [name for name in sorted(fields(Report.model_json_schema())) if f"`{name}`" not in text]
    assert missing == []
