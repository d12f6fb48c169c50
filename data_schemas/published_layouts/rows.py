"""Rows on their way between a store and a published layout, a block at a time."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.splats import ADDITIVE, Layout, layout_for

MAX_GAUSSIANS_READ = 100_000
"""Most Gaussians of one image that are read at all: the shape in a file is not to be trusted."""

LARGEST_INTEGER = 2**31 - 1
MOST_REASON_CHARACTERS = 500
MOST_LABEL_CHARACTERS = 60


class RowSource(Protocol):
    """Where rows come from: a store or a published layout. ``blocks`` may be called more than once."""

    @property
    def header(self) -> StoreHeader:
        """The header of a store that holds these rows."""
        ...

    @property
    def unread_labels(self) -> dict[str, str]:
        """Labels that are no class numbers, by name of the image; known when all blocks were read."""
        ...

    def __len__(self) -> int:
        """Rows, done or not."""
        ...

    def blocks(self) -> Iterator[RowBlock]:
        """All rows in order, ``header.block_rows`` at a time."""
        ...

    def close(self) -> None:
        """Lets go of files."""
        ...


class RowSink(Protocol):
    """Where rows go."""

    def write(self, rows: RowBlock) -> None:
        """Takes the next rows."""
        ...

    def finish(self) -> None:
        """Completes and closes the files; without it what was written is not a whole."""
        ...

    def abandon(self) -> None:
        """Closes the files as they are; safe to call after ``finish``."""
        ...


@dataclass
class PublishedImage:
    """One image of a published layout, already in the columns of a store.

    Attributes:
        source_id: file or group name.
        splats: float64 [gaussian, parameter], or None where it could not be read.
        failure: why not.
        label: class number, -1 where there is none.
        unread_label: the label in words where it is no class number, else empty.
        psnr: dB as the file says, NaN where it does not.
        steps: optimiser steps as the file says.
        dead: Gaussians without a visible contribution as the file says.
    """

    source_id: str
    splats: NDArray[np.float64] | None = None
    failure: str = ""
    label: int = -1
    unread_label: str = ""
    psnr: float = float("nan")
    steps: int = 0
    dead: int = 0


class UnreadableImageError(Exception):
    """Why one image of a published file cannot be converted; becomes the reason of a failed row."""


def class_label(value: Any) -> tuple[int, str]:
    """A label of a published file as a store holds it.

    Args:
        value: whatever stands there; None where nothing does.

    Returns:
        The class number, -1 for none; and the value in words where it is no whole number that a store holds.
    """
    if value is None:
        return -1, ""
    value = value.item() if isinstance(value, np.generic) else value
    try:
        number = int(value) if isinstance(value, int) or float(value).is_integer() else None
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or not -1 <= number <= LARGEST_INTEGER:
        return -1, repr(value)[:MOST_LABEL_CHARACTERS]
    return number, ""


def gather(header: StoreHeader, images: Iterable[PublishedImage], unread_labels: dict[str, str]) -> Iterator[RowBlock]:
    """Blocks of rows from single images; one that cannot be used becomes a failed row with its reason.

    Args:
        header: of the rows.
        images: in order.
        unread_labels: gets, by name of the image, labels that are no class numbers.
    """
    batch: list[PublishedImage] = []
    for image in images:
        if image.unread_label:
            unread_labels[image.source_id] = image.unread_label
        batch.append(image)
        if len(batch) == header.block_rows:
            yield _block(header, batch)
            batch = []
    if batch:
        yield _block(header, batch)


def _block(header: StoreHeader, images: list[PublishedImage]) -> RowBlock:
    rows = RowBlock.empty(len(images), header)
    shape = (header.gaussians, header.splat_layout.width)
    most = float(np.finfo(header.dtype).max)
    for row, image in enumerate(images):
        rows.source_id[row] = image.source_id
        rows.label[row] = image.label
        failure = image.failure
        if not failure and image.splats is None:
            failure = "it holds no Gaussians"
        if not failure and image.splats is not None and image.splats.shape != shape:
            failure = f"{image.splats.shape[0]} Gaussians, but the store has {shape[0]} per image"
        if not failure and image.splats is not None and not np.all(np.abs(image.splats) <= most):
            failure = f"values that are not finite numbers of {header.dtype}"
        if failure:
            rows.state[row], rows.failure[row] = RowState.FAILED, failure[:MOST_REASON_CHARACTERS]
            continue
        assert image.splats is not None
        rows.splats[row] = image.splats
        rows.state[row] = RowState.DONE
        rows.psnr[row] = image.psnr
        rows.steps[row], rows.dead[row] = np.clip([image.steps, image.dead], 0, LARGEST_INTEGER)
    return rows


def usual_count(counts: Iterable[int | None], asked: int | None) -> int:
    """How many Gaussians the images of a source have: the number asked for, or the one that most images have.

    Args:
        counts: Gaussians of each image, None where it cannot be read.
        asked: the number from the options.

    Raises:
        StoreError: no image can be read.
    """
    if asked is not None:
        return asked
    seen = Counter(count for count in counts if count is not None)
    if not seen:
        raise StoreError("No image of the source can be read", next_step="check that the files are complete")
    # Of two equally frequent numbers the smaller, so that the answer does not depend on the order.
    return min(seen, key=lambda count: (-seen[count], count))


def trailing_number(name: str) -> int | None:
    """The integer at the end of a name (``sprite_12`` -> 12), or None."""
    match = re.search(r"(\d{1,18})$", name)
    return int(match.group(1)) if match else None


def in_published_order(names: Iterable[str]) -> list[str]:
    """Names by their trailing integer, those without one last; the order never depends on the folder's."""
    return sorted(names, key=lambda name: (trailing_number(name) is None, trailing_number(name) or 0, name))


