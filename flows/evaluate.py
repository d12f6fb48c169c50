"""Flow ``evaluate``: how good a trained generator is, with a table of metrics as an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from prefect import flow, get_run_logger
from pydantic import Field

from data_schemas.locations import location
from encoders.settings import MAX_GAUSSIANS, MAX_STEPS
from flows.artifacts import ProgressBar
from flows.generator_artifacts import publish_evaluation
from flows.guards import require_generator_quality, require_inside_roots
from models.diffusion.samplers import SamplerName
from pipeline.evaluate.evaluate import evaluate as measure
from pipeline.evaluate.feature_training import features_folder
from pipeline.evaluate.features import FeatureName
from pipeline.evaluate.job import EvaluateJob
from pipeline.evaluate.reading import PAGE_FILE
from pipeline.options import PathText
from pipeline.train.state import run_folder


@flow(name="evaluate", flow_run_name="{run} on {store}", persist_result=False)
def evaluate(
    run: PathText,
    store: PathText,
    out: PathText | None = None,
    reference: PathText | None = None,
    images: Annotated[int, Field(ge=1)] | None = None,
    evaluations: Annotated[int, Field(ge=1)] | None = None,
    sweep: Annotated[str, Field(pattern=r"^\d+(,\d+)*$")] | None = None,
    sampler: SamplerName | None = None,
    guidance: float = 1.0,
    features: FeatureName = "auto",
    splats: bool = False,
    gaussians: Annotated[int, Field(ge=1, le=MAX_GAUSSIANS)] | None = None,
    steps: Annotated[int, Field(ge=0, le=MAX_STEPS)] | None = None,
    weights: PathText | None = None,
    against: PathText | None = None,
    ablation: PathText | None = None,
    batch: Annotated[int, Field(ge=1)] = 64,
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto",
    seed: Annotated[int, Field(ge=0)] = 0,
    max_fid: Annotated[float, Field(gt=0)] | None = None,
    min_recall: Annotated[float, Field(gt=0, le=1)] | None = None,
) -> Path:
    """Samples from a trained generator and measures FID, KID, precision, recall and more against the originals.

    Args:
        run: folder of the training.
        store: the store that it was trained on, with its source images.
        out: folder of evaluation.json and evaluation.html; without it RUN/evaluation.
        reference: a store of images that nothing learnt from, to compare with; without it those of the store.
        images: of each set; without it 1,000, at most half of the store.
        evaluations: of the network per image; without it the objective's.
        sweep: further numbers of evaluations, as 5,10,50; without it a quarter and a half.
        sampler: without it the objective's.
        guidance: towards the label; 1 for none.
        features: in what to measure; auto is classifier where every image has a label, else selfsup.
        splats: also fit Gaussians to what a generator of pixels draws, and measure what they show.
        gaussians: with splats, K; without it that of the store that the run learnt from.
        steps: with splats, of the fit's optimiser; without it as that store had it.
        weights: file or folder of the Inception network's weights.
        against: evaluation of another generator (folder or JSON), for one table.
        ablation: folder of an ablation, whose table and picture go into the page.
        batch: images at once.
        device: where to compute; auto takes a graphics card where there is one.
        seed: of the samples and of the choice of originals.
        max_fid: fail the run, after writing everything, where FID is above this. Only means something for the same
            features, number of images and evaluations each time.
        min_recall: fail the run, after writing everything, where recall is below this.

    Returns:
        path of evaluation.html.

    Raises:
        SplatSpaceError: the run or the store cannot be used, or the generator misses what was asked.
    """
    job = EvaluateJob(
        run=Path(run),
        store=store,
        out=run_folder(Path(run)) / "evaluation" if out is None else Path(out),
        reference=reference,
        images=images,
        evaluations=evaluations,
        sweep=None if sweep is None else tuple(int(number) for number in sweep.split(",")),
        sampler=sampler,
        guidance=guidance,
        features=features,
        splats=splats,
        gaussians=gaussians,
        steps=steps,
        weights=None if weights is None else Path(weights),
        against=() if against is None else (Path(against),),
        ablation=None if ablation is None else Path(ablation),
        batch=batch,
        seed=seed,
    )
    kept_features = features_folder(location(store))
    require_inside_roots(
        run=run,
        store=store,
        out=job.out,
        reference=reference,
        weights=weights,
        against=against,
        ablation=ablation,
        features=str(kept_features),
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
