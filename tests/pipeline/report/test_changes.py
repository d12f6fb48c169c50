"""What changed since another report: figures, images, and which reports may be compared at all."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_schemas.errors import ReportError
from data_schemas.records import content_hash
from pipeline.report import Report, build_report, read_report
from pipeline.report.changes import IMAGES_FILE, find_report, read_images, version_before
from pipeline.report.changes_record import FigureChange


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes a second to draw, and says what the record says."""
    monkeypatch.setattr("pipeline.report.page.html.render_html", lambda report, **_: report.store.name)


without_page = pytest.mark.usefixtures("no_page")

QUICK = {"panels": 0, "predictability_images": 0}


class Clock:
    """Stands in for ``datetime`` where a report takes its time: every report is an hour younger than the last."""

    def __init__(self) -> None:
        self.last = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self, zone: tzinfo) -> datetime:
        self.last += timedelta(hours=1)
        return self.last.astimezone(zone)


def report_of(store: Any, folder: Path, **options: Any) -> Report:
    return build_report(store, folder, **QUICK, **options).report


@pytest.mark.slow
def test_the_next_report_of_a_store_says_what_changed(make_store, tmp_path: Path) -> None:
    assert report_of(make_store(20), tmp_path).changes is None
    later = make_store(20)
    later.rows.psnr[3] -= 4
    later.rows.psnr[5] -= 0.5
    later.rows.psnr[7] += 2
    now = report_of(later, tmp_path)
    changes = now.changes
    assert changes is not None
    assert (changes.matched, changes.added, changes.removed, changes.better, changes.worse) == (20, 0, 0, 1, 2)
    assert [(one.row, one.source_id) for one in changes.worst] == [(3, "00003.png"), (5, "00005.png")]
    assert [one.difference for one in changes.worst] == pytest.approx([-4, -0.5], abs=1e-4)
    mean = next(one for one in changes.figures if one.name == "PSNR mean")
    assert mean.difference == pytest.approx((2 - 4 - 0.5) / 20, abs=1e-5)
    assert mean.now == now.quality.mean
    assert {one.name for one in changes.classes} == {"circle", "square", "star"}
    page = (tmp_path / "report.html").read_text()
    assert "2 worse by 0.01 dB or more" in " ".join(page.split())


@without_page
def test_images_are_known_by_their_pixels_not_by_their_rows(make_store, tmp_path: Path) -> None:
    report_of(make_store(20), tmp_path)
    later = make_store(24)
    first = make_store(20)
    for name in ("psnr", "ssim", "content_hash", "state"):
        getattr(later.rows, name)[4:] = getattr(first.rows, name)
    later.rows.content_hash[:4] = [content_hash(np.full((2, 2, 1), value, np.uint8)) for value in range(4)]
    changes = report_of(later, tmp_path).changes
    assert changes is not None
    assert (changes.matched, changes.added, changes.removed, changes.worse) == (20, 4, 0, 0)


