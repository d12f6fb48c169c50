"""The contract of a data source: a fixed list of identifiers, and pixels on demand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import SourceRecord

MAX_IMAGE_PIXELS = 50_000_000
"""Most pixels of one image that is decoded at all (guards against decompression bombs)."""

NoteKind = Literal["flattened", "vanished", "decoder"]

NOTE_WORDS: dict[NoteKind, str] = {
    "flattened": "images of more than 8 bits are of one grey or nearly",
    "vanished": "images with transparency show nothing but what they are laid over",
    "decoder": "images were read although their decoders found fault",
}
"""What is said, after a count, of images that are read and of which somebody should know."""

NOTE_STEPS: dict[NoteKind, str] = {
    "flattened": "scale their numbers to the whole range that the files declare",
    "vanished": "choose another --background",
    "decoder": "look at them",
}
"""What to do about them."""


class ImageNote(NamedTuple):
    """Something to be known of one image that was read all the same.

    Attributes:
        kind: one of NOTE_WORDS.
        text: what is particular to this image, or "".
    """

    kind: NoteKind
    text: str = ""


@dataclass(frozen=True)
class SourceImage:
    """One image as read.

    Attributes:
        identifier: stable name inside the source.
        pixels: uint8 [height, width, channel] with channel 1 or 3, or None where it could not be read.
        label: class number, -1 where there is none.
        failure: why it could not be read ("" where it could).
        notes: what should be known of it.
    """

    identifier: str
    pixels: NDArray[np.uint8] | None
    label: int = -1
    failure: str = ""
    notes: tuple[ImageNote, ...] = ()


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
