"""Samples of a generator of pixels as a store of splats: portions are drawn while the last ones are fitted.

To the encoder the generator is one more source of images. So what reads ahead, fits, measures and writes is what
encodes a data set, with one block that waits between drawing and fitting.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from data_schemas.records import RowState, SourceRecord
from data_schemas.stores.open import open_store
from models.diffusion.samplers import Trajectory
from pipeline.encode.job import resolve_job
from pipeline.encode.records import FailedImage
from pipeline.encode.run import EncodeProgress, EncodeSummary, encode
from pipeline.format import list_names
from pipeline.images import Grid, grid_of, picture_of, pictures_at_once, portions
from pipeline.render import save_png
from pipeline.sample.anatomy import MOST_SHOWN, Watch, save_anatomy
from pipeline.sample.animation import Drawing, save_fitted_gifs
from pipeline.sample.draws import between
from pipeline.sample.fit import SampleFit
from pipeline.sample.job import FitFigures, SampleJob, SampleResult
from pipeline.sample.run import Run
from pipeline.sample.store import describe_source, generation_record, read_image, sample_names
from pipeline.sources.base import SourceImage

PORTION = 32
"""Images that the network draws at once. Matrix products of another size round otherwise, and a fit would show it:
with ``--batch`` only whole portions change hands, so an image's bytes do not depend on it."""

MOST_BLOCKS = 1024
"""Blocks of a store: each is some files."""

Draw = Callable[[int, int, Trajectory | None], Tensor]
"""(first image, images, what is told of the steps) to clean features."""

MOST_NAMED = 5
"""Images without splats that are named; the rest are counted."""

GRID_FILE, PIXELS_FILE, STRIP_FILE, STORE_STEM = "grid.png", "pixels.png", "interpolation.png", "samples"


