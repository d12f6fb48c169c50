"""The history of a set: figures read back from artifacts, the line of an entry, the table."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import Artifact
from rich.console import Console

from data_schemas.errors import SplatSpaceError
from flows.artifacts import history
from flows.artifacts.history import Entry, Point, history_table, newest_point, point_of, read_history
from flows.artifacts.report import report_markdown
from pipeline.report.figures import ImageCounts, QualityFigures
from tests.flows.artifacts.test_report import make_report

FIRST = Point(psnr=59.524, p1=55.0, done=256, total=256, failed=0)


def page(psnr: float | None, *, done: int = 256, total: int = 256, failed: int = 0) -> str:
    quality = QualityFigures(images=done, mean=psnr, median=psnr, of_mean_error=psnr, p1=56.164)
    counts = ImageCounts(total=total, done=done, failed=failed, empty=total - done - failed)
    report = make_report(quality=quality, images=counts)
    return report_markdown(report, store=Path("a|b.zarr"), html_report=None, sheet=b"png")


def test_figures_come_back_from_the_page_of_a_report() -> None:
    assert point_of(page(59.924)) == Point(psnr=59.92, p1=56.16, done=256, total=256, failed=0)
    assert point_of(page(None, done=3, total=9, failed=2)) == Point(psnr=None, p1=56.16, done=3, total=9, failed=2)
    assert point_of("# Training of render-dit") is None


@pytest.mark.parametrize(
    ("text", "before", "line"),
    [
        (page(59.924), None, "59.92 dB, p1 56.16, 256 images"),
        (page(59.924), FIRST, "59.92 dB, p1 56.16, 256 images, +0.40 dB"),
        (page(59.0), FIRST, "59.00 dB, p1 56.16, 256 images, -0.52 dB"),
        (page(59.521), FIRST, "59.52 dB, p1 56.16, 256 images, unchanged"),
        (page(59.0, done=7, total=1256, failed=2), None, "59.00 dB, p1 56.16, 7 of 1,256 images, 2 failed"),
        (page(None), FIRST, "no PSNR, p1 56.16, 256 images"),
    ],
)
def test_an_entry_is_described_in_one_line(text: str, before: Point | None, line: str) -> None:
    point = point_of(text)
    assert point is not None
    assert point.described(before) == line


class Server:
    """Answers with pages of artifacts, newest first."""

    def __init__(self, pages: list[str]) -> None:
        newest = cast(Any, datetime(2026, 1, 1, tzinfo=UTC))  # Prefect has a class of its own for times
        self.artifacts = [
            Artifact(key="psnr-demo", type="markdown", data=text, created=newest - timedelta(number))
            for number, text in enumerate(pages)
        ]

    def read_artifacts(self, *, limit: int, offset: int, **_: Any) -> list[Artifact]:
        return self.artifacts[offset : offset + limit]

    def read_latest_artifacts(self, **_: Any) -> list[Artifact]:
        return self.artifacts[:1]


def client_of(*pages: str) -> SyncPrefectClient:
    return cast(SyncPrefectClient, Server(list(pages)))


def test_a_history_is_read_in_portions_and_told_from_the_oldest_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "ENTRIES_AT_ONCE", 2)
    entries = read_history(client_of(page(50.5), "no report", page(50.1), page(None), page(49.0)), "psnr-demo")
    assert [(entry.point.psnr, entry.change) for entry in entries] == [
        (49.0, None), (None, None), (50.1, None), (50.5, 0.4),
    ]  # fmt: skip
    assert entries[-1].json() == {
        "created": "2026-01-01T00:00:00+00:00", "psnr": 50.5, "p1": 56.16, "done": 256, "total": 256, "failed": 0,
        "change": 0.4,
    }  # fmt: skip
    assert newest_point(client_of(page(50.5), page(50.1)), "psnr-demo") == entries[-1].point
    assert newest_point(client_of(), "psnr-demo") is None


def test_a_set_without_a_report_is_told_with_those_that_have_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SplatSpaceError, match=r"no report of 'mnits'.*Allowed: demo\..*encode-demo"):
        read_history(client_of("no report"), "psnr-mnits")
    with pytest.raises(SplatSpaceError, match="no report was made yet"):
        read_history(client_of(), "psnr-demo")


def test_the_table_has_a_row_for_each_report() -> None:
    when = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    console = Console(width=100)
    with console.capture() as captured:
        console.print(history_table([Entry(when, FIRST, None), Entry(when, Point(60.0, None, 7, 1256, 2), 0.48)]))
    _, first, second = captured.get().splitlines()
    assert first.split() == ["2026-01-02", "03:04", "59.52", "55.00", "-", "256", "0"]
    assert second.split() == ["2026-01-02", "03:04", "60.00", "-", "+0.48", "7", "of", "1,256", "2"]
