"""Flow ``ablate``: one choice at a time around a base configuration, with the table and the picture as an artifact."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from data_schemas.errors import SplatSpaceError
from flows.artifacts import ProgressBar, artifact_key, escape, harmless, picture, places, small_sheet, table
from flows.guards import require_inside_roots
from flows.stop import run_stoppably
from models.registry import PresetName
from pipeline.evaluate.ablate.ablate import ablate as run_ablation
from pipeline.evaluate.ablate.job import AblateJob, resolve_ablate_job
from pipeline.evaluate.ablate.report import (
    ABLATION_HEADER,
    JSON_FILE,
    MARKDOWN_FILE,
    PICTURE_FILE,
    Ablation,
    ablation_cells,
    ablation_words,
)
from pipeline.evaluate.features import FeatureName
from pipeline.options import PathText


@flow(name="ablate", flow_run_name="{store} to {out}", persist_result=False)
def ablate(
    store: PathText,
    out: PathText,
    axes: Annotated[str, Field(min_length=1)] | None = None,
    model: Annotated[str, Field(min_length=1)] | None = None,
    preset: PresetName | None = None,
    steps: Annotated[int, Field(ge=1, le=100_000_000)] | None = None,
    batch: Annotated[int, Field(ge=1, le=1_000_000)] | None = None,
    learning_rate: Annotated[float, Field(gt=0, le=1)] | None = None,
    limit: Annotated[int, Field(ge=1)] | None = None,
    seeds: Annotated[int, Field(ge=1, le=100)] | None = None,
    images: Annotated[int, Field(ge=1)] | None = None,
    evaluations: Annotated[int, Field(ge=1)] | None = None,
    features: FeatureName | None = None,
    device: Literal["auto", "cpu", "cuda", "mps"] | None = None,
    workers: Annotated[int, Field(ge=1)] | None = None,
) -> Path:
    """Trains and evaluates a base generator and others that differ from it in one choice; run again, it continues.

    Args:
        store: the base store of splats, with its source images.
        out: folder of the ablation.
        axes: what to change, as pack=1,2,4; objective; ema=no. Without it everything that splatspace ablate knows.
        model: of the base (splatdit).
        preset: its size (tiny).
        steps: optimiser steps of each training (2,000).
        batch: images of a step (64).
        learning_rate: its height, as train has it without.
        limit: only the first finished images of the store.
        seeds: trainings of each point (1).
        images: of each set that is compared; without it 1,000, at most half of the store.
        evaluations: of the network per image; without it the objective's.
        features: in what to measure.
        device: where to compute; auto takes a graphics card where there is one.
        workers: of the encoder, where stores with another K or start are made; without it one per processor.

    Returns:
        path of ablation.md.

    Raises:
        SplatSpaceError: the job cannot be run, or a point failed (all others are done by then).
    """
    require_inside_roots(store=store, out=out)
    job = resolve_ablate_job(
        store, out, axes=[part for part in (axes or "").split(";") if part.strip()], model=model, preset=preset,
        steps=steps, batch=batch, learning_rate=learning_rate, limit=limit, seeds=seeds, images=images,
        evaluations=evaluations, features=features, device=device, workers=workers,
    )  # fmt: skip
    with ProgressBar("ablation") as bar:

        def work(should_stop: Callable[[], bool]) -> Ablation:
            return run_ablation(job, progress=bar.show, should_stop=should_stop)

        found = run_stoppably(work)
    page = job.out / MARKDOWN_FILE
    get_run_logger().info("ablation: %s", page)
    publish_ablation(found, job)
    if found.failures:
        raise SplatSpaceError(
            f"{len(found.failures)} choices have failed trainings: "
            + "; ".join(f"{row.axis} {row.value}: {row.failure}" for row in found.failures),
            next_step=f"see {page}; run the same parameters again to try them again",
        )
    return page


def publish_ablation(found: Ablation, job: AblateJob) -> None:
    """Keeps an ablation under the key ``ablation-<set>``. Never raises.

    Args:
        found: the rows.
        job: for the places of its files.
    """
    key = artifact_key(found.source, "ablation")
    with harmless(f"artifact {key}"):
        sections = [
            f"# Ablation on {escape(found.source)}",
            escape(ablation_words(found)),
            *picture(small_sheet((job.out / PICTURE_FILE).read_bytes()), "FID by choice"),
            table(ABLATION_HEADER, [ablation_cells(row) for row in found.rows]),
            *places([(name, job.out / name) for name in (MARKDOWN_FILE, JSON_FILE, PICTURE_FILE)]),
        ]
        create_markdown_artifact("\n\n".join(sections) + "\n", key=key, description="ablation")
