"""Which stamp a store needs: a Gaussian must be narrower than one unit of deviation."""

from __future__ import annotations

from data_schemas.errors import StoreError
from data_schemas.published_layouts.options import MAX_KERNEL_SIZE
from data_schemas.published_layouts.rows import Survey, named
from data_schemas.records import StoreHeader

LARGEST_SHARE = 0.999
"""Deviations are kept below this share of a unit: a sigmoid never reaches 1."""


def holding_kernel_size(header: StoreHeader, found: Survey, asked: int | None, usual: int, *, bounded: bool) -> int:
    """The side of the stamps of a file to be written.

    Args:
        header: of the rows.
        found: what was seen of them.
        asked: the size from the options.
        usual: the published size (odd), taken where it holds every Gaussian and fits into the image.
        bounded: whether a deviation beyond a unit cannot be written at all.

    Returns:
        An odd number of pixels; of a bounded layout it may exceed the image's sides (see ``kernel_notes``).

    Raises:
        StoreError: an even or a too small size was asked for, no size is large enough, or the image has sides of a
            single pixel.
    """
    side = min(header.height, header.width)
    if side < 2:
        raise StoreError(
            f"Images of {header.height}x{header.width} pixels have no stamp layout: its centres are undefined there",
            allowed="sides of at least 2 pixels",
        )
    if asked is not None and asked % 2 == 0:
        raise StoreError(f"Kernel size {asked}", allowed="odd sizes on writing: even stamps have no centre pixel")
    within = side - 1 + side % 2
    chosen = asked
    if chosen is None:
        # The least odd n with widest < LARGEST_SHARE * (n - 1) / 10.
        least = int(10 * min(max(found.deviations.values()), 1e6) / LARGEST_SHARE) + 2
        chosen = max(min(usual, within), least + 1 - least % 2, 3)
        chosen = min(chosen, MAX_KERNEL_SIZE if bounded else max(within, 3))
    limit = LARGEST_SHARE * (chosen - 1) / 10
    too_wide = [name for name, deviation in found.deviations.items() if not deviation < limit]
    if bounded and too_wide:
        widest = max(found.deviations.values())
        raise StoreError(
            f"{len(too_wide)} images have Gaussians too wide for stamps of {chosen} px: {named(too_wide)}",
            allowed=f"standard deviations below {limit:.2f} px; the widest has {widest:.2f} px",
            next_step="convert to hdf5-rotated, which holds any width"
            + ("" if asked is None else ", or leave --kernel-size out to have it chosen"),
        )
    return chosen


def kernel_notes(header: StoreHeader, kernel_size: int) -> list[str]:
    """What a user should know of the stamps of a written file."""
    notes = [f"stamps of {kernel_size} px: give other programs this kernel size"]
    if kernel_size > min(header.height, header.width):
        notes.append(
            f"stamps of {kernel_size} px are larger than the image, because a Gaussian is that wide; "
            "programs that pad stamps to the image may refuse or crop them"
        )
    return notes


def refuse_outside_colours(found: Survey) -> None:
    """Stamp files clamp colours to [0, 1] when they are read.

    Raises:
        StoreError: names the images with others.
    """
    if found.outside_colours:
        raise StoreError(
            f"{len(found.outside_colours)} images have colours outside [0, 1], which this layout clamps: "
            + named(found.outside_colours),
            allowed="stores encoded with bounded colours",
            next_step="convert to hdf5-rotated or hdf5-columnar, or encode with --colours bounded",
        )
