"""From a trained generator and the store of its data to figures, each with its sample size and its floors."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.errors import EvaluationError
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import open_store, require_outside_stores
from models.diffusion.samplers import require_learnt, steps_of
from pipeline.documents import sole_writer
from pipeline.evaluate.ablate.report import read_ablation
from pipeline.evaluate.features import FeatureExtractor, build_extractor
from pipeline.evaluate.figures import (
    Evaluation,
    FeatureFigures,
    GeneratorFacts,
    Neighbour,
    NeighbourFigures,
    SamplingCost,
    Scores,
    reference_facts,
    training_facts,
)
from pipeline.evaluate.flops import sample_tflop, time_steps
from pipeline.evaluate.job import EvaluateJob
from pipeline.evaluate.metrics import images_needed, nearest
from pipeline.evaluate.page import render_page
from pipeline.evaluate.page_images import Pictures
from pipeline.evaluate.reading import JSON_FILE, PAGE_FILE, read_evaluation
from pipeline.evaluate.scores import measure_fit, scores_of
from pipeline.evaluate.seams import seam_figures
from pipeline.report.files import write_whole
from pipeline.sample.draws import Drawn, Settings, draw, roll_out
from pipeline.sample.fit import SampleFit, sample_fit
from pipeline.sample.run import Run, load_run
from pipeline.store_images import (
    content_identities,
    labels,
    originals,
    renderings,
)
from pipeline.train.rows import DataSplit, split_rows

logger = logging.getLogger("splatspace.evaluate")

DEFAULT_IMAGES = 1000
"""Images of each set where nothing else is asked for, and the store has twice as many."""

_SHOWN_NEIGHBOURS = 8
_SHOWN_WAYS = 6

_NO_SCORE = {
    "selfsup": "self-supervised features have no classes",
    "inception": "the classes of ImageNet mean nothing for these images",
}

Progress = Callable[[int, int], None]
"""(images sampled, of how many)."""


@dataclass(frozen=True)
class _Sets:
    """Row numbers.

    Attributes:
        reference: what samples are compared with, in the store of the reference.
        others: as many others for the floor, in the same store.
        searched: where neighbours are searched, in the store that was learned from.
    """

    reference: NDArray[np.int64]
    others: NDArray[np.int64]
    searched: NDArray[np.int64]


def _nothing(_done: int, _total: int) -> None:
    """Reports progress to nobody."""


def evaluate(
    job: EvaluateJob,
    *,
    device: str = "auto",
    progress: Progress = _nothing,
    extractor: FeatureExtractor | None = None,
) -> Evaluation:
    """Samples, measures and writes ``evaluation.json`` and ``evaluation.html``.

    Args:
        job: what to measure.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        progress: called after every sampled batch.
        extractor: to measure in; None builds the one that the job names.

    Raises:
        CheckpointError: no run, or a damaged one.
        JobError: a device that is not there; a fit whose K is not known.
        EvaluationError: fewer images than the metrics need, no source images, or features that cannot be had.
        DownloadError: the weights of Inception could not be downloaded.
        StoreMismatchError: a store of another shape or codec than the generator's, or with labels that it did not
            learn.
        SamplingError: samples that are not finite or cannot be fitted; splats asked of a generator of splats.
        StoreLockedError: another process writes the folder.
        ReportError: the folder cannot be written, or an evaluation or the ablation cannot be read.
    """
    require_outside_stores(job.out)
    others = [read_evaluation(path) for path in job.against]
    ablation = None if job.ablation is None else read_ablation(job.ablation)
    run = load_run(job.run, device=device)
    fit = sample_fit(run, gaussians=job.gaussians, steps=job.steps, seed=job.seed) if job.splats or run.draws else None
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(open_store(job.store, "r"))
        run.require_same_data(store.header, store.path)
        run.require_guidable(job.guidance)
        rows = store.finished_rows()[: job.rows]
        run.require_known_labels(labels(store, rows), store.path, store.header.source.label_names)
        compared = store if job.reference is None else stack.enter_context(open_store(job.reference, "r"))
        unseen = compared.finished_rows()
        if job.reference is not None:
            run.require_same_size(compared.header, compared.path)
            run.require_known_labels(labels(compared, unseen), compared.path, compared.header.source.label_names)
        extractor = extractor or build_extractor(job.features, store, weights=job.weights)
        # Of a run that held images out nothing is asked where others are given: neither found nor warned of.
        given = job.reference is not None
        split = DataSplit(rows, unseen, rows[:0]) if given else _split_held_out(run, store, rows, extractor)
        sets = _choose_sets(job, split, extractor, len(compared))
        # Before the hours of measuring: whoever comes second would overwrite what the first one writes.
        with sole_writer(job.out):
            finished = len(rows if job.reference is None else unseen)
            found, pictures = _measure(job, run, fit, store, compared, sets, extractor, finished, progress)
            write_whole(job.out / PAGE_FILE, render_page(found, pictures, others, ablation).encode())
            write_whole(job.out / JSON_FILE, (found.model_dump_json(indent=2) + "\n").encode())
    logger.info("Evaluation written to %s", job.out)
    return found


def _split_held_out(run: Run, store: SplatStore, rows: NDArray[np.int64], extractor: FeatureExtractor) -> DataSplit:
    """The rows that the generator has not seen, and those it learned from; all as unseen where there is no such."""
    trained = run.config["job"]
    hashes = content_identities(store, rows)
    distinct, held_out = bool(trained.get("distinct", False)), float(trained.get("held_out", 0.0))
    split = split_rows(rows, hashes, distinct=distinct, held_out=held_out)
    needed = 2 * images_needed(extractor.dimension)
    if held_out and len(split.held_out) >= needed:
        return split
    if held_out:
        logger.warning(
            "%d images were held out in training, and %d are needed: images that it learned from are taken, too",
            len(split.held_out),
            needed,
        )
    return DataSplit(rows[:0], np.sort(np.concatenate([split.training, split.held_out])), split.repeats)


def _choose_sets(job: EvaluateJob, split: DataSplit, extractor: FeatureExtractor, total: int) -> _Sets:
    rows = split.held_out
    half = len(rows) // 2
    count = min(DEFAULT_IMAGES, half) if job.images is None else job.images
    needed = images_needed(extractor.dimension)
    if half < max(count, needed):
        raise EvaluationError(
            f"{len(rows):,} finished images of {total:,} in the store: two sets of {max(count, needed):,} are compared",
            allowed=f"{2 * needed:,} or more finished images, and --images up to half of them",
            next_step="encode more images" if half < needed else f"ask for --images {half} or fewer",
        )
    if count < needed:
        raise EvaluationError(
            f"{count:,} images",
            allowed=f"{needed:,} or more: {extractor.name} has {extractor.dimension} features",
            next_step=f"ask for --images {needed} or more",
        )
    order = np.random.default_rng(job.seed).permutation(rows)
    searched = np.random.default_rng(job.seed).permutation(split.training)
    if not len(searched):
        searched = np.concatenate([order[:count], order[2 * count :]])
    searched = searched[: max(job.references, 1)]
    return _Sets(order[:count], order[count : 2 * count], searched)


def _measure(
    job: EvaluateJob,
    run: Run,
    fit: SampleFit | None,
    store: SplatStore,
    compared: SplatStore,
    sets: _Sets,
    extractor: FeatureExtractor,
    finished: int,
    progress: Progress,
) -> tuple[Evaluation, Pictures]:
    settings = Settings(
        sampler=job.sampler or run.objective.settings.sampler,
        evaluations=job.evaluations or run.objective.settings.evaluations,
        guidance=job.guidance,
        seed=job.seed,
        batch=job.batch,
    )
    numbers = _sweep(job, settings.evaluations, any_number=not run.objective.settings.distilled)
    for number in numbers:
        steps_of(settings.sampler, number)
        require_learnt(run.objective.settings, settings.sampler, number)
    conditional = run.objective.classes > 0
    wanted = run.labels.classes(labels(compared, sets.reference)) if conditional else None
    count = len(sets.reference)
    real, rendered = originals(compared, sets.reference), renderings(compared, sets.reference)
    reference, others = extractor.forward(real), extractor.forward(originals(compared, sets.others))
    rendered_features = extractor.forward(rendered)
    scored: list[Scores] = []
    headline: Drawn | None = None
    features = reference
    for place, number in enumerate(numbers):

        def sampled(done: int, before: int = place * count) -> None:
            progress(before + done, len(numbers) * count)

        drawn = draw(run, _with(settings, number), wanted, count, sampled)
        found = extractor.forward(drawn.images)
        scored.append(scores_of("generated", "originals", reference, found, job.seed, number, extractor, drawn.images))
        if number == settings.evaluations:
            headline, features = drawn, found
    assert headline is not None  # the sweep holds the number that was asked for
    neighbours, nearest_rows = _neighbours(store, sets, extractor, features, others)
    way = roll_out(run, settings, wanted, min(_SHOWN_WAYS, count))
    fitted = shown = splats = None
    if fit is not None:
        fitted, shown = measure_fit(fit, headline, reference, job.seed, settings.evaluations, extractor)
        first = fit.splats(np.concatenate([run.rendered(stored[:1]) for _, stored in way]))
        splats = fit.view, [(moment, first[step : step + 1]) for step, (moment, _) in enumerate(way)]
    found = Evaluation(
        created=datetime.now(UTC),
        generator=GeneratorFacts(
            name=f"{run.config['model']} ({run.config['preset']})",
            kind=run.makes,
            objective=run.objective.settings.name,
            sampler=settings.sampler,
            guidance=settings.guidance,
            conditional=conditional,
            seed=job.seed,
            facts=training_facts(run.config),
        ),
        reference=reference_facts(compared, finished),
        features=FeatureFigures(
            name=extractor.name, sha=extractor.sha, dimension=extractor.dimension, facts=extractor.facts
        ),
        generated=tuple(scored),
        fitted=fitted,
        against_renderings=scores_of(
            "generated", "renderings", rendered_features, features, job.seed, settings.evaluations
        ),
        real_floor=scores_of("other originals", "originals", reference, others, job.seed),
        reconstruction_floor=scores_of("renderings", "originals", reference, rendered_features, job.seed),
        score_reason="" if scored[-1].inception_score is not None else _score_reason(extractor, count),
        neighbours=neighbours,
        seams=seam_figures(run, settings, wanted, headline.images, real),
        cost=_cost(run, settings, headline, conditional),
    )
    pictures = Pictures(
        run=run,
        samples=headline.images,
        originals=real,
        way=way,
        neighbours=nearest_rows,
        fitted=shown,
        splats=splats,
    )
    return found, pictures


def _sweep(job: EvaluateJob, evaluations: int, *, any_number: bool) -> list[int]:
    usual = (evaluations // 4, evaluations // 2) if any_number else ()
    further = usual if job.sweep is None else job.sweep
    return sorted({evaluations, *(number for number in further if number >= 1)})


def _with(settings: Settings, evaluations: int) -> Settings:
    return Settings(settings.sampler, evaluations, settings.guidance, settings.seed, settings.batch)


def _score_reason(extractor: FeatureExtractor, count: int) -> str:
    return _NO_SCORE.get(extractor.name, "") or f"{count} images are too few for it"


def _neighbours(
    store: SplatStore, sets: _Sets, extractor: FeatureExtractor, features: Tensor, others: Tensor
) -> tuple[NeighbourFigures, Tensor]:
    """The figures, and the nearest originals of the first samples: uint8 [image, channel, row, column]."""
    portion = 4096
    searched = torch.cat(
        [
            extractor.forward(originals(store, sets.searched[first : first + portion]))
            for first in range(0, len(sets.searched), portion)
        ]
    )
    distance, position = nearest(features, searched)
    real, _ = nearest(others, searched)
    rows = sets.searched[position[:_SHOWN_NEIGHBOURS].numpy()]
    real_median = float(real.median())
    figures = NeighbourFigures(
        references=len(sets.searched),
        generated_median=float(distance.median()),
        real_median=real_median,
        ratio=float(distance.median()) / real_median if real_median > 0 else None,
        shown=tuple(
            Neighbour(sample=number, row=int(row), distance=float(distance[number])) for number, row in enumerate(rows)
        ),
    )
    return figures, originals(store, rows)


def _cost(run: Run, settings: Settings, drawn: Drawn, conditional: bool) -> SamplingCost:
    guided = conditional and settings.guidance != 1
    gflop, tflop = sample_tflop(run.model, settings.evaluations, guided=guided)
    steps = time_steps(run.model, min(32, settings.batch))
    device = next(run.model.parameters()).device
    return SamplingCost(
        parameters=sum(parameter.numel() for parameter in run.model.parameters()),
        gflop_per_step=gflop,
        evaluations=settings.evaluations,
        tflop_per_sample=tflop,
        step_batch=steps.batch,
        step_ms_p50=steps.median_ms,
        step_ms_p95=steps.slow_ms,
        steps_timed=steps.steps,
        seconds_per_image=drawn.seconds / len(drawn.images),
        rendering_seconds_per_image=drawn.rendering_seconds / len(drawn.images),
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        threads=torch.get_num_threads(),
    )
