"""From a trained generator to images, a grid of them, and a store of their splats."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.errors import JobError, StoreError
from data_schemas.files import make_unfinished_folder, remove_abandoned, wrap_os_errors
from data_schemas.locations import resolve_path
from data_schemas.stores.open import require_outside_stores
from models.diffusion.objectives import Objective
from models.diffusion.samplers import Trajectory, generators_for, require_learnt, steps_of
from models.diffusion.samplers import sample as sample_batch
from pipeline.images import portions
from pipeline.render import save_png
from pipeline.sample.anatomy import MOST_SHOWN, Watch, draw_last_step, patch_model, save_anatomy, splat_head
from pipeline.sample.animation import Drawing, require_beside, save_gifs
from pipeline.sample.draws import between, sketch_features
from pipeline.sample.fit import SampleFit, sample_fit
from pipeline.sample.fitted_samples import GRID_FILE, STORE_STEM, STRIP_FILE, sample_fitted
from pipeline.sample.gallery import Gallery, strip_of
from pipeline.sample.job import SampleJob, SampleResult
from pipeline.sample.known_parts import Kept, read_kept_part
from pipeline.sample.run import Run
from pipeline.sample.store import samples_header, write_samples

logger = logging.getLogger("splatspace.sample")


@dataclass(frozen=True)
class _Request:
    """What every batch shares."""

    run: Run
    job: SampleJob
    labels: NDArray[np.int64]
    kept: Kept | None
    sketch: Tensor | None
    fit: SampleFit | None

    def draw(self, first: int, count: int, trajectory: Trajectory | None = None) -> Tensor:
        """Clean features of some consecutive images."""
        labels = self.labels[first : first + count]
        label = torch.from_numpy(self.run.labels.classes(labels)) if self.run.objective.classes else None
        known = keep = None
        if self.kept is not None:
            known = self.kept.features.expand(count, *self.kept.features.shape[1:])
            keep = self.kept.mask.expand(count, *self.kept.mask.shape[1:])
        return sample_batch(
            self.run.objective,
            self.run.model,
            (count, *self.run.representation.shape),
            generators=generators_for(self.job.seed, count, first=first),
            evaluations=self.job.evaluations,
            sampler=self.job.sampler,
            label=label,
            guidance=self.job.guidance,
            known=known,
            keep=keep,
            sketch=None if self.sketch is None else self.sketch.expand(count, *self.sketch.shape[1:]),
            signal=self.job.signal,
            trajectory=trajectory,
        )

    def stored(self, features: Tensor) -> NDArray[np.float32]:
        """Stored numbers, in which the known part is what it was before it was encoded."""
        values = self.run.stored(features)
        if self.kept is not None and self.run.spec.kind == "splats":
            groups = torch.tensor(self.run.representation.groups)
            # A column of the layout is kept where the features that make it are.
            geometry, colour = self.kept.mask[0, :, 0].numpy(), self.kept.mask[0, :, int(groups.max())].numpy()
            layout = self.run.splats.layout
            for index, name in enumerate(layout.names):
                mask = geometry if name in ("sigma_x", "sigma_y", "rho", "x", "y") else colour
                values[:, mask, index] = self.kept.stored[mask, index]
        return values


def sample(
    run: Run, job: SampleJob, *, progress: Callable[[int], None] | None = None, beside: Run | None = None
) -> SampleResult:
    """Samples and writes everything that the job asks for.

    The folder appears when it is whole; sampling again with other options needs another folder.

    Args:
        run: from ``load_run``.
        job: what to sample.
        progress: called with the number of images after each batch.
        beside: a generator of pixels, shown in the animations of one of splats.

    Returns:
        What was written.

    Raises:
        JobError: an unknown label, or an option that this generator has no use for.
        SamplingError: a result that is not finite.
        StoreError: the folder is there already or cannot be written; a store that cannot be read.
        StoreMismatchError: a known image of another codec, size or K.
    """
    fit = sample_fit(run, gaussians=job.gaussians, steps=job.steps, seed=job.seed) if job.splats or run.draws else None
    shown = run if fit is None else fit.view
    out = resolve_path(job.out)
    require_outside_stores(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(
            f"{out} exists already", allowed="a new or empty folder", next_step="give another --out; nothing is deleted"
        )
    if beside is not None:
        if not job.gif:
            raise JobError("--beside without --gif", allowed="both", next_step="add --gif")
        require_beside(run, beside)
    kept = None if job.known is None else read_kept_part(run, job.known)
    sketch = None if job.sketch is None else sketch_features(run, job.sketch)
    request = _Request(run, job, labels_for(run, job, kept), kept, sketch, fit)
    if job.anatomy:
        patch_model(run)
    if splat_head(run) is None:
        # Refuses a size before long sampling.
        shown.rendered(np.zeros((0, *_stored_shape(shown)), np.float32), job.size)
    if job.interpolate is not None:
        _ = shown.splats
    evaluations = job.evaluations or run.objective.settings.evaluations
    sampler = job.sampler or run.objective.settings.sampler
    steps_of(sampler, evaluations)
    require_learnt(run.objective.settings, sampler, evaluations)
    if run.spec.kind == "splats":
        samples_header(run, job, evaluations)  # refuses what a store cannot hold before long sampling
    with wrap_os_errors("create", out):
        out.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(out)
        with make_unfinished_folder(out) as partial:
            result = _write(request, partial, evaluations, progress, beside)
            for lock in partial.glob("*.lock"):
                lock.unlink()  # of the store of samples; no other process knows of this folder yet
            if out.exists():
                out.rmdir()
            partial.rename(out)
    return _interpolate(result, partial, out)


def _stored_shape(run: Run) -> tuple[int, ...]:
    if run.spec.kind == "splats":
        return run.spec.gaussians, run.splats.layout.width
    return run.spec.height, run.spec.width, run.spec.channels


def _write(
    request: _Request,
    folder: Path,
    evaluations: int,
    progress: Callable[[int], None] | None,
    beside: Run | None,
) -> SampleResult:
    run, job = request.run, request.job
    notes = list(request.kept.notes) if request.kept is not None else []
    if request.fit is not None:
        return sample_fitted(
            run,
            request.fit,
            job,
            evaluations=evaluations,
            labels=request.labels,
            draw=request.draw,
            folder=folder,
            columns=_columns(run, job),
            notes=notes,
            progress=progress,
        )
    gallery = Gallery(run, folder, job.number, size=job.size, columns=_columns(run, job))
    shown = gallery.grid.room
    watch = Watch(run.labels.classes(request.labels), count=MOST_SHOWN) if job.anatomy else None
    drawn_larger = job.size is not None and splat_head(run) is not None
    splats: list[NDArray[np.float32]] = []
    ends: dict[int, Tensor] = {}
    first_stored: NDArray[np.float32] | None = None
    seconds = 0.0
    for part in portions(job.number, job.batch):
        count = part.stop - part.start
        last = Watch(run.labels.classes(request.labels[part]), count=count) if drawn_larger else None
        began = time.perf_counter()
        features = request.draw(part.start, count, _all_of(watch, last)).cpu()
        seconds += time.perf_counter() - began
        stored = request.stored(features)
        first_stored = stored[:1] if first_stored is None else first_stored
        ends |= {
            image: features[image - part.start] for image in job.interpolate or () if image in range(job.number)[part]
        }
        if run.spec.kind == "splats":
            splats.append(stored)
        gallery.add(stored, None if last is None else _larger(run, last, job.size or 1))
        if progress is not None:
            progress(count)
    if shown < job.number:
        notes.append(f"The grid shows the first {shown:,} of {job.number:,} images.")
    save_png(gallery.grid.picture(), folder / GRID_FILE)
    store = None
    if splats:
        store = folder / f"{STORE_STEM}{job.suffix}"
        write_samples(run, job, evaluations, np.concatenate(splats), request.labels, store)
    gifs: list[Path] = []
    strip = None
    if job.interpolate is not None:
        way = between(run, *(ends[image] for image in job.interpolate))
        row, frames = strip_of(run, way, job.size)
        if frames < len(way):
            notes.append(f"{STRIP_FILE} shows the first {frames} of {len(way)} images: it may not be wider.")
        strip = folder / STRIP_FILE
        save_png(row.picture(), strip)
    anatomy = save_anatomy(run, folder, watch) if watch is not None else []
    if job.gif:
        assert first_stored is not None
        drawing = Drawing(run, lambda trajectory: request.draw(0, 1, trajectory))
        other = None if beside is None else Drawing(beside, lambda trajectory: _beside(request, beside, trajectory))
        gifs = save_gifs(drawing, first_stored, folder, seed=job.seed, beside=other)
    return SampleResult(
        pictures=tuple(gallery.paths),
        grid=folder / GRID_FILE,
        store=store,
        gifs=tuple(gifs),
        strip=strip,
        labels=tuple(int(label) for label in request.labels),
        seconds=seconds,
        notes=tuple(notes),
        anatomy=tuple(anatomy),
    )


def _all_of(*watches: Watch | None) -> Trajectory | None:
    """One that tells all that are there; None where there is none."""
    told = [watch for watch in watches if watch is not None]

    def tell(number: int, moment: float, noisy: Tensor, clean: Tensor) -> None:
        for watch in told:
            watch(number, moment, noisy, clean)

    return tell if told else None


def _larger(run: Run, last: Watch, size: int) -> Callable[[slice], NDArray[np.uint8]]:
    """Draws images of a batch of a patch model of splats at any size."""
    return lambda part: draw_last_step(run, last.last(part), size)


def _beside(request: _Request, other: Run, trajectory: Trajectory) -> Tensor:
    """The first image of another generator, with the same seed and, where it knows labels, the same label."""
    label = request.labels[:1]
    knows = other.objective.classes and not other.labels.unknown(label)
    settings = other.objective.settings
    return sample_batch(
        other.objective,
        other.model,
        (1, *other.representation.shape),
        generators=generators_for(request.job.seed, 1),
        evaluations=settings.evaluations,
        sampler=settings.sampler,
        label=torch.from_numpy(other.labels.classes(label)) if knows else None,
        trajectory=trajectory,
    )


def _interpolate(result: SampleResult, before: Path, after: Path) -> SampleResult:
    def place(path: Path) -> Path:
        return after / path.relative_to(before)

    return replace(
        result,
        pictures=tuple(place(path) for path in result.pictures),
        grid=place(result.grid),
        store=None if result.store is None else place(result.store),
        gifs=tuple(place(path) for path in result.gifs),
        strip=None if result.strip is None else place(result.strip),
        anatomy=tuple(place(path) for path in result.anatomy),
        pixels=None if result.pixels is None else place(result.pixels),
    )


def _columns(run: Run, job: SampleJob) -> int | None:
    """Images in a row of the grid: one class a row where there are as many images of each."""
    classes = run.objective.classes
    every_class = classes and job.known is None and job.label in (None, "all")
    return job.number // classes if every_class and not job.number % classes else None


def labels_for(run: Run, job: SampleJob, kept: Kept | None = None) -> NDArray[np.int64]:
    """The label of each image, as the data set numbers it, -1 for none.

    Without a label, all are sampled equally often (the numbers of images differ by one at most), one after the other;
    of a stored image the rest is drawn with the image's own label.

    Raises:
        JobError: a label that was not learned; a label or guidance for a generator without classes.
    """
    objective: Objective = run.objective
    classes, number = objective.classes, job.number
    if not classes and job.label not in (None, "none"):
        raise JobError(
            f"--label {job.label}, and {run.path} was trained without labels", allowed="no --label",
            next_step="train with --classes to choose what is generated",
        )  # fmt: skip
    run.require_guidable(job.guidance, label=job.label != "none")
    if not classes or job.label == "none":
        return np.full(number, -1, np.int64)
    if job.label is None and kept is not None:
        if run.labels.unknown(np.array([kept.label])):
            raise JobError(
                f"An image with label {run.labels.words([kept.label])}, which {run.path} did not learn",
                allowed=f"labels {run.labels.words(run.labels.numbers)}",
                next_step="say with --label what is to be drawn",
            )
        return np.full(number, kept.label, np.int64)
    if job.label in (None, "all"):
        image = np.arange(number, dtype=np.int64)
        return np.array(run.labels.numbers, np.int64)[image * classes // number if number >= classes else image]
    assert job.label is not None
    label = run.labels.find(job.label)
    if label is None:
        raise JobError(f"--label {job.label}", allowed=run.labels.choices())
    return np.full(number, label, np.int64)
