"""Images that lie in memory (or in a memory map) as one array."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import SourceRecord
from pipeline.sources.base import SourceImage


class ArraySource:
    """An ``ImageSource`` over one array.

    Args:
        record: where the images came from.
        images: uint8 [image, height, width, channel], channel 1 or 3.
        identifiers: one unique name per image.
        labels: int [image], or None where there are none.
    """

    def __init__(
        self,
        record: SourceRecord,
        images: NDArray[np.uint8],
        identifiers: Sequence[str],
        labels: NDArray[np.integer] | None = None,
    ) -> None:
        self._record = record
        self._images = images
        self._identifiers = identifiers
        self._labels = labels

    @property
    def record(self) -> SourceRecord:
        """Name, split, digest, licence and attribution."""
        return self._record

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self._images.shape[1:]
        return height, width, channels

    def __len__(self) -> int:
        return len(self._images)

    def identifiers(self) -> Sequence[str]:
        """Unique names in source order."""
        return self._identifiers

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Copies images out of the array; none of them can fail."""
        return [
            SourceImage(
                self._identifiers[index],
                np.array(self._images[index], dtype=np.uint8, order="C"),
                -1 if self._labels is None else int(self._labels[index]),
            )
            for index in indices
        ]
