"""The contract of a data source: a fixed list of identifiers, and pixels on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import SourceRecord

MAX_IMAGE_PIXELS = 50_000_000
"""Most pixels of one image that is decoded at all (guards against decompression bombs)."""


@dataclass(frozen=True)
class SourceImage:
    """One image as read.

    Attributes:
        identifier: stable name inside the source.
        pixels: uint8 [height, width, channel] with channel 1 or 3, or None where it could not be read.
        label: class number, -1 where there is none.
        failure: why it could not be read ("" where it could).
    """

    identifier: str
    pixels: NDArray[np.uint8] | None
    label: int = -1
    failure: str = ""


class ImageSource(Protocol):
    """A data set: every image has the same size; reading is by index, in any order, from any thread."""

    @property
    def record(self) -> SourceRecord:
        """Name, split, digest, licence and attribution."""
        ...

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every readable image."""
        ...

    def __len__(self) -> int:
        """Images, readable or not."""
        ...

    def identifiers(self) -> Sequence[str]:
        """Stable, unique names in source order; decodes nothing."""
        ...

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Reads images; one that cannot be read comes back with ``failure`` set, never as an exception."""
        ...
