"""The PSNR report as Prefect artifacts.

An artifact is a view: ``report.json`` and ``report.html`` beside the store are the record. So nothing here can fail
a run: what goes wrong while an artifact is made or sent is logged as a warning.
"""

from __future__ import annotations

import base64
import html
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from data_schemas.errors import SplatSpaceError
from pipeline.report.figures import Report

logger = logging.getLogger("splatspace.flows.artifacts")

LARGEST_PANEL_BYTES = 200_000
"""A larger picture is named, not shown: every view of the artifact loads it from the database."""

MOST_FAILED_LISTED = 20
SECONDS_BETWEEN_UPDATES = 1.0

_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|~-])")


def artifact_key(dataset: str) -> str:
    """``psnr-<dataset>``: lower case letters, digits and dashes only, as Prefect demands.

    Args:
        dataset: a preset, or a path, of which the last part counts.
    """
    name = Path(dataset.replace("\\", "/")).stem or dataset
    return "psnr-" + (re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "images")


def escape(text: object) -> str:
    """Text from outside (file names, reasons, labels) that stays text in markdown, in HTML and in a table cell."""
    return _MARKDOWN.sub(r"\\\1", html.escape(" ".join(str(text).split()), quote=False))


def figure_rows(report: Report) -> list[dict[str, str]]:
    """The figures that people read first, rounded, one row each."""
    quality, cost, size = report.quality, report.cost, report.size
    predictability = report.predictability

    def shown(value: float | None, form: str, scale: float = 1.0) -> str:
        return "-" if value is None else format(value * scale, form)

    lines = [
        ("images encoded", f"{report.images.done} of {report.images.total}"),
        ("images failed", f"{report.images.failed}"),
        ("PSNR of the mean error, dB", shown(quality.of_mean_error, ".2f")),
        ("PSNR mean, dB", shown(quality.mean, ".2f")),
        ("PSNR median, dB", shown(quality.median, ".2f")),
        ("PSNR 1st percentile, dB", shown(quality.p1, ".2f")),
        ("PSNR minimum, dB", shown(quality.minimum, ".2f")),
        ("lossless after rounding, %", shown(quality.lossless_share, ".1f", 100)),
        ("SSIM mean", shown(quality.ssim_mean, ".4f")),
        ("core-ms per image", shown(cost.core_seconds_per_image, ".2f", 1000)),
        ("seconds in all", shown(cost.wall_seconds, ".1f")),
        ("dead Gaussians, %", shown(report.dead.share, ".2f", 100)),
        ("bytes per image", f"{size.splat_bytes} for {size.image_bytes} of pixels"),
        ("compression in numbers", shown(size.ratio_numbers, ".2f")),
        ("compression in bytes", shown(size.ratio_bytes, ".2f")),
        ("predictability R2", "-" if predictability is None else shown(predictability.r2, ".3f")),
    ]
    return [{"figure": name, "value": value} for name, value in lines]


def report_markdown(report: Report, *, store: Path, html_report: Path | None, panel: Path | None) -> str:
    """The whole report as one page of markdown.

    Args:
        report: the figures.
        store: path of the store.
        html_report: path of ``report.html``, or None where none was written.
        panel: a PNG with the best, median and worst images, or None.
    """
    facts = report.store
    sections = [
        f"# PSNR of {escape(report.source.name)}",
        f"{facts.gaussians} Gaussians per {facts.width} x {facts.height} image, codec {escape(facts.codec)}, "
        f"{escape(facts.colours)} colours, start {escape(facts.start or '-')}, {facts.dtype}, "
        f"engine {escape(facts.engine or '-')}, seed {facts.seed}.",
        _table(["figure", "value"], [[row["figure"], row["value"]] for row in figure_rows(report)]),
        *_failed(report),
        *_worst(report),
        *_picture(panel),
        _table(
            ["where", "path"],
            [["store", store], ["report", html_report or "-"], ["device", "; ".join(facts.devices) or "-"]],
        ),
    ]
    return "\n\n".join(sections) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _failed(report: Report) -> list[str]:
    if not report.failed:
        return []
    rows = [[image.row, image.source_id, image.reason] for image in report.failed[:MOST_FAILED_LISTED]]
    more = len(report.failed) - len(rows)
    return [
        f"## {len(report.failed)} failed",
        _table(["row", "image", "reason"], rows),
        *([f"and {more} more, all of them in report.json"] if more else []),
    ]


def _worst(report: Report) -> list[str]:
    worst = [image for image in report.panels if image.group == "worst"]
    rows = [[image.row, image.source_id, image.label_name, f"{image.psnr:.2f}"] for image in worst]
    return ["## Worst images", _table(["row", "image", "class", "PSNR, dB"], rows)] if rows else []


def _picture(panel: Path | None) -> list[str]:
    if panel is None or not panel.is_file():
        return []
    if panel.stat().st_size > LARGEST_PANEL_BYTES:
        return [f"Best, median and worst images: {escape(panel)}"]
    encoded = base64.b64encode(panel.read_bytes()).decode("ascii")
    return [f"![best, median and worst images](data:image/png;base64,{encoded})"]


def publish_report(
    dataset: str, report: Report, *, store: Path, html_report: Path | None = None, panel: Path | None = None
) -> None:
    """Keeps the report under ``psnr-<dataset>`` and its figures under ``psnr-<dataset>-figures``.

    The keys are stable, so Prefect shows each as a history over the runs. Never raises.
    """
    key = artifact_key(dataset)
    with harmless(f"artifact {key}"):
        markdown = report_markdown(report, store=store, html_report=html_report, panel=panel)
        create_markdown_artifact(markdown, key=key, description=f"PSNR report of {store.name}")
    with harmless(f"artifact {key}-figures"):
        create_table_artifact(figure_rows(report), key=f"{key}-figures", description=f"Figures of {store.name}")


@contextmanager
def harmless(what: str) -> Iterator[None]:
    """Logs what goes wrong inside instead of raising it: a run that has encoded its images has not failed."""
    try:
        yield
    except SplatSpaceError as error:
        logger.warning("%s was not made: %s", what, error)
    except Exception:  # whatever Prefect's client, its server or a picture may raise
        logger.warning("%s was not made", what, exc_info=True)


def progress_reporter(total: int, description: str) -> Callable[[int], None]:
    """Makes a progress artifact and returns a function that takes the number of finished parts.

    The function sends at most one update per second, and always the last. It never raises.
    """
    identifier: UUID | None = None
    with harmless("progress artifact"):
        made = create_progress_artifact(progress=0.0, description=description)
        identifier = made if isinstance(made, UUID) else None
    sent = monotonic()

    def report_progress(finished: int) -> None:
        nonlocal sent
        last = finished >= total
        if identifier is None or (not last and monotonic() - sent < SECONDS_BETWEEN_UPDATES):
            return
        sent = monotonic()
        with harmless("progress artifact"):
            update_progress_artifact(identifier, progress=100.0 if last else 100.0 * finished / total)

    return report_progress
