"""How good the fits of a set were from report to report: read from the artifacts ``psnr-<set>``, for page and terminal.

An artifact is markdown with an image inside; its figures are read back from its table, so that older entries count.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    ArtifactFilter,
    ArtifactFilterKey,
)
from prefect.client.schemas.objects import Artifact
from prefect.client.schemas.sorting import ArtifactSort
from rich.table import Table

from data_schemas.errors import SplatSpaceError
from pipeline.format import format_cell, format_part, format_psnr

PREFIX = "psnr"

ENTRIES_AT_ONCE = 20
"""Each brings an image of up to 200 kB, which nobody asked for."""

_CELLS = re.compile(r"^\| (?P<name>[^|]+?) \| (?P<value>[^|]*?) \|$", re.MULTILINE)


@dataclass(frozen=True)
class Point:
    """One report of a set.

    Attributes:
        psnr: of the mean squared error, in dB; None where no image is measured.
        p1: 1st percentile of the images' PSNR, in dB.
        done: images encoded.
        total: images of the store.
        failed: images without splats.
    """

    psnr: float | None
    p1: float | None
    done: int
    total: int
    failed: int

    def described(self, before: Point | None) -> str:
        """The report in one line, as ``59.92 dB, p1 56.16, 256 images, +0.40 dB``.

        Args:
            before: the report before it; None for the first.
        """
        parts = [format_psnr(self.psnr, none="no PSNR")]
        parts += [] if self.p1 is None else [f"p1 {self.p1:.2f}"]
        parts += [f"{format_part(self.done, self.total)} images", *([f"{self.failed:,} failed"] if self.failed else [])]
        change = self.change(before)
        return ", ".join([*parts, *([f"{change:+.2f} dB" if change else "unchanged"] if change is not None else [])])

    def change(self, before: Point | None) -> float | None:
        """Difference of the PSNR to a report before, in dB with two digits; None where one of them has none."""
        if before is None or self.psnr is None or before.psnr is None:
            return None
        return round(round(self.psnr, 2) - round(before.psnr, 2), 2)


@dataclass(frozen=True)
class Entry:
    """A point of the history.

    Attributes:
        created: when the report was published (UTC).
        point: its figures.
        change: of the PSNR since the entry before, in dB; None for the first.
    """

    created: datetime
    point: Point
    change: float | None

    def json(self) -> dict[str, Any]:
        """What ``--json`` prints of it."""
        return {"created": self.created.isoformat(), **asdict(self.point), "change": self.change}


def point_of(markdown: str) -> Point | None:
    """The figures of an artifact, from its table; None where it is no report.

    Args:
        markdown: of ``flows.artifacts.report.report_markdown``.
    """
    cells = {found["name"]: found["value"] for found in _CELLS.finditer(markdown)}

    def number(name: str) -> float | None:
        text = cells.get(name, "").replace("\\", "")
        return None if text in ("", "-") else float(text)

    try:
        done, _, total = cells["images encoded"].partition(" of ")
        return Point(
            psnr=number("PSNR of the mean error, dB"),
            p1=number("PSNR 1st percentile, dB"),
            done=int(done),
            total=int(total),
            failed=int(cells["images failed"]),
        )
    except (KeyError, ValueError):
        return None


def newest_point(client: SyncPrefectClient, key: str) -> Point | None:
    """The figures of the latest report under a key; None where there is none.

    Args:
        client: of the server.
        key: ``psnr-<set>``.
    """
    chosen = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
    found = client.read_latest_artifacts(artifact_filter=chosen, limit=1)
    return point_of(str(found[0].data)) if found else None


def read_history(client: SyncPrefectClient, key: str) -> list[Entry]:
    """All reports under a key, oldest first.

    Args:
        client: of the server.
        key: ``psnr-<set>``.

    Raises:
        SplatSpaceError: there is none; the message names the sets that have some.
    """
    chosen = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    points: list[tuple[datetime, Point]] = []
    for offset in itertools.count(0, ENTRIES_AT_ONCE):
        page: list[Artifact] = client.read_artifacts(
            artifact_filter=chosen, sort=ArtifactSort.CREATED_DESC, limit=ENTRIES_AT_ONCE, offset=offset
        )
        points += [
            (artifact.created, point)
            for artifact in page
            if artifact.created is not None and (point := point_of(str(artifact.data))) is not None
        ]
        if len(page) < ENTRIES_AT_ONCE:
            break
    if not points:
        raise SplatSpaceError(
            f"The server has no report of {key.removeprefix(f'{PREFIX}-')!r}",
            allowed=", ".join(sets_with_reports(client)) or "nothing: no report was made yet",
            next_step="make one: prefect deployment run encode/encode-demo --watch",
        )
    points.reverse()
    before: list[Point | None] = [None, *(point for _, point in points)]
    return [
        Entry(created, point, point.change(earlier)) for (created, point), earlier in zip(points, before, strict=False)
    ]


def sets_with_reports(client: SyncPrefectClient) -> list[str]:
    """Names of the sets that have reports on the server, as in their keys."""
    chosen = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(like_=f"{PREFIX}-%"))
    keys = {artifact.key for artifact in client.read_latest_artifacts(artifact_filter=chosen)}
    return sorted(key.removeprefix(f"{PREFIX}-") for key in keys if key)


def history_table(entries: list[Entry]) -> Table:
    """The history for the terminal, oldest first."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("when (UTC)", "PSNR, dB", "1st percentile, dB", "change, dB", "images", "failed"):
        table.add_column(name, justify="left" if name.startswith("when") else "right", no_wrap=True)

    for entry in entries:
        point = entry.point
        table.add_row(
            f"{entry.created:%Y-%m-%d %H:%M}", format_cell(point.psnr, ".2f"), format_cell(point.p1, ".2f"),
            format_cell(entry.change, "+.2f"), format_part(point.done, point.total), f"{point.failed:,}",
        )  # fmt: skip
    return table
