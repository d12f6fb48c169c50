"""Statistics by which features become numbers of mean 0 and scale 1, gathered in one pass over a large set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import torch
from torch import Tensor

from data_schemas.errors import JobError, TrainingError
from models.names import Normalisation

NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)

WINSOR = 0.005
"""The share of values at either end that is pulled in to the quantile before means and scales are taken."""

SAMPLE_BYTES = 256 * 1024 * 1024
"""Most memory for the sample from which quantiles are taken."""

LARGEST_SAMPLE = 16384
"""Most images in it; scales are then known to better than one per cent."""

_SMALLEST_SCALE = 1e-4
"""A feature that never varies keeps this scale: noise on it stays invisible, and nothing is divided by zero."""


def check_normalisation(name: str) -> Normalisation:
    """The normalisation of that name.

    Raises:
        JobError: the name is unknown.
    """
    for known in NORMALISATIONS:
        if name == known:
            return known
    raise JobError(f"Normalisation {name!r}", allowed=", ".join(NORMALISATIONS))


class Statistics:
    """What was seen of features [image, slot, feature]: exact extremes and a uniform sample of images.

    Sets up to ``LARGEST_SAMPLE`` images are kept whole, so their statistics are exact.

    Args:
        seed: of the choice of the sample; the same images in the same order give the same statistics.
    """

    def __init__(self, seed: int = 0) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._sample: Tensor | None = None
        self._capacity = 0
        self.images = 0
        self._minimum: Tensor | None = None
        self._maximum: Tensor | None = None

    def add(self, features: Tensor) -> None:
        """Takes in float [image, slot, feature].

        Raises:
            TrainingError: a number that is not finite.
        """
        if features.shape[0] == 0:
            return
        values = features.detach().float().cpu()
        bad = (~torch.isfinite(values)).flatten(1).any(dim=1)
        if bad.any():
            rows = (self.images + torch.nonzero(bad).flatten()).tolist()
            raise TrainingError(
                f"{len(rows)} images hold numbers that are not finite, first the {rows[0]}. of those that are used",
                next_step="run splatspace verify on the store",
            )
        low, high = values.amin(dim=(0, 1)), values.amax(dim=(0, 1))
        if self._sample is None or self._minimum is None or self._maximum is None:
            size = values[0].numel() * values.element_size()
            self._capacity = max(2, min(LARGEST_SAMPLE, SAMPLE_BYTES // size))
            self._sample = values[:0]
            self._minimum, self._maximum = low, high
        self._minimum, self._maximum = torch.minimum(self._minimum, low), torch.maximum(self._maximum, high)
        room = self._capacity - len(self._sample)
        if room > 0:
            self._sample = torch.cat([self._sample, values[:room]])
        self._replace(values[max(room, 0) :], self.images + max(room, 0))
        self.images += len(values)

    def _replace(self, values: Tensor, seen: int) -> None:
        """Reservoir sampling: the image number n (from 0) takes a random place of n + 1, if that lies in the sample."""
        if not len(values) or self._sample is None:
            return
        numbers = torch.arange(seen, seen + len(values), dtype=torch.float64) + 1
        places = (torch.rand(len(values), generator=self._generator, dtype=torch.float64) * numbers).long()
        for row in torch.nonzero(places < self._capacity).flatten().tolist():
            self._sample[places[row]] = values[row]

    def whitened(self, *, by_slot: bool) -> tuple[Tensor, Tensor]:
        """Mean of each slot (or of all) and the scale of each feature, both of winsorised values.

        Args:
            by_slot: whether every slot has its own mean.

        Returns:
            [slot or 1, feature] and [1, feature].

        Raises:
            TrainingError: no image was added.
        """
        sample = self._seen()
        axes = (0,) if by_slot else (0, 1)
        mean = sample.mean(dim=axes, keepdim=True)
        residual = sample - mean
        low, high = _quantiles(residual)
        residual = torch.minimum(torch.maximum(residual, low), high)
        shift = residual.mean(dim=axes, keepdim=True)
        scale = (residual - shift).square().mean(dim=(0, 1)).sqrt()
        return (mean + shift)[0], scale.clamp_min(_SMALLEST_SCALE)[None]

    def minmax(self) -> tuple[Tensor, Tensor]:
        """Middle and half the range of each feature over the whole set: normalised values lie in [-1, 1].

        Returns:
            [1, feature] and [1, feature].

        Raises:
            TrainingError: no image was added.
        """
        self._seen()
        assert self._minimum is not None
        assert self._maximum is not None
        half = (self._maximum - self._minimum) / 2
        return ((self._maximum + self._minimum) / 2)[None], half.clamp_min(_SMALLEST_SCALE)[None]

    def _seen(self) -> Tensor:
        if self._sample is None:
            raise TrainingError("No image to take statistics from", next_step="encode images into the store first")
        return self._sample


def _quantiles(values: Tensor) -> tuple[Tensor, Tensor]:
    """The quantiles ``WINSOR`` and 1 - ``WINSOR`` of each feature of [image, slot, feature], by order statistics."""
    low, high = [], []
    for column in values.flatten(0, 1).unbind(-1):
        ordered = column.sort().values
        low.append(ordered[int(WINSOR * (len(ordered) - 1))])
        high.append(ordered[len(ordered) - 1 - int(WINSOR * (len(ordered) - 1))])
    return torch.stack(low), torch.stack(high)


def statistics_of(chunks: Iterable[Tensor]) -> Statistics:
    """Statistics of a stream of features [image, slot, feature]."""
    statistics = Statistics()
    for chunk in chunks:
        statistics.add(chunk)
    return statistics
