"""Learns the regression of ``--refine regressed`` from a first fit (``pipeline.regressed`` says what it is for)."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve
from threadpoolctl import threadpool_limits

from data_schemas.records import RowState
from data_schemas.store import SplatStore
from encoders.frame import from_splats
from encoders.regression import FOLDS, StartRegression, fold_of, inputs_of
from encoders.vector import LANES
from pipeline.fewest_learnt import FEWEST_LEARNT, too_few_to_learn
from pipeline.finite_splats import require_finite
from pipeline.squared_distances import squared_distances

logger = logging.getLogger("splatspace.encode")

MOST_LANDMARKS = 1000
MOST_WEIGHTS = 4_000_000
"""Landmarks times splat numbers, in each fold: bounds memory (a gigabyte while it learns) and the file."""

RIDGES = (0.1, 0.4, 1.6)
"""As in the measure of predictability; the one with the least error out of fold is taken."""

_ROWS_AT_ONCE = 256
_ROWS_FOR_STATISTICS = 2048
_PERCENT = 0.5
_JITTER = 1e-6


def learn_regression(store: SplatStore, *, seed: int = 0) -> StartRegression:
    """Learns starts from the finished rows of a store; the same store and seed give the same numbers.

    Args:
        store: with source images, of a codec without opacity.
        seed: decides the landmarks.

    Raises:
        SourceError: fewer than ``FEWEST_LEARNT`` finished images.
    """
    header = store.header
    rows = np.flatnonzero(store.read(["state"])["state"] == RowState.DONE)
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
        median = float(np.median(squared[np.triu_indices(len(squared), k=1)]))
        scale = median if median > 0 else max(float(squared.max()), 1.0)
        sums = _Sums.empty(len(landmarks), numbers)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            inputs, targets, folds = _read(store, rows[first : first + _ROWS_AT_ONCE])
            basis = np.exp(-squared_distances(inputs, landmarks).astype(np.float64) / scale)
            sums.add(basis, np.clip(targets, low, high) - offsets, folds)
        weights, ridge, r2 = sums.solved(np.exp(-squared / scale), variance)
    logger.info("starts foretold from %d images: R2 %.3f out of fold, ridge %g", len(rows), r2, ridge)
    padding = -numbers % LANES
    return StartRegression(
        landmarks=landmarks,
        weights=np.pad(weights, ((0, 0), (0, 0), (0, padding))),
        offsets=np.pad(offsets.astype(np.float32), (0, padding)),
        scale=scale,
        shape=(header.height, header.width, header.channels),
        frame=(header.gaussians, header.splat_layout.width),
    )


@dataclass
class _Sums:
    """What a regression in folds needs of all images, fold by fold; its size does not grow with them.

    Attributes:
        gram: float64 [fold, landmark, landmark], products of the basis functions.
        cross: float64 [fold, landmark, number], products of basis functions and targets.
        square: float64 [number], squared targets.
        images: seen so far.
    """

    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    square: NDArray[np.float64]
    images: int = 0

    @classmethod
    def empty(cls, landmarks: int, numbers: int) -> _Sums:
        return cls(np.zeros((FOLDS, landmarks, landmarks)), np.zeros((FOLDS, landmarks, numbers)), np.zeros(numbers))

    def add(self, basis: NDArray[np.float64], targets: NDArray[np.float64], folds: NDArray[np.int64]) -> None:
        for fold in range(FOLDS):
            chosen = folds == fold
            self.gram[fold] += basis[chosen].T @ basis[chosen]
            self.cross[fold] += basis[chosen].T @ targets[chosen]
        self.square += np.square(targets).sum(axis=0)
        self.images += len(targets)

    def solved(
        self, kernel: NDArray[np.float64], variance: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], float, float]:
        """Weights [fold, landmark, number] that did not see their fold, the ridge taken, its R2 out of fold."""
        gram, cross = self.gram.sum(axis=0), self.cross.sum(axis=0)
        varies = variance > 0
        best: tuple[float, float, NDArray[np.float32]] | None = None
        for ridge in RIDGES:
            error = self.square.copy()
            found = np.empty(self.cross.shape, np.float32)
            for fold in range(FOLDS):
                system = gram - self.gram[fold] + ridge * kernel + _JITTER * np.eye(len(gram))
                weights = cho_solve(cho_factor(system), cross - self.cross[fold])
                # |y - basis w|^2 summed over the fold, from its sums alone.
                error += (weights * (self.gram[fold] @ weights - 2 * self.cross[fold])).sum(axis=0)
                found[fold] = weights
            share = float(np.mean(error[varies] / variance[varies])) / self.images if varies.any() else 0.0
            if best is None or share < best[0]:
                best = share, ridge, found
        assert best is not None  # there are ridges
        return best[2], best[1], 1 - best[0]


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
