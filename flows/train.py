"""Flow ``train``: a store to a generator, with its loss and samples as an artifact.

The run's folder is the only truth: a training that is there goes on where it stopped, bit for bit on one CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from prefect import flow, get_run_logger
from pydantic import Field

from flows.artifacts.generators import publish_training
from flows.artifacts.progress import ProgressBar
from flows.guards import require_inside_roots
from flows.logs import follow_prefect
from flows.parameters import parameters_from
from flows.stop import run_stoppably
from pipeline.format import format_loss, list_parts
from pipeline.train.job import KindName, TrainJob, TrainRequest
from pipeline.train.request import resolve_request
from pipeline.train.state import MODEL_FILE, STATE_FILE, TrainProgress, TrainSummary

follow_prefect()


@flow(name="train", flow_run_name="{kind} of {store} to {out}", persist_result=False)
@parameters_from(TrainJob, TrainRequest)
def train(
    store: str,
    out: str,
    kind: KindName = "splats",
    *,
    track: Annotated[
        str | None,
        Field(
            pattern=r"^(wandb|mlflow)(,(wandb|mlflow))*$",
            description="Log to wandb, mlflow or both (wandb,mlflow) as well; their own settings say where.",
        ),
    ] = None,
    resume: Annotated[
        bool,
        Field(
            description="Resume where a training in that folder stopped; without it a folder that holds one is refused."
        ),
    ] = True,
    **options: Any,
) -> TrainSummary:
    """Trains a generator on the splats or the images of a store; leaves the run's folder and its artifact.

    Run it again with the same parameters and it continues; with more steps it goes on from the end. What is left out
    is as `splatspace train` has it, or as the training that is continued has it. Paths are relative to the folder in
    which the flow runs.

    Returns:
        what was left.

    Raises:
        SplatSpaceError: the job cannot be run, or a loss is not a number (the last whole checkpoint is kept).
    """
    require_inside_roots(store=store, out=out, lpips_weights=options.get("lpips_weights"), distil=options.get("distil"))
    logger = get_run_logger()
    run = Path(out)
    goes_on = resume and (run / STATE_FILE).exists()
    if goes_on:
        logger.info("%s holds a training: it goes on", run)
    job = resolve_request(kind, store, run, resume=goes_on, **options)
    try:
        summary = _train_in_thread(job, resume=goes_on, trackers=tuple(track.split(",")) if track else ())
    finally:
        # Cancelled or failed, too: what came before is there to be seen.
        if (run / MODEL_FILE).exists():
            publish_training(run)
    took = f"{summary.steps_taken} steps of {summary.steps} in {summary.seconds:.0f} s"
    logger.info("%s: %s", list_parts(took, format_loss(summary.loss)), run)
    if summary.unfinished:
        logger.warning("%d rows of the store are not done and were not used", summary.unfinished)
    return summary


def _train_in_thread(job: TrainJob, *, resume: bool, trackers: tuple[str, ...]) -> TrainSummary:
    """The training, in a thread of its own: a cancellation saves its state first."""
    # Here, so that those who only serve or deploy the flow do not wait seconds for the packages of a training.
    from pipeline.train.train import train as run_training

    with ProgressBar(f"training {job.model} ({job.preset})") as bar:

        def show(progress: TrainProgress) -> None:
            bar.show(progress.step / progress.steps, progress.words)

        def work(should_stop: Callable[[], bool]) -> TrainSummary:
            return run_training(job, resume=resume, progress=show, should_stop=should_stop, trackers=trackers)

        return run_stoppably(work)