@pytest.mark.slow
def test_a_report_made_again_of_the_same_store_keeps_what_it_said(
    make_store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.report.build.datetime", Clock())
    report_of(make_store(9), tmp_path)
    later = make_store(9)
    later.rows.psnr[0] -= 1
    first = report_of(later, tmp_path)
    assert first.changes is not None
    files = {name: (tmp_path / name).read_bytes() for name in ("report.html", IMAGES_FILE)}
    second = report_of(later, tmp_path)
    assert second.changes == first.changes
    assert (tmp_path / IMAGES_FILE).read_bytes() == files[IMAGES_FILE]
    stamp = "%Y-%m-%d %H:%M %Z"
    again = (tmp_path / "report.html").read_text().replace(second.created.strftime(stamp), "")
    assert again == files["report.html"].decode().replace(first.created.strftime(stamp), "")


@without_page
def test_the_version_before_stands_in_for_a_first_report(make_store, tmp_path: Path) -> None:
    report_of(make_store(9), tmp_path / "a-report")
    later = make_store(9, path=str(tmp_path / "a.v2.zarr"))
    later.rows.psnr[0] += 3
    changes = report_of(later, tmp_path / "a.v2-report").changes
    assert changes is not None
    assert changes.better == 1


@pytest.mark.parametrize(
    ("name", "before"), [("a.zarr", None), ("a.v2.zarr", "a.zarr"), ("a.v12.h5", "a.v11.h5"), ("a.v1.zarr", None)]
)
def test_which_version_is_before(name: str, before: str | None) -> None:
    assert version_before(Path("x") / name) == (None if before is None else Path("x") / before)


@pytest.mark.parametrize("named", ["other-report", "other-report/report.json", "other.zarr"])
@without_page
def test_any_report_can_be_named(make_store, tmp_path: Path, named: str) -> None:
    other = make_store(12)
    other.rows.psnr[:] -= 1.5
    report_of(other, tmp_path / "other-report")
    changes = report_of(make_store(12), tmp_path / "report", against=tmp_path / named).changes
    assert changes is not None
    assert changes.is_asked
    assert changes.better == 12 - int(np.isposinf(other.rows.psnr).sum())
    assert next(one.difference for one in changes.figures if one.name == "PSNR median") == pytest.approx(1.5, abs=1e-4)


@without_page
def test_a_plain_report_after_a_named_one_forgets_it(make_store, tmp_path: Path) -> None:
    report_of(make_store(5), tmp_path / "other")
    assert report_of(make_store(5), tmp_path / "report", against=tmp_path / "other").changes is not None
    assert report_of(make_store(5), tmp_path / "report").changes is None


@without_page
def test_another_set_is_refused(make_store, tmp_path: Path) -> None:
    report_of(make_store(5, size=(8, 8)), tmp_path / "small")
    report_of(make_store(5, seed=4, name="cats"), tmp_path / "cats")
    with pytest.raises(ReportError, match="another set: images of 8x8x3 against 12x10x3"):
        report_of(make_store(5), tmp_path / "report", against=tmp_path / "small")
    with pytest.raises(ReportError, match="another set: cats, split train against made up, split train, and no image"):
        report_of(make_store(5), tmp_path / "report", against=tmp_path / "cats")
    assert not (tmp_path / "report").exists()
    # Left where a report of another set was: nothing is compared, nothing fails.
    assert report_of(make_store(5), tmp_path / "cats").changes is None


@without_page
def test_the_same_images_under_another_name_are_the_same_set(make_store, tmp_path: Path) -> None:
    report_of(make_store(5, name="copied"), tmp_path / "other")
    changes = report_of(make_store(5), tmp_path / "report", against=tmp_path / "other").changes
    assert changes is not None
    assert changes.matched == 5


@without_page
def test_what_is_no_report_is_refused(make_store, tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"has no report beside it.*splatspace report .*never\.zarr"):
        report_of(make_store(3), tmp_path / "report", against=tmp_path / "never.zarr")
    with pytest.raises(ReportError, match=r"nowhere/report\.json cannot be read"):
        report_of(make_store(3), tmp_path / "report", against=tmp_path / "nowhere")


@pytest.mark.parametrize("content", [None, b"", b"PK no archive", b"\x93NUMPY"])
@without_page
def test_without_its_images_figures_alone_are_compared(make_store, tmp_path: Path, content: bytes | None) -> None:
    report_of(make_store(5), tmp_path)
    (tmp_path / IMAGES_FILE).unlink()
    if content is not None:
        (tmp_path / IMAGES_FILE).write_bytes(content)
    assert read_images(tmp_path) is None
    later = make_store(5)
    later.rows.psnr[0] += 1
    changes = report_of(later, tmp_path).changes
    assert changes is not None
    assert (changes.matched, changes.worst) == (None, ())
    assert changes.images_reason == "the other report has no images.npz"


@without_page
def test_a_report_of_the_version_before_this_one_is_read(make_store, tmp_path: Path) -> None:
    report_of(make_store(5), tmp_path)
    text = (tmp_path / "report.json").read_text().replace('"report_version": 2', '"report_version": 1')
    (tmp_path / "report.json").write_text(text.replace('"of_set": null,', "").replace('"changes": null,', ""))
    assert read_report(tmp_path).report_version == 1
    assert find_report(tmp_path).report.changes is None


@pytest.mark.parametrize(
    ("unit", "before", "now", "shown"),
    [
        ("dB", 40.0, 40.004, "+4e-3 dB"),
        ("dB", 41.5, 40.0, "\u22121.50 dB"),
        ("dB", 40.0, 40.0, "0 dB"),
        ("", 256.0, 48.0, "\u2212208"),
        ("", 1968.5, 1230.1, "\u2212738"),
        ("", 0.9999, 0.999, "\u22120.0009"),
    ],
)
def test_differences_have_digits_that_say_something(unit: str, before: float, now: float, shown: str) -> None:
    from pipeline.report.page.html import changed

    assert (
        changed(FigureChange(name="x", unit=unit, before=before, now=now, difference=round(now - before, 6))) == shown
    )
