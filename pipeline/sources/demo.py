"""The built-in images: little pixel-art characters, drawn when they are read. No files, no network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from data_schemas.records import SourceRecord
from pipeline.sources.base import SourceImage
from pipeline.sources.demo_characters import CALLINGS, character, draw

IMAGES = 1000
SIZE = 32


class DemoSource:
    """An ``ImageSource`` of characters; image i depends on i alone.

    Args:
        images: how many.
        split: recorded.
    """

    def __init__(self, images: int = IMAGES, split: str = "all") -> None:
        self._images = images
        # A change of the art changes the first pictures, and with them the digest.
        digest = hashlib.sha256(b"".join(draw(number).tobytes() for number in range(min(8, images))))
        self._record = SourceRecord(
            name="demo",
            split=split,
            digest="sha256:" + digest.hexdigest(),
            licence="Apache-2.0",
            attribution="The SplatSpace authors",
            label_names=CALLINGS,
        )

    @property
    def record(self) -> SourceRecord:
        """Name, split, digest, licence and attribution."""
        return self._record

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(32, 32, 3)."""
        return SIZE, SIZE, 3

    def __len__(self) -> int:
        return self._images

    def identifiers(self) -> Sequence[str]:
        """``demo/0000`` and on."""
        return tuple(f"demo/{number:04}" for number in range(self._images))

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Draws images."""
        for index in indices:
            if not 0 <= index < self._images:
                raise IndexError(f"image {index} of {self._images}")
        return [SourceImage(f"demo/{index:04}", draw(index), character(index).label) for index in indices]


def open_demo(*, split: str = "all") -> DemoSource:
    """The 1,000 built-in characters, 32x32 RGB on black."""
    return DemoSource(split=split)
