"""``--refine regressed``: a store is fitted twice, and the second fit begins where the pixels say.

1. A seeded sample of the images is fitted into a store of its own, ``NAME-refine/first.zarr``: an ordinary run, which
   continues after a kill as every run does.
2. A small network learns the splats of that store from the pixels (``encoders.start.regression``) in 5 folds by
   content: for no image does its own first fit take part. It is written beside the first store, whole or not at all.
3. Every image is fitted into the store that was asked for, from starts halfway between the usual ones and what the
   network predicts, at half the rates.

The regression is learned once: images that come later are predicted with it, and the header of the store holds its
digest, so rows of two regressions never mix. The folder may be deleted; continuing the store then makes it again, and
refuses to go on where its numbers differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from data_schemas.errors import SourceError, StoreCorruptError
from data_schemas.files import wrap_os_errors, write_file
from data_schemas.locations import Location
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import open_store
from encoders.frame import from_splats
from encoders.start.regression import StartRegression, fold_of, inputs_of
from encoders.vector import LANES
from pipeline.encode.fit import RunShards, fit_store
from pipeline.encode.inputs import read_regression, source_of
from pipeline.encode.job import LOCAL, EncodeJob
from pipeline.encode.plan import survey
from pipeline.encode.records import EncodeProgress
from pipeline.finite_splats import require_finite
from pipeline.kernel_ridge import FoldSums, kernel_width, squared_distances
from pipeline.sources.base import DrawnSource, ImageSource
from pipeline.sources.download import Progress

logger = logging.getLogger("splatspace.encode")


FEWEST_LEARNT = 40
"""Finished images of the first fit of ``--refine regressed``."""

MOST_LEARNT = 8192
"""Images of the first fit: more tell the network little."""

MOST_LANDMARKS = 1000
MOST_WEIGHTS = 4_000_000
"""Landmarks times splat numbers, in each fold: bounds memory (a gigabyte while it learns) and the file."""

_ROWS_AT_ONCE = 256
_ROWS_FOR_STATISTICS = 2048
_PERCENT = 0.5


def too_few_to_learn(images: int, where: str) -> SourceError:
    """The error of a set, a path or a store, that holds fewer than ``FEWEST_LEARNT`` images."""
    return SourceError(
        f"{images} images in {where} to predict starts from",
        allowed=f"{FEWEST_LEARNT} or more",
        next_step="leave --refine out, or encode more images",
    )


def with_regression(
    job: EncodeJob,
    *,
    progress: Callable[[EncodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    source: ImageSource | None = None,
    downloading: Progress | None = None,
    run_shards: RunShards | None = None,
    learn: bool = True,
) -> EncodeJob:
    """Makes the regression of a refined job, or finds the one that is there.

    Args:
        job: as resolved; one without ``refine`` is handed back as it is.
        progress: of the first fit.
        should_stop: polled in the first fit.
        source: read from it instead of opening ``job.dataset``.
        downloading: told of downloads.
        run_shards: carries out the first fit instead of this process.
        learn: False for a look only: a regression that is not there is not made.

    Returns:
        The job with its regression; without one only where ``learn`` is False and it is not there.

    Raises:
        StoppedError: ``should_stop`` answered True; run again to continue.
        SourceError: too few images to learn from.
        SplatSpaceError: as ``pipeline.encode.fit.fit_store``.
    """
    if job.refine == "none" or job.regression is not None:
        return job
    if source is None:
        source = source_of(job, downloading=downloading)
    sample = DrawnSource(source, MOST_LEARNT, seed=job.seed, among=job.limit)
    if len(sample) < FEWEST_LEARNT:
        raise too_few_to_learn(len(sample), str(job.dataset))
    folder = job.out.with_name(job.out.stem + "-refine")
    first = job.model_copy(
        update={
            "out": folder / "first.zarr",
            "refine": "none",
            "images": True,
            "limit": None,
            "block_rows": None,
            # A bounded sample: not worth workers of its own.
            "compute": LOCAL,
            # Every setting has a first store of its own.
            "versions": True,
        }
    )
    planned = survey(first, source=sample, write=False).plan
    path = planned.store.with_name(planned.store.stem + ".regression.npz")
    there = not job.overwrite and _is_whole(path)
    if not there and not learn:
        return job
    if not there:
        with wrap_os_errors("create", folder):
            folder.mkdir(parents=True, exist_ok=True)
        logger.info("first fit: %d images, for the starts of the second", len(sample))
        first = first.model_copy(update={"out": planned.store, "versions": False})
        summary = fit_store(first, source=sample, progress=progress, should_stop=should_stop, run_shards=run_shards)
        with open_store(summary.store, "r") as store:
            learned = learn_regression(store, seed=job.seed)
        with wrap_os_errors("write", path):
            write_file(path, learned.to_bytes())
    return job.model_copy(update={"regression": path})


def _is_whole(path: Location) -> bool:
    if not path.exists():
        return False
    try:
        read_regression(path)
    except StoreCorruptError as error:
        logger.warning("%s; it is learned again", error.got)
        return False
    return True


def learn_regression(store: SplatStore, *, seed: int = 0) -> StartRegression:
    """Learns starts from the finished rows of a store; the same store and seed give the same numbers.

    Args:
        store: with source images, of a codec without opacity.
        seed: decides the landmarks.

    Raises:
        SourceError: fewer than ``FEWEST_LEARNT`` finished images.
    """
    header = store.header
    rows = store.finished_rows()
    if len(rows) < FEWEST_LEARNT:
        raise too_few_to_learn(len(rows), str(store.path))
    numbers = header.gaussians * header.splat_layout.width
    generator = np.random.default_rng([seed, len(rows)])
    most = min(MOST_LANDMARKS, max(64, MOST_WEIGHTS // numbers))
    landmarks, _, _ = _read(store, np.sort(generator.permutation(rows)[:most]))
    _, sample, _ = _read(store, np.sort(generator.permutation(rows)[:_ROWS_FOR_STATISTICS]))
    low, high = np.percentile(sample, [_PERCENT, 100 - _PERCENT], axis=0)
    clipped = np.clip(sample, low, high)
    offsets, variance = clipped.mean(axis=0), clipped.var(axis=0)
    # One thread of linear algebra: the last digits would depend on their number.
    with threadpool_limits(1, user_api="blas"):
        squared = squared_distances(landmarks).astype(np.float64)
        scale = kernel_width(squared, least=1.0)
        sums = FoldSums.empty(len(landmarks), numbers)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            inputs, targets, folds = _read(store, rows[first : first + _ROWS_AT_ONCE])
            basis = np.exp(-squared_distances(inputs, landmarks).astype(np.float64) / scale)
            sums.add(basis, np.clip(targets, low, high) - offsets, folds)
        weights, ridge, r2 = sums.solve(np.exp(-squared / scale), variance)
    logger.info("starts predicted from %d images: R2 %.3f out of fold, ridge %g", len(rows), r2, ridge)
    padding = -numbers % LANES
    return StartRegression(
        landmarks=landmarks,
        weights=np.pad(weights, ((0, 0), (0, 0), (0, padding))),
        offsets=np.pad(offsets.astype(np.float32), (0, padding)),
        scale=scale,
        shape=(header.height, header.width, header.channels),
        frame=(header.gaussians, header.splat_layout.width),
    )


def _read(
    store: SplatStore, rows: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64]]:
    """Inputs [image, input], frames [image, number] and folds [image] of some rows."""
    header = store.header
    inputs: list[NDArray[np.float32]] = []
    frames: list[NDArray[np.float32]] = []
    folds: list[int] = []
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        read = store.read(["splats", "image"], [int(row) for row in rows[first : first + _ROWS_AT_ONCE]])
        require_finite(read["splats"], rows[first : first + _ROWS_AT_ONCE], store)
        splats = read["splats"].astype(np.float32)
        inputs.append(inputs_of(read["image"]))
        frames.append(from_splats(splats, header.height, header.width).reshape(len(splats), -1))
        folds += [fold_of(image) for image in read["image"]]
    return np.concatenate(inputs), np.concatenate(frames).astype(np.float64), np.array(folds, np.int64)
