"""The report that is there, where it still says what the store would."""

from __future__ import annotations

from data_schemas.errors import ReportError
from data_schemas.locations import Location
from data_schemas.store import SplatStore
from pipeline.predictability_record import PredictabilityResult
from pipeline.report.build import JSON_FILE, ReportSummary, assemble, read_report
from pipeline.report.statistics import read_rows


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
    paths = [folder / name for name in (JSON_FILE, "report.html", "panel.png")]
    try:
        report = read_report(paths[0])
    except ReportError:
        return None
    found = PredictabilityResult(report.predictability, report.predictability_reason)
    counted = assemble(store, read_rows(store), found, [], report.panels_reason)
    if counted.model_copy(update={"created": report.created, "panels": report.panels}) != report:
        return None
    has_panel = bool(report.panels)
    if not all(path.exists() for path in (paths[:3] if has_panel else paths[:2])):
        return None
    return ReportSummary(report, paths[0], paths[1], paths[2] if has_panel else None)
