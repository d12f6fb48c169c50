"""The contract of a data source: a fixed list of identifiers, and pixels on demand; and a seeded part of a source.

Files of a place that are no images of its data set are counted and named, so that none is lost without a word.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.printable import printable
from data_schemas.records import SourceRecord
from pipeline.format import list_names

logger = logging.getLogger("splatspace.sources")


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

NAMED = 3
"""Names of each kind in the warning; the rest are counted."""


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


class LeftOut(NamedTuple):
    """Files that are left out for one reason.

    Attributes:
        names: of the files.
        reason: why, as it stands before a number: ``hidden``.
    """

    names: Sequence[str]
    reason: str


def warn_of_left_out(where: str, left_out: Sequence[LeftOut]) -> int:
    """One warning for a whole place, and how many files it speaks of."""
    kinds = [kind for kind in left_out if kind.names]
    count = sum(len(kind.names) for kind in kinds)
    if count:
        logger.warning(
            "%s: %s left out: %s",
            where,
            "1 file is" if count == 1 else f"{count:,} files are",
            ", ".join(f"{kind.reason} {len(kind.names):,} ({some(kind.names, NAMED)})" for kind in kinds),
        )
    return count


def some(names: Sequence[str], most: int) -> str:
    """The first names, fit to be shown, and the number of the others."""
    return list_names([printable(name) for name in names[:most]], count=len(names), by=";")
