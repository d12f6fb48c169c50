"""An ablation: one choice at a time around a base configuration, each trained and evaluated.

A point that is finished is never run again, one that was interrupted goes on: the folder is the only truth.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from data_schemas.errors import EvaluationError, JobError, SamplingError, SplatSpaceError, StoppedError, TrainingError
from data_schemas.files import wrap_os_errors, write_file
from data_schemas.records import StoreHeader
from data_schemas.splats import StartName
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import open_store, require_outside_stores
from encoders.quality import psnr_of_mean_error
from models.checkpoint import read_config
from models.registry import model_named
from pipeline.encode.inputs import encoder_for
from pipeline.evaluate.ablate.job import (
    BASE,
    AblateJob,
    AxisName,
    Point,
    Value,
    train_job,
)
from pipeline.evaluate.ablate.points import base_values, default_axes, points_of
from pipeline.evaluate.ablate.report import (
    JSON_FILE,
    MARKDOWN_FILE,
    PICTURE_FILE,
    Ablation,
    ablation_markdown,
    ablation_png,
)
from pipeline.evaluate.ablate.rows import Found, gather_rows
from pipeline.evaluate.ablate.stores import encode_variant, variant_job
from pipeline.evaluate.evaluate import evaluate
from pipeline.evaluate.features import FeatureExtractor, build_extractor
from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.job import EvaluateJob
from pipeline.evaluate.reading import JSON_FILE as EVALUATION_FILE
from pipeline.evaluate.reading import read_evaluation
from pipeline.train.rows import slots_for
from pipeline.train.state import MODEL_FILE, STATE_FILE, TrainProgress, continue_job
from pipeline.train.train import train

logger = logging.getLogger("splatspace.ablate")

BASE_FILE = "base.json"
EVALUATED_SHARE = 0.15
"""Of the time of a point, roughly: for the progress alone."""

Progress = Callable[[float, str], None]
"""(share of all that is done, what is under way)."""


def _nothing(_share: float, _words: str) -> None:
    """Reports progress to nobody."""


def _never() -> bool:
    return False


def ablate(job: AblateJob, *, progress: Progress = _nothing, should_stop: Callable[[], bool] = _never) -> Ablation:
    """Trains and evaluates every point that is not finished; writes ``ablation.json``, ``.md`` and ``.png``.

    A point whose training or sampling fails is named in its row; the others are run. Run again, it is tried again.

    Args:
        job: from ``resolve_ablate_job``.
        progress: told how far it is.
        should_stop: polled; True keeps what is finished and raises.

    Returns:
        All rows.

    Raises:
        JobError: a folder that holds an ablation of another base, or a choice that the model does not take.
        TrainingError: the base itself cannot be trained; the same for the errors of sampling and evaluating it.
        StoppedError: ``should_stop`` said so.
        SplatSpaceError: a store or a folder cannot be used.
    """
    require_outside_stores(job.out)
    with open_store(job.store, "r") as store:
        header = store.header
        job = job.model_copy(update={"axes": _fill(job, default_axes(job, header))})
        base = base_values(job, header)
        points = points_of(job, header, base)
        _check(job, points, store)
        _require_same_base(job, store)
        extractor = build_extractor(job.features, store, cache=job.out / "features")
        found: list[Found] = []
        for number, point in enumerate(points):

            def report(share: float, words: str, number: int = number, name: str = point.name) -> None:
                progress((number + share) / len(points), f"{name} ({number + 1} of {len(points)}): {words}")

            _require_going_on(point, should_stop)
            report(0.0, "begins")
            found.append(_point(job, point, store, extractor, report, should_stop))
        images = len(store.finished_rows()[: job.limit])
    result = gather_rows(job, base, found, images)
    with wrap_os_errors("write", job.out):
        write_file(job.out / PICTURE_FILE, ablation_png(result))
        write_file(job.out / MARKDOWN_FILE, ablation_markdown(result).encode())
        write_file(job.out / JSON_FILE, (result.model_dump_json(indent=2) + "\n").encode())
    progress(1.0, "done")
    return result


def _require_going_on(point: Point, should_stop: Callable[[], bool]) -> None:
    """Leaves where nothing is lost by it; a training is asked by itself, and saves its state first."""
    if should_stop():
        raise StoppedError(f"Stopped in {point.name}", next_step="run the same command again to continue")


def _fill(job: AblateJob, defaults: dict[AxisName, tuple[Value, ...]]) -> dict[AxisName, tuple[Value, ...]]:
    """Every axis with its values.

    Raises:
        JobError: an axis without values that this model, or its store, has no choice on.
    """
    chosen = job.axes or dict.fromkeys(defaults, ())
    for axis, values in chosen.items():
        if not (values or axis in defaults):
            raise JobError(
                f"Axis {axis} of model {job.model} and this store, which leave no choice there",
                allowed=", ".join(defaults),
                next_step="leave the axis out",
            )
    return {axis: values or defaults[axis] for axis, values in chosen.items()}


def _check(job: AblateJob, points: Sequence[Point], store: SplatStore) -> None:
    """Refuses what cannot be trained before hours are spent on what can.

    Raises:
        JobError: the first point that is refused, or an engine of the base store that cannot run here.
        EvaluationError: a store without source images.
    """
    if "image" not in store.arrays:
        raise EvaluationError(
            f"{store.path} holds no source images to compare with",
            allowed="a store that was encoded with --images (the default)",
            next_step="encode the set again without --no-images",
        )
    if store.header.start is None and any(point.gaussians or point.start for point in points):
        raise JobError(
            f"Axis gaussians or start with {store.path}, which does not say how its Gaussians began",
            allowed="a store that splatspace encode has made",
            next_step="leave these axes out, or encode the images again",
        )
    known = [field.name for field in dataclasses.fields(model_named(job.model).presets[job.preset])]
    for point in points:
        planned = train_job(job, point, job.store)
        if set(planned.changes) - set(known):
            raise JobError(f"Axis {point.axis} of model {job.model}", allowed="model splatdit")
        slots_for(planned, store.header, model_named(planned.model))
        if point.gaussians is not None or point.start is not None:
            gaussians, start, place = _variant(job, point, store.header)
            variant = variant_job(store.header, place, gaussians=gaussians, start=start, workers=job.workers)
            settings = variant.fit_settings(store.header.height, store.header.width)
            encoder_for(variant, settings, workers=variant.workers, unlearned=True)


def _variant(job: AblateJob, point: Point, header: StoreHeader) -> tuple[int, StartName | None, Path]:
    """K, start and place of the store that a point needs in place of the base store."""
    gaussians, start = point.gaussians or header.gaussians, point.start or header.start
    return gaussians, start, job.out / "stores" / f"k{gaussians}-{start}.zarr"


def _require_same_base(job: AblateJob, store: SplatStore) -> None:
    """Points of different bases do not belong into one table."""
    identity = json.loads(json.dumps(store.header.identity(), default=str))
    content = {
        **job.deciding(),
        "store": identity,
        "rows": len(store.finished_rows()),
        "source": store.header.source.digest,
    }
    path = job.out / BASE_FILE
    if not path.exists():
        with wrap_os_errors("create", job.out):
            job.out.mkdir(parents=True, exist_ok=True)
            write_file(path, (json.dumps(content, indent=2) + "\n").encode())
        return
    try:
        before: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise JobError(f"{path} cannot be read ({error})", next_step="give another --out") from error
    differing = [name for name in content if content[name] != before.get(name)]
    if differing:
        raise JobError(
            f"{job.out} holds an ablation with another {', '.join(differing)}",
            allowed=", ".join(f"{name} {before.get(name)}" for name in differing if name != "store")
            or "the same store",
            next_step="give another --out, or the same options; axes, values and seeds may be added",
        )


def _point(
    job: AblateJob,
    point: Point,
    store: SplatStore,
    extractor: FeatureExtractor,
    report: Progress,
    should_stop: Callable[[], bool],
) -> Found:
    """One point, from its folder or from work."""
    place = store.path
    folder = job.out / point.folder
    sweep = tuple(int(value) for value in job.axes.get("evaluations", ())) if point.axis == BASE else ()
    kept = _read_finished(folder / "evaluation", set(sweep))
    if point.gaussians is not None or point.start is not None:
        gaussians, start, place = _variant(job, point, store.header)
        if kept is None:
            report(0.0, "encodes its store")
            encode_variant(
                store, place, gaussians=gaussians, start=start, limit=job.limit, workers=job.workers,
                should_stop=should_stop,
            )  # fmt: skip
    psnr = _psnr(place, job.limit)
    if kept is not None:
        return Found(point, kept, psnr)
    planned = train_job(job, point, place)
    try:
        run = planned.out
        resume = (run / STATE_FILE).exists()
        if not (resume and _whole(run, job.steps)):

            def trained(step: TrainProgress) -> None:
                report((1 - EVALUATED_SHARE) * step.step / step.steps, step.words)

            current = continue_job(run, {"device": job.device, "store": place}) if resume else planned
            train(current, resume=resume, progress=trained, should_stop=should_stop)

        def sampled(done: int, total: int) -> None:
            _require_going_on(point, should_stop)
            report(1 - EVALUATED_SHARE * (1 - done / max(total, 1)), f"{done:,} of {total:,} images sampled")

        evaluation = evaluate(
            EvaluateJob(
                run=run,
                store=str(place),
                out=folder / "evaluation",
                images=job.images,
                evaluations=job.evaluations,
                sweep=sweep,
                features=job.features,
                rows=job.limit,
                seed=point.seed,
            ),
            device=job.device,
            progress=sampled,
            extractor=extractor,
        )
    except (TrainingError, SamplingError, EvaluationError) as error:
        if point.axis == BASE:
            raise
        logger.warning("%s, seed %d, has no figures: %s", point.name, point.seed, error)
        return Found(point, None, psnr, error.got)
    return Found(point, evaluation, psnr)


def _read_finished(folder: Path, needed: set[int]) -> Evaluation | None:
    """The evaluation of a point that is finished, with all numbers of evaluations that are asked for."""
    if not (folder / EVALUATION_FILE).exists():
        return None
    try:
        found = read_evaluation(folder)
    except SplatSpaceError as error:
        logger.warning("%s is made again: %s", folder, error)
        return None
    return found if needed <= {scores.evaluations for scores in found.generated} else None


def _whole(run: Path, steps: int) -> bool:
    model = run / MODEL_FILE
    return model.exists() and int(read_config(model)["step"]) == steps


def _psnr(place: Any, limit: int | None) -> float | None:
    """PSNR of the mean squared error of the finished rows, dB."""
    with open_store(place, "r") as store:
        psnr = psnr_of_mean_error(store.read(["psnr"])["psnr"][store.finished_rows()][:limit])
    return psnr if math.isfinite(psnr) else None
