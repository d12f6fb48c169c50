"""Flow ``evaluate``: how good a trained generator is, with a table of metrics as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from data_schemas.locations import location
from flows.artifacts.generators import publish_evaluation
from flows.artifacts.progress import ProgressBar
from flows.guards import require_generator_quality, require_inside_roots
from flows.logs import follow_prefect
from flows.parameters import parameters_from
from pipeline.evaluate.evaluate import evaluate as measure
from pipeline.evaluate.feature_training import features_folder
from pipeline.evaluate.job import EvaluateJob, resolve_evaluate_job
from pipeline.evaluate.reading import PAGE_FILE
from pipeline.options import DeviceName, DeviceOption
from pipeline.train.state import run_folder

follow_prefect()


@flow(name="evaluate", flow_run_name="{run} on {store}", persist_result=False)
@parameters_from(EvaluateJob, DeviceOption)
def evaluate(
    run: str,
    store: str,
    *,
    device: DeviceName = "auto",
    max_fid: Annotated[
        float | None,
        Field(
            gt=0,
            description="Fail the run, after writing everything, where FID is above this. Only means something for the "
            "same features, number of images and evaluations each time.",
        ),
    ] = None,
    min_recall: Annotated[
        float | None,
        Field(gt=0, le=1, description="Fail the run, after writing everything, where recall is below this."),
    ] = None,
    **options: Any,
) -> Path:
    """Samples from a trained generator and measures FID, KID, precision, recall and more against the originals.

    Returns:
        path of evaluation.html.

    Raises:
        SplatSpaceError: the run or the store cannot be used, or the generator misses what was asked.
    """
    # Before anything: a run of the hub is downloaded as soon as the job is made.
    require_inside_roots(run=run)
    job = resolve_evaluate_job(run, store, **options)
    require_inside_roots(
        store=store,
        out=job.out,
        reference=job.reference,
        weights=job.weights,
        against=options.get("against"),
        ablation=job.ablation,
        features=str(features_folder(location(store))),
    )
    with ProgressBar("evaluation: features") as bar:

        def sampled(done: int, total: int) -> None:
            bar.show(done / max(total, 1), f"evaluation: {done:,} of {total:,} images sampled")

        found = measure(job, device=device, progress=sampled)
    page = job.out / PAGE_FILE
    get_run_logger().info("evaluation: %s", page)
    publish_evaluation(found, run_folder(job.run), page)
    require_generator_quality(found, max_fid=max_fid, min_recall=min_recall, page=page)
    return page