def without_alpha(splats: NDArray[Any], layout: Layout) -> NDArray[np.float64]:
    """Multiplies opacity into the colours and drops it: the same image by the additive formula.

    Args:
        splats: [..., gaussian, parameter] in ``layout``.
        layout: with or without alpha.

    Returns:
        float64 [..., gaussian, parameter] in the layout without alpha.
    """
    values = np.asarray(splats, np.float64)
    if not layout.has_alpha:
        return values
    alpha = layout.index("alpha")
    values = values.copy()
    values[..., layout.colour_slice] *= values[..., alpha : alpha + 1]
    return np.delete(values, alpha, axis=-1)


@dataclass
class Survey:
    """What a published layout must know of all rows before the first is written.

    Attributes:
        deviations: greatest standard deviation along an axis, in pixels, by source_id.
        outside_colours: source_ids of images with colours outside [0, 1].
        outside_centres: images with centres on or outside the frame.
        label_low: least label.
        label_high: greatest label.
        done: rows that can be written.
    """

    deviations: dict[str, float]
    outside_colours: list[str]
    outside_centres: int
    label_low: int
    label_high: int
    done: int


def survey(source: RowSource) -> Survey:
    """Looks once through all rows.

    Raises:
        StoreError: the codec is not additive, or no row is done.
    """
    header = source.header
    if header.codec != ADDITIVE:
        raise StoreError(
            f"A store of codec {header.codec!r} has no published layout: they all add up Gaussians",
            allowed=f"stores of codec {ADDITIVE}",
            next_step=f"encode the images again with codec {ADDITIVE}",
        )
    layout = header.splat_layout
    found = Survey({}, [], 0, -1, -1, 0)
    labels: list[int] = []
    for rows in source.blocks():
        labels += [int(rows.label.min()), int(rows.label.max())]
        done = np.flatnonzero(rows.state == RowState.DONE)
        if not len(done):
            continue
        found.done += len(done)
        splats = rows.splats[done].astype(np.float64)
        names = [str(rows.source_id[row]) for row in done]
        widest = np.maximum(
            splats[..., layout.index("sigma_x")] * header.width / 2,
            splats[..., layout.index("sigma_y")] * header.height / 2,
        ).max(axis=1)
        found.deviations.update(zip(names, widest.tolist(), strict=True))
        colours = without_alpha(splats, layout)[..., layout_for(layout.channels).colour_slice]
        outside = ((colours < 0) | (colours > 1)).any(axis=(1, 2))
        found.outside_colours += [names[row] for row in np.flatnonzero(outside)]
        found.outside_centres += int((np.abs(splats[..., -2:]) >= 1).any(axis=(1, 2)).sum())
    if not found.done:
        raise StoreError("No row of the source is done, so there is nothing to write", next_step="encode it first")
    found.label_low, found.label_high = min(labels), max(labels)
    return found


def list_names(names: Iterable[str], most: int = 5) -> str:
    """A few names and how many more there are, for a message."""
    listed = list(names)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(repr(name) for name in listed[:most]) + rest
