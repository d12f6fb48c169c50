"""From a trained generator to pictures, a grid of them, and a store of their splats."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.durable_files import explained, partial_name
from data_schemas.errors import JobError, SamplingError, StoreError
from models.objectives import Objective
from models.patch_model import PatchModel
from models.samplers import Trajectory, generators_for, steps_of
from models.samplers import sample as sample_batch
from pipeline.generation.animation import Drawing, require_beside, save_gifs
from pipeline.generation.fitted_samples import GRID_FILE, ROWS_AT_ONCE, STORE_STEM, STRIP_FILE, sample_fitted
from pipeline.generation.grids import grid_of, picture_of
from pipeline.generation.interpolation import between
from pipeline.generation.known_parts import Kept, kept_part
from pipeline.generation.patch_anatomy import MOST_SHOWN, Watch, drawn_at, patch_model, save_anatomy, splat_head
from pipeline.generation.run import Run
from pipeline.generation.sample_fit import SampleFit, sample_fit
from pipeline.generation.sample_job import SampleJob, SampleResult
from pipeline.generation.sample_store import write_samples
from pipeline.generation.sketch import sketch_features
from pipeline.render_store import save_png

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
        label = torch.from_numpy(self.labels[first : first + count]) if self.run.objective.classes else None
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
    fit = sample_fit(run, gaussians=job.gaussians, steps=job.steps, seed=job.seed) if job.splats else None
    shown = run if fit is None else fit.view
    out = job.out.expanduser().resolve()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise StoreError(
            f"{out} exists already", allowed="a new or empty folder", next_step="give another --out; nothing is deleted"
        )
    if beside is not None:
        if not job.gif:
            raise JobError("--beside without --gif", allowed="both", next_step="add --gif")
        require_beside(run, beside)
    kept = None if job.known is None else kept_part(run, job.known)
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
    steps_of(job.sampler or run.objective.settings.sampler, evaluations)
    partial = partial_name(out)
    with explained("create", out):
        partial.mkdir(parents=True)
    try:
        result = _written(request, partial, evaluations, progress, beside)
        with explained("create", out):
            if out.exists():
                out.rmdir()
            partial.rename(out)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(partial)
        raise
    return _moved(result, partial, out)


def _stored_shape(run: Run) -> tuple[int, ...]:
    if run.spec.kind == "splats":
        return run.spec.gaussians, run.splats.layout.width
    return run.spec.height, run.spec.width, run.spec.channels


def _written(
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
    began = time.perf_counter()
    parts: list[Tensor] = []
    drawn_larger = job.size is not None and splat_head(run) is not None
    watch = (
        Watch(request.labels, count=job.number if drawn_larger else MOST_SHOWN)
        if isinstance(run.model, PatchModel)
        else None
    )
    for first in range(0, job.number, job.batch):
        count = min(job.batch, job.number - first)
        parts.append(request.draw(first, count, watch).cpu())
        if progress is not None:
            progress(count)
    seconds = time.perf_counter() - began
    features = torch.cat(parts)
    stored = request.stored(features)
    store = None
    if run.spec.kind == "splats":
        store = folder / f"{STORE_STEM}{job.suffix}"
        write_samples(run, job, evaluations, stored, request.labels, store)
    pictures = []
    digits = max(4, len(str(job.number - 1)))
    for first in range(0, job.number, ROWS_AT_ONCE):
        part = slice(first, first + ROWS_AT_ONCE)
        if drawn_larger and watch is not None:
            images = drawn_at(run, watch.last(part), job.size or 1)
        else:
            images = run.rendered(stored[part], job.size)
        for offset, pixels in enumerate(images):
            path = folder / f"{first + offset:0{digits}d}.png"
            save_png(picture_of(pixels), path)
            pictures.append(path)
    columns = _columns(run, job)
    grid, shown = grid_of(run.rendered(stored), columns=columns)
    if shown < job.number:
        notes.append(f"The grid shows the first {shown:,} of {job.number:,} images.")
    save_png(grid, folder / GRID_FILE)
    gifs: list[Path] = []
    strip = None
    if job.interpolate is not None:
        one, other = job.interpolate
        way = run.rendered(between(run, features[one], features[other]), job.size)
        strip = folder / STRIP_FILE
        save_png(grid_of(way, columns=len(way))[0], strip)
    anatomy = save_anatomy(run, folder, watch) if job.anatomy and watch is not None else []
    if job.gif:
        drawing = Drawing(run, lambda trajectory: request.draw(0, 1, trajectory))
        other = None if beside is None else Drawing(beside, lambda trajectory: _beside(request, beside, trajectory))
        gifs = save_gifs(drawing, stored, folder, seed=job.seed, beside=other)
    return SampleResult(
        pictures=tuple(pictures),
        grid=folder / GRID_FILE,
        store=store,
        gifs=tuple(gifs),
        strip=strip,
        labels=tuple(int(label) for label in request.labels),
        seconds=seconds,
        notes=tuple(notes),
        anatomy=tuple(anatomy),
    )


def _beside(request: _Request, other: Run, trajectory: Trajectory) -> Tensor:
    """The first image of another generator, with the same seed and, where it knows labels, the same label."""
    label = torch.from_numpy(request.labels[:1])
    settings = other.objective.settings
    return sample_batch(
        other.objective,
        other.model,
        (1, *other.representation.shape),
        generators=generators_for(request.job.seed, 1),
        evaluations=settings.evaluations,
        sampler=settings.sampler,
        label=label if other.objective.classes > int(label) else None,
        trajectory=trajectory,
    )


def _moved(result: SampleResult, before: Path, after: Path) -> SampleResult:
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
    """Pictures in a row of the grid: one class a row where all classes are sampled."""
    classes = run.objective.classes
    every_class = classes and job.known is None and job.label in (None, "all")
    return -(-job.number // classes) if every_class and job.number >= classes else None


def labels_for(run: Run, job: SampleJob, kept: Kept | None = None) -> NDArray[np.int64]:
    """The class of each image, -1 for none.

    Without a label, all classes are sampled equally often, one after the other; of a stored image the rest is drawn
    with the image's own label.

    Raises:
        JobError: an unknown label; a label or guidance for a generator without classes.
    """
    objective: Objective = run.objective
    classes, number = objective.classes, job.number
    if not classes and job.label not in (None, "none"):
        raise JobError(
            f"--label {job.label}, and {run.path} was trained without labels", allowed="no --label",
            next_step="train with --classes to choose what is generated",
        )  # fmt: skip
    _require_guidable(run, job)
    if not classes or job.label == "none":
        return np.full(number, -1, np.int64)
    if job.label is None and kept is not None:
        return np.full(number, kept.label if kept.label < classes else -1, np.int64)
    if job.label in (None, "all"):
        return np.arange(number, dtype=np.int64) // -(-number // classes) if number >= classes else np.arange(number)
    assert job.label is not None
    if job.label in run.label_names:
        return np.full(number, run.label_names.index(job.label), np.int64)
    if job.label.isdecimal() and int(job.label) < classes:
        return np.full(number, int(job.label), np.int64)
    raise JobError(
        f"--label {job.label}",
        allowed=f"0 to {classes - 1}, all, none" + "".join(f", {name}" for name in run.label_names[:20]),
    )


def _require_guidable(run: Run, job: SampleJob) -> None:
    if job.guidance == 1:
        return
    facts: dict[str, Any] = {"classes": run.objective.classes, "label_drop": run.objective.settings.label_drop}
    if not all(facts.values()) or job.label == "none":
        raise SamplingError(
            f"--guidance {job.guidance:g} without a label to follow",
            allowed="1, or a label and a run that was trained with labels, some of them withheld",
            next_step="leave --guidance out",
        )
