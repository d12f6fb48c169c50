"""The PSNR report as a Prefect artifact, the progress of an encode as another, and the parts of which they are made.

An artifact is a view: ``report.json`` and ``report.html`` beside the store are the record. So nothing here can fail
a run: what goes wrong while an artifact is made or sent is logged as a warning.
"""

from __future__ import annotations

import base64
import html
import io
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client

from data_schemas.errors import SplatSpaceError
from data_schemas.locations import Location
from flows.artifacts.history import PREFIX, Point, newest_point, point_of
from pipeline.format import NONE, format_cell
from pipeline.report import Report, ReportSummary
from pipeline.sources import SOURCES

logger = logging.getLogger("splatspace.flows.artifacts")

LARGEST_SHEET_BYTES = 200_000
"""Every view of the artifact loads the image from the database."""

SMALLEST_SHEET_PIXELS = 32
MOST_FAILED_LISTED = 20

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~-])")
# What markdown viewers turn into links although nobody asked for one: addresses, `www.`, mail.
_LINKED = re.compile(r":(?=//)|(?<=www)\.|@", re.IGNORECASE)
# Control characters, those that turn the direction of writing, and halves of characters, which are no text.
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def artifact_key(name: str, prefix: str = PREFIX) -> str:
    """``psnr-<set>``: lower case letters, digits and dashes only, as Prefect demands.

    Args:
        name: of the source, as the store records it. What a named data set notes behind its name, such as missing
            parts, does not count.
        prefix: what is shown of the set.
    """
    first = name.partition(" ")[0]
    return f"{prefix}-" + (
        re.sub(r"[^a-z0-9]+", "-", (first if first in SOURCES else name).lower()).strip("-") or "images"
    )


def escape(text: object) -> str:
    """Text from outside (file names, reasons, labels) that stays text in markdown, in HTML and in a table cell."""
    line = _INVISIBLE.sub("\ufffd", " ".join(str(text).split()))
    marked = _MARKDOWN.sub(r"\\\1", html.escape(line, quote=False))
    # By backslash: Prefect's page shows a numbered entity (``&#58;``) as it is written.
    return _LINKED.sub(r"\\\g<0>", marked)


def figure_rows(report: Report) -> list[tuple[str, str]]:
    """The figures that people read first and their values, rounded."""
    quality, cost, size = report.quality, report.cost, report.size
    predictability = report.predictability

    return [
        ("images encoded", f"{report.images.done} of {report.images.total}"),
        ("images failed", f"{report.images.failed}"),
        ("PSNR of the mean error, dB", format_cell(quality.of_mean_error, ".2f")),
        ("PSNR mean, dB", format_cell(quality.mean, ".2f")),
        ("PSNR median, dB", format_cell(quality.median, ".2f")),
        ("PSNR 1st percentile, dB", format_cell(quality.p1, ".2f")),
        ("PSNR minimum, dB", format_cell(quality.minimum, ".2f")),
        ("lossless after rounding, %", format_cell(quality.lossless_share, ".1f", 100)),
        ("SSIM mean", format_cell(quality.ssim_mean, ".4f")),
        ("core-ms per image", format_cell(cost.core_seconds_per_image, ".2f", 1000)),
        ("seconds in all", format_cell(cost.wall_seconds, ".1f")),
        ("dead Gaussians, %", format_cell(report.dead.share, ".2f", 100)),
        ("bytes per image", f"{size.splat_bytes} for {size.image_bytes} of pixels"),
        ("compression in numbers", format_cell(size.ratio_numbers, ".2f")),
        ("compression in bytes", format_cell(size.ratio_bytes, ".2f")),
        ("predictability R2", format_cell(None if predictability is None else predictability.r2, ".3f")),
    ]


