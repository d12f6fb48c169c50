"""From a store to ``report.json``, ``report.html`` and ``panel.png``, in a folder or on object storage.

Files are written whole or not at all; a report that still says what the store would is kept.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from upath import UPath

from data_schemas.errors import ReportError
from data_schemas.locations import Location, location
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import require_outside_stores
from encoders.decode import decode
from pipeline.documents import report_folder
from pipeline.report.changes import (
    IMAGES_FILE,
    Earlier,
    ImageFigures,
    changes_since,
    difference_of_sets,
    find_report,
    image_figures,
    version_before,
)
from pipeline.report.changes_record import Changes
from pipeline.report.figures import Report, source_facts, store_facts
from pipeline.report.files import JSON_FILE, read_report, remove_file, write_whole
from pipeline.report.panels import Panel, make_panels, sheet_bytes
from pipeline.report.predictability_record import MAXIMUM_IMAGES, Decoder, PredictabilityResult
from pipeline.report.set_sizes import set_images
from pipeline.report.statistics import (
    RowFigures,
    class_figures,
    cost_figures,
    count_images,
    dead_figures,
    histogram_of,
    list_failed_images,
    quality_of,
    read_rows,
    size_figures,
)

logger = logging.getLogger("splatspace.report")


@dataclass(frozen=True)
class ReportSummary:
    """What was written.

    Attributes:
        report: the figures.
        json_path: ``report.json``.
        html_path: ``report.html``.
        panel_path: ``panel.png``; None where there is nothing to show.
    """

    report: Report
    json_path: Location
    html_path: Location
    panel_path: Location | None


def build_report(
    store: SplatStore,
    out_dir: str | os.PathLike[str] | UPath,
    *,
    panels: int = 6,
    predictability_images: int = MAXIMUM_IMAGES,
    seed: int = 0,
    decoder: Decoder = decode,
    against: str | os.PathLike[str] | UPath | None = None,
) -> ReportSummary:
    """Measures a store and writes its report; files that are there are replaced.

    Splats and pixels are read for the panels and for the sample of the predictability only, so time and memory
    hardly grow with the store.

    Args:
        store: open for reading, complete or not.
        out_dir: folder of the report, made if it is missing; or a URL below which its objects are written.
        panels: images of each group (worst, median, best) that the page shows; 0 for none.
        predictability_images: most images of the predictability sample; 0 leaves the measure out.
        seed: of the predictability sample.
        decoder: decodes splats.
        against: another report to compare with: its folder, its ``report.json``, or a store with a report beside it.
            Without it, the last report of this store, or of the version before it, where there is one.

    Raises:
        ReportError: the folder cannot be written, the store holds images only, or ``against`` is no report of the
            same set.
        StoreCorruptError: a row that the report reads fails its checksum.
    """
    # Inside: linear algebra, Matplotlib and Jinja take a second to import, and a report that is there is only read.
    from pipeline.report.page.html import render_html
    from pipeline.report.predictability import measure_predictability

    if not store.header.gaussians:
        raise ReportError(
            f"{store.path} holds images only: no fit was made that a report could measure",
            next_step="encode the images again with --gaussians 1 or more",
        )
    folder = location(out_dir)
    require_outside_stores(folder)
    rows = read_rows(store)
    images = image_figures(store, rows)
    named = None if against is None else _named(against, store, images)
    shown, panels_reason = make_panels(store, rows, store.header.source.label_names, each=panels, decoder=decoder)
    if predictability_images < 1:
        found = PredictabilityResult(None, "predictability was not asked for")
    else:
        found = measure_predictability(store, max_images=predictability_images, seed=seed, decoder=decoder)
    report = assemble(store, rows, found, shown, panels_reason)
    report = report.model_copy(update={"changes": _changes(report, images, store, folder, named)})
    page = render_html(report, rows=rows, panels=shown, store=store, decoder=decoder)
    html_path = write_whole(folder / "report.html", page.encode())
    panel_path = write_whole(folder / "panel.png", sheet_bytes(shown)) if shown else None
    if panel_path is None:
        remove_file(folder / "panel.png")  # of an earlier report
    write_whole(folder / IMAGES_FILE, images.to_bytes())
    json_path = write_whole(folder / JSON_FILE, (report.model_dump_json(indent=2) + "\n").encode())
    logger.info("Report of %s images written to %s", f"{report.images.total:,}", folder)
    return ReportSummary(report, json_path, html_path, panel_path)


def _changes(
    report: Report, images: ImageFigures, store: SplatStore, folder: Location, named: Earlier | None
) -> Changes | None:
    """Against the report that was named; else the last one here, else that of the version before; None without any."""
    if named is not None:
        return changes_since(report, images, named, store, is_asked=True)
    earlier = _readable(folder)
    if earlier is not None and _says_the_same(report, earlier.report):
        # Made again of the same store: what changed before still is what changed.
        before = earlier.report.changes
        if before is not None and not before.is_asked:
            return before
        earlier = None
    if earlier is None:
        previous = version_before(store.path)
        earlier = None if previous is None else _readable(report_folder(previous))
    if earlier is None or difference_of_sets(store.header, images, earlier):
        return None
    return changes_since(report, images, earlier, store, is_asked=False)


def _named(against: str | os.PathLike[str] | UPath, store: SplatStore, images: ImageFigures) -> Earlier:
    """The report to compare with. Looked at before the work: it may not be there, or of another set."""
    named = find_report(against)
    reason = difference_of_sets(store.header, images, named)
    if reason:
        raise ReportError(
            f"{named.folder} is the report of another set: {reason}",
            allowed="a report of the same images, or of the same set at the same size",
            next_step="name another report with --against",
        )
    return named


def _readable(folder: Location) -> Earlier | None:
    try:
        return find_report(folder / JSON_FILE)
    except ReportError:
        return None


def _says_the_same(report: Report, other: Report) -> bool:
    """Whether two reports differ in nothing but when they were made, which panels they show, and what they compare."""
    kept = {"created": other.created, "panels": other.panels, "changes": other.changes}
    return report.model_copy(update=kept) == other


def assemble(
    store: SplatStore, rows: RowFigures, found: PredictabilityResult, panels: list[Panel], panels_reason: str
) -> Report:
    """The figures of a store, from what was read of it."""
    header = store.header
    counts = count_images(rows).model_copy(update={"of_set": set_images(header.source)})
    measured = rows.measured
    if counts.unmeasured:
        logger.warning("Done without a PSNR or SSIM, so in no figure of quality: %d images", counts.unmeasured)
    return Report(
        created=datetime.now(UTC),
        store=store_facts(header, store.path, len(store)),
        source=source_facts(header),
        images=counts,
        quality=quality_of(rows.psnr[measured], rows.ssim[measured]),
        cost=cost_figures(header.runs, rows),
        dead=dead_figures(rows, header.gaussians),
        size=size_figures(header, store.nbytes_stored, counts.done),
        predictability=found.figures,
        predictability_reason=found.reason,
        classes=class_figures(rows, header.source.label_names),
        histogram=histogram_of(rows.psnr[measured]),
        panels=tuple(panel.image for panel in panels),
        panels_reason=panels_reason,
        failed=list_failed_images(store, rows),
        noted=header.runs[-1].noted if header.runs else {},
        unmeasured_rows=tuple(int(row) for row in np.flatnonzero(rows.done & ~measured)),
    )


def current_report(store: SplatStore, folder: Location) -> ReportSummary | None:
    """The report of a store that has not changed since it was made: reading it is a tenth of making it.

    Everything that is cheap is counted again and compared: what the store is, its runs, the quality of all rows,
    sizes and failures. The predictability and the panels, which follow from the same rows, are taken as they are.

    Args:
        store: open for reading.
        folder: of the report.

    Returns:
        what ``build_report`` returned then; None where there is no report, or where it says anything else.
    """
    paths = [folder / name for name in (JSON_FILE, "report.html", IMAGES_FILE, "panel.png")]
    try:
        report = read_report(paths[0])
    except ReportError:
        return None
    found = PredictabilityResult(report.predictability, report.predictability_reason)
    counted = assemble(store, read_rows(store), found, [], report.panels_reason)
    if not _says_the_same(counted, report):
        return None
    has_panel = bool(report.panels)
    if not all(path.exists() for path in (paths if has_panel else paths[:3])):
        return None
    return ReportSummary(report, paths[0], paths[1], paths[3] if has_panel else None)