class SampledImages:
    """A generator of pixels as a source of images, drawn when they are read.

    Args:
        run: the generator.
        draw: samples consecutive images.
        labels: int64 [image], -1 for none.
        watch: is told of the steps.
    """

    def __init__(self, run: Run, draw: Draw, labels: NDArray[np.int64], watch: Trajectory | None = None) -> None:
        self._run, self._draw, self._labels, self._watch = run, draw, labels, watch
        self._names = sample_names(len(labels))
        self._portion: tuple[int, NDArray[np.uint8]] | None = None
        self.seconds = 0.0
        """Wall time of drawing."""

    @property
    def record(self) -> SourceRecord:
        """Says that the images are generated, and after what."""
        return describe_source(self._run)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        spec = self._run.spec
        return spec.height, spec.width, spec.channels

    def __len__(self) -> int:
        return len(self._names)

    def identifiers(self) -> Sequence[str]:
        """``generated/000000`` and so on."""
        return self._names

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Draws the portions that hold some images.

        Raises:
            SamplingError: a result that is not finite.
        """
        return [SourceImage(self._names[index], self._pixels(index), int(self._labels[index])) for index in indices]

    def _pixels(self, index: int) -> NDArray[np.uint8]:
        number, place = divmod(index, PORTION)
        if self._portion is None or self._portion[0] != number:
            began = time.perf_counter()
            first = number * PORTION
            features = self._draw(first, min(PORTION, len(self) - first), self._watch)
            self._portion = number, self._run.rendered(self._run.stored(features))
            self.seconds += time.perf_counter() - began
        return self._portion[1][place]


def sample_fitted(
    run: Run,
    fit: SampleFit,
    job: SampleJob,
    *,
    evaluations: int,
    labels: NDArray[np.int64],
    draw: Draw,
    folder: Path,
    columns: int | None = None,
    notes: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
) -> SampleResult:
    """Draws and fits samples and writes everything that the job asks for.

    Args:
        run: the generator.
        fit: from ``sample_fit``.
        job: of the sampling.
        evaluations: that are spent on each image.
        labels: int64 [image], -1 for none.
        draw: samples consecutive images.
        folder: of everything.
        columns: images in a row of the grids.
        notes: what a user should know already.
        progress: called with the number of images after each handful.

    Raises:
        SamplingError: a result that is not finite, or an animation of what cannot be fitted.
        StoreError: something cannot be written; an image between two of which one has no splats.
    """
    watch = Watch(run.labels.classes(labels), count=MOST_SHOWN) if job.anatomy else None
    source = SampledImages(run, draw, labels, watch)
    store = folder / f"{STORE_STEM}{job.suffix}"
    summary = _encode(source, fit, job, store, progress)
    _record_generation(store, generation_record(run, job, evaluations))
    told = [*notes, *fit.notes, *([failure_note(summary.failed)] if summary.failed else [])]
    pictures = _draw_pictures(fit, store, folder, job)
    shown = _draw_grids(fit, store, folder, columns)
    if shown < job.number:
        told.append(f"The grids show the first {shown:,} of {job.number:,} images.")
    return SampleResult(
        pictures=tuple(pictures),
        grid=folder / GRID_FILE,
        store=store,
        gifs=tuple(_save_gifs(run, fit, job, draw, folder)) if job.gif else (),
        strip=None if job.interpolate is None else _draw_strip(fit, store, job, folder),
        labels=tuple(int(label) for label in labels),
        seconds=source.seconds,
        notes=tuple(told),
        anatomy=tuple(save_anatomy(run, folder, watch)) if job.anatomy and watch is not None else (),
        pixels=folder / PIXELS_FILE,
        fit=FitFigures(
            gaussians=fit.header.gaussians,
            steps=fit.encoder.settings.steps,
            engine=summary.engine,
            psnr=summary.psnr,
            seconds=summary.fit_seconds,
            core_seconds=summary.core_seconds,
            failed=tuple(image.row for image in summary.failed),
        ),
    )


def _encode(
    source: SampledImages, fit: SampleFit, job: SampleJob, store: Path, progress: Callable[[int], None] | None
) -> EncodeSummary:
    block = -(-min(max(job.batch, len(source) // MOST_BLOCKS), len(source)) // PORTION) * PORTION
    told = 0

    def report(state: EncodeProgress) -> None:
        nonlocal told
        if progress is not None and state.processed > told:
            progress(state.processed - told)
            told = state.processed

    wanted = resolve_job(source.record.name, store, gaussians=fit.header.gaussians, dtype="float32", block_rows=block)
    return encode(wanted, source=source, encoder=fit.encoder, progress=report)


def _record_generation(path: Path, record: dict[str, Any]) -> None:
    """Puts what the images were made by beside the settings of the fit."""
    with open_store(path, "a") as store:
        header = store.header
        store.set_header(header.model_copy(update={"settings": {**header.settings, "generated": record}}))
        store.commit()


def _draw_pictures(fit: SampleFit, store: Path, folder: Path, job: SampleJob) -> list[Path]:
    """An image of each sample as its splats show it; an image without splats gets none."""
    paths: list[Path] = []
    digits = max(4, len(str(job.number - 1)))
    with open_store(store, "r") as opened:
        at_once = pictures_at_once(*fit.view.size_of(job.size), fit.view.spec.channels)
        for part in portions(job.number, at_once):
            rows = opened.read(["splats", "state"], part)
            for offset, pixels in enumerate(fit.view.rendered(rows["splats"], job.size)):
                if rows["state"][offset] == RowState.DONE:
                    paths.append(folder / f"{part.start + offset:0{digits}d}.png")
                    save_png(picture_of(pixels), paths[-1])
    return paths


def _draw_grids(fit: SampleFit, store: Path, folder: Path, columns: int | None) -> int:
    """Two grids: what the splats show, and the pixels that they were fitted to; returns how many images they show."""
    spec = fit.view.spec
    with open_store(store, "r") as opened:
        count = Grid(len(opened), spec.height, spec.width, spec.channels, columns=columns).room
        rows = opened.read(["splats", "image"], slice(0, count))
    grid, shown = grid_of(fit.view.rendered(rows["splats"]), columns=columns)
    save_png(grid, folder / GRID_FILE)
    save_png(grid_of(rows["image"], columns=columns)[0], folder / PIXELS_FILE)
    return shown


def _draw_strip(fit: SampleFit, store: Path, job: SampleJob, folder: Path) -> Path:
    assert job.interpolate is not None
    ends = [read_image(store, str(row)).splats for row in job.interpolate]
    one, other = fit.features(np.stack(ends))
    way = fit.view.rendered(between(fit.view, one, other), job.size)
    path = folder / STRIP_FILE
    save_png(grid_of(way, columns=len(way))[0], path)
    return path


def _save_gifs(run: Run, fit: SampleFit, job: SampleJob, draw: Draw, folder: Path) -> list[Path]:
    drawing = Drawing(run, lambda trajectory: draw(0, 1, trajectory))
    return save_fitted_gifs(drawing, fit.view, fit.splats, folder, seed=job.seed)


def failure_note(failed: Sequence[FailedImage]) -> str:
    """The first images without splats, for people."""
    shown = list_names([f"{image.row} ({image.reason})" for image in failed], most=MOST_NAMED)
    return f"{len(failed):,} images could not be fitted and have pixels only: image {shown}."
