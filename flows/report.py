"""Flow ``report``: the PSNR report of a store that is there, again."""

from __future__ import annotations

from prefect import flow, get_run_logger

from data_schemas.locations import Location, location
from data_schemas.stores.open import open_store
from flows.artifacts.report import publish_report
from flows.guards import PsnrFloor, require_inside_roots, require_quality
from flows.logs import follow_prefect
from pipeline.documents import report_folder
from pipeline.encode.plan import newest_version
from pipeline.options import PathText
from pipeline.report import build_report

follow_prefect()


@flow(name="report", flow_run_name="{store}", persist_result=False)
def report(
    store: PathText,
    out: PathText | None = None,
    newest: bool = True,
    min_psnr: PsnrFloor | None = None,
    min_psnr_p1: PsnrFloor | None = None,
) -> Location:
    """Measures a store, writes its report again and publishes it; the store is only read.

    Args:
        store: a .zarr or .h5 store, complete or not; relative to the folder in which the flow runs.
        out: folder of the report; without it NAME-report beside the store.
        newest: of a store with versions (NAME.zarr, NAME.v2.zarr, ...) take the newest one; off: the store as named.
        min_psnr: fail the run, after writing everything, where the PSNR of the mean error is below this, in dB.
        min_psnr_p1: fail the run, after writing everything, where the PSNR of the 1st percentile is below this, in dB.

    Returns:
        path of report.html.

    Raises:
        SplatSpaceError: the store cannot be read, the report cannot be written, or the quality falls short.
    """
    require_inside_roots(store=store, out=out)
    path = newest_version(location(store)) if newest else location(store)
    require_inside_roots(version=str(path))
    with open_store(path) as opened:
        folder = report_folder(opened.path) if out is None else location(out)
        require_inside_roots(report=str(folder))
        built = build_report(opened, folder)
        publish_report(built, opened.path)
    get_run_logger().info("report: %s", built.html_path)
    require_quality(
        built.report, min_psnr=min_psnr, min_psnr_p1=min_psnr_p1, store=opened.path, html_report=built.html_path
    )
    return built.html_path
