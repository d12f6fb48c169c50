"""Some images of another source, drawn by a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from data_schemas.records import SourceRecord
from pipeline.sources.base import ImageSource, SourceImage


class DrawnSource:
    """A seeded choice of another source's images, in its order: sets that are sorted keep their variety.

    Args:
        source: to draw from.
        images: how many; all where it has no more.
        seed: of the choice.
        among: only of so many first images; None for all.
    """

    def __init__(self, source: ImageSource, images: int, *, seed: int = 0, among: int | None = None) -> None:
        total = len(source) if among is None else min(among, len(source))
        chosen = np.random.default_rng(seed).permutation(total)[:images]
        self._source, self._chosen = source, [int(index) for index in np.sort(chosen)]
        names = source.identifiers()
        self._names = [names[index] for index in self._chosen]

    @property
    def record(self) -> SourceRecord:
        """That of the whole source."""
        return self._source.record

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""
        return self._source.image_shape

    def __len__(self) -> int:
        return len(self._chosen)

    def identifiers(self) -> Sequence[str]:
        """Names of the chosen images."""
        return self._names

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Reads chosen images."""
        return self._source.read([self._chosen[index] for index in indices])
