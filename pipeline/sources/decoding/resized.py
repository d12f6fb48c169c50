"""Another size for a source that knows only its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from data_schemas.records import SourceRecord
from pipeline.sources.base import ImageSource, SourceImage
from pipeline.sources.decoding.decode_image import resize_pixels


class ResizedSource:
    """An ``ImageSource`` whose images are those of another, cropped to a centred square and resized.

    Args:
        source: gives the images.
        size: pixels a side.
    """

    def __init__(self, source: ImageSource, size: int) -> None:
        self._source = source
        self._size = size

    @property
    def record(self) -> SourceRecord:
        """The record of the source itself."""
        return self._source.record

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(size, size, channels)."""
        return self._size, self._size, self._source.image_shape[2]

    def __len__(self) -> int:
        return len(self._source)

    def identifiers(self) -> Sequence[str]:
        """Those of the source itself."""
        return self._source.identifiers()

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Reads and resizes; a failure stays one."""
        return [
            image if image.pixels is None else replace(image, pixels=resize_pixels(image.pixels, self._size))
            for image in self._source.read(indices)
        ]