def report_markdown(report: Report, *, store: Location, html_report: Location | None, sheet: bytes | None) -> str:
    """The whole report as one page of markdown.

    Args:
        report: the figures.
        store: path of the store.
        html_report: path of ``report.html``, or None where none was written.
        sheet: a PNG with the best, median and worst images, or None.
    """
    facts = report.store
    sections = [
        f"# PSNR of {escape(report.source.name)}",
        f"{facts.gaussians} Gaussians per {facts.width} x {facts.height} image, codec {escape(facts.codec)}, "
        f"{escape(facts.colours)} colours, start {escape(facts.start or '-')}, {facts.dtype}, "
        f"engine {escape(facts.engine or '-')}, seed {facts.seed}, split {escape(report.source.split or '-')}.",
        table(["figure", "value"], figure_rows(report)),
        *_failed(report),
        *_worst(report),
        *picture(sheet, "best, median and worst images"),
        *places([("report", html_report), ("store", store)], [("device", "; ".join(facts.devices) or "-")]),
    ]
    return "\n\n".join(sections) + "\n"


def places(found: Sequence[tuple[str, Location | None]], further: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Where the files of a run are, as a section of markdown.

    Args:
        found: name and place of each; None where there is none.
        further: other facts for the end of the table.
    """
    rows = [[name, NONE if place is None else place, _address(place)] for name, place in found]
    return [
        table(["where", "path", "address"], [*rows, *([name, fact, ""] for name, fact in further)]),
        "Browsers open a local address when it is copied to their address bar, on the machine that holds the file.",
    ]


def _address(place: Location | None) -> str:
    """``file:`` URI of a local path; an URL as it is."""
    if place is None:
        return NONE
    return place.absolute().as_uri() if isinstance(place, Path) else str(place)


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table of markdown; its cells are escaped."""
    lines = [header, ["---"] * len(header), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _failed(report: Report) -> list[str]:
    if not report.failed:
        return []
    rows = [[image.row, image.source_id, image.reason] for image in report.failed[:MOST_FAILED_LISTED]]
    more = len(report.failed) - len(rows)
    return [
        f"## {len(report.failed)} failed",
        table(["row", "image", "reason"], rows),
        *([f"and {more} more, all of them in report.json"] if more else []),
    ]


def _worst(report: Report) -> list[str]:
    worst = [image for image in report.panels if image.group == "worst"]
    rows = [[image.row, image.source_id, image.label_name, f"{image.psnr:.2f}"] for image in worst]
    return ["## Worst images", table(["row", "image", "class", "PSNR, dB"], rows)] if rows else []


def picture(png: bytes | None, words: str) -> list[str]:
    """An image inside the page, as a section of markdown; none where there is none."""
    if png is None:
        return []
    return [f"![{words}](data:image/png;base64,{base64.b64encode(png).decode('ascii')})"]


def small_sheet(data: bytes) -> bytes:
    """A PNG of at most ``LARGEST_SHEET_BYTES``: the image as it is, or in fewer colours, smaller until it fits.

    Args:
        data: of a PNG.
    """
    if len(data) <= LARGEST_SHEET_BYTES:
        return data
    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    while True:
        stream = io.BytesIO()
        picture.quantize(64).save(stream, "PNG", optimize=True)
        if len(stream.getvalue()) <= LARGEST_SHEET_BYTES or max(picture.size) <= SMALLEST_SHEET_PIXELS:
            return stream.getvalue()
        picture = picture.resize(
            (max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4)), Image.Resampling.BOX
        )


def publish_report(built: ReportSummary, store: Location) -> None:
    """Keeps a report under the key ``psnr-<set>``: its page shows the history of the set's quality. Never raises.

    Args:
        built: the report.
        store: the store that it was made of.
    """
    key = artifact_key(built.report.source.name)
    with harmless(f"artifact {key}"):
        sheet = None if built.panel_path is None else small_sheet(built.panel_path.read_bytes())
        markdown = report_markdown(built.report, store=store, html_report=built.html_path, sheet=sheet)
        create_markdown_artifact(markdown, key=key, description=_described(point_of(markdown), key))


def _described(point: Point | None, key: str) -> str:
    """What the page of the history shows of an entry that is not opened."""
    if point is None:
        return "PSNR report"
    before = None
    with harmless("comparison with the report before"), get_client(sync_client=True) as client:
        before = newest_point(client, key)
    return point.described(before)


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Logs what goes wrong inside instead of raising it: a run that has encoded its images has not failed."""
    try:
        yield
    except SplatSpaceError as error:
        logger.warning("%s was not made: %s", what, error)
    except Exception:  # whatever Prefect's client, its server or an image may raise
        logger.warning("%s was not made", what, exc_info=True)
