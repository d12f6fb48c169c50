"""Kernel ridge regression in five folds, each predicted by a fit to the other four; distances between rows of numbers.

Two ways to the same regression, a Gaussian kernel as wide as the median distance between rows:

* :func:`out_of_fold_error`, exact: every row is a centre of the kernel. The folds need no fit of their own. With
  G = (kernel + ridge I)^-1 over all rows, the error that a fit to the other folds makes on fold F is (G_FF)^-1 (G Y)_F
  (block inversion; for folds of one row it is the known leave-one-out formula), so an inverse stands for five fits.
* :class:`FoldSums`, for more rows than a matrix can hold: the centres are some of the rows (landmarks), and what the
  fits need of the others are sums (the subset of regressors: Smola and Bartlett, 2001, "Sparse greedy Gaussian process
  regression"). Its weights are for keeping.

The tests compare both with scikit-learn's ``KernelRidge``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from encoders.start.regression import FOLDS

_ROWS_AT_ONCE = 512
"""Bounds the float64 copies: a few of so many rows each, whatever the size of the sets."""


def squared_distances(first: NDArray[np.float32], second: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """|a - b|^2 = |a|^2 - 2 a.b + |b|^2, in float64, so that what cancels loses nothing that float32 could hold.

    Args:
        first: float32 [row, number].
        second: float32 [row, number]; None for ``first`` itself, whose diagonal is then exactly 0.

    Returns:
        float32 [row of first, row of second], none below 0.
    """
    other = first if second is None else second
    found = np.empty((len(first), len(other)), np.float32)
    for rows in _portions(len(first)):
        left = first[rows].astype(np.float64)
        for columns in _portions(len(other)):
            if second is None and columns.start < rows.start:
                found[rows, columns] = found[columns, rows].T
                continue
            right = other[columns].astype(np.float64)
            products = left @ right.T
            products *= -2
            products += _squares(left)[:, None]
            products += _squares(right)
            np.maximum(products, 0, out=products)
            found[rows, columns] = products
    if second is None:
        np.fill_diagonal(found, 0)
    return found


def _portions(rows: int) -> list[slice]:
    return [slice(at, at + _ROWS_AT_ONCE) for at in range(0, rows, _ROWS_AT_ONCE)]


def _squares(rows: NDArray[Any]) -> NDArray[np.float64]:
    return np.einsum("ij,ij->i", rows, rows)


RIDGES = (0.1, 0.4, 1.6)
"""Added to the diagonal of a kernel whose diagonal is 1; the one with the least error out of fold is taken."""

_TARGETS_AT_ONCE = 2048
_JITTER = 1e-6


def kernel_width(squared: NDArray[np.float64], least: float = 0.0) -> float:
    """The squared distance at which a kernel falls to 1 / e: the median of those between different rows.

    Args:
        squared: float64 [row, row], squared distances.
        least: where half of the rows are equal and the largest distance stands in for the median, the width is no less.
    """
    median = float(np.median(squared[np.triu_indices(len(squared), k=1)]))
    return median if median > 0 else max(float(squared.max()), least)


def shuffled_folds(rows: int, seed: int) -> list[NDArray[np.int64]]:
    """Rows of each fold, in rising order: shuffled, then cut into parts that differ by one row at most.

    The folds of scikit-learn's ``KFold(FOLDS, shuffle=True, random_state=seed)``: an old generator, but figures of
    stores measured before and after compare to the last digit.
    """
    order = np.arange(rows)
    np.random.RandomState(seed).shuffle(order)
    return [np.sort(fold) for fold in np.array_split(order, FOLDS)]


def out_of_fold_error(
    kernel: NDArray[np.float64],
    targets: NDArray[np.float32],
    folds: Sequence[NDArray[np.int64]],
    ridge: float,
    counted: NDArray[np.bool_] | None = None,
) -> NDArray[np.float64]:
    """Squared error by target, each row predicted from the other folds.

    Args:
        kernel: float64 [row, row].
        targets: float32 [row, target].
        folds: int64 [row of the fold] each; together all rows.
        ridge: of the regression.
        counted: bool [row, target], entries that count; None: all.

    Returns:
        float64 [target].
    """
    inverse = cho_solve(cho_factor(kernel + ridge * np.eye(len(kernel))), np.eye(len(kernel)))
    factors = [cho_factor(inverse[np.ix_(fold, fold)]) for fold in folds]
    narrow = inverse.astype(np.float32)
    error = np.zeros(targets.shape[1])
    for first in range(0, len(error), _TARGETS_AT_ONCE):
        part = slice(first, first + _TARGETS_AT_ONCE)
        product = narrow @ targets[:, part]
        for fold, factor in zip(folds, factors, strict=True):
            square = np.square(cho_solve(factor, product[fold]))
            error[part] += square.sum(axis=0) if counted is None else np.sum(square, axis=0, where=counted[fold, part])
    return error


@dataclass
class FoldSums:
    """What a regression on landmarks needs of all rows, fold by fold; its size does not grow with them.

    Attributes:
        gram: float64 [fold, landmark, landmark], products of the basis functions.
        cross: float64 [fold, landmark, target], products of basis functions and targets.
        square: float64 [target], squared targets.
        rows: seen so far.
    """

    gram: NDArray[np.float64]
    cross: NDArray[np.float64]
    square: NDArray[np.float64]
    rows: int = 0

    @classmethod
    def empty(cls, landmarks: int, targets: int) -> FoldSums:
        """Sums of no rows."""
        return cls(np.zeros((FOLDS, landmarks, landmarks)), np.zeros((FOLDS, landmarks, targets)), np.zeros(targets))

    def add(self, basis: NDArray[np.float64], targets: NDArray[np.float64], folds: NDArray[np.int64]) -> None:
        """Adds some rows.

        Args:
            basis: float64 [row, landmark], the kernel.
            targets: float64 [row, target].
            folds: int64 [row].
        """
        for fold in range(FOLDS):
            chosen = folds == fold
            self.gram[fold] += basis[chosen].T @ basis[chosen]
            self.cross[fold] += basis[chosen].T @ targets[chosen]
        self.square += np.square(targets).sum(axis=0)
        self.rows += len(targets)

    def solve(
        self, kernel: NDArray[np.float64], variance: NDArray[np.float64]
    ) -> tuple[NDArray[np.float32], float, float]:
        """Fits with every ridge and keeps the best.

        Args:
            kernel: float64 [landmark, landmark].
            variance: float64 [target]; targets of variance 0 take no part in the choice.

        Returns:
            Weights float32 [fold, landmark, target] that did not see their fold, the ridge taken, its R2 out of fold.
        """
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
            share = float(np.mean(error[varies] / variance[varies])) / self.rows if varies.any() else 0.0
            if best is None or share < best[0]:
                best = share, ridge, found
        assert best is not None  # there are ridges
        return best[2], best[1], 1 - best[0]
