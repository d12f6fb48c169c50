"""Changes to the Gaussians of one image: move, recolour, delete."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import JobError
from data_schemas.splats import OVER
from pipeline.sample.known_parts import Box, inside
from pipeline.sample.store import StoredImage


@dataclass(frozen=True)
class Edit:
    """What to change.

    Attributes:
        gaussians: indices; None for all, or for those of ``box``.
        box: (left, top, right, bottom) in pixels: Gaussians whose centre lies in it.
        move: (right, down) in pixels.
        recolour: new colour in 0 to 255, one number per channel, or one for all.
        delete: take them out.
    """

    gaussians: tuple[int, ...] | None = None
    box: Box | None = None
    move: tuple[float, float] | None = None
    recolour: tuple[float, ...] | None = None
    delete: bool = False

    def __post_init__(self) -> None:
        """Refuses what contradicts itself.

        Raises:
            JobError: nothing to do, or options that exclude each other.
        """
        changes = self.move is not None or self.recolour is not None
        if changes == self.delete:
            raise JobError(
                "Deleting and changing at once" if self.delete else "Nothing to change",
                allowed="--delete alone, or --move, --recolour or both",
            )
        if self.gaussians is not None and self.box is not None:
            raise JobError("--gaussians with --box", allowed="one of them")
        if self.delete and self.gaussians is None and self.box is None:
            raise JobError("--delete without saying which", allowed="--delete with --gaussians or --box")

    def in_words(self) -> str:
        """For the settings of the store that is written."""
        which = "all" if self.gaussians is None else f"Gaussians {','.join(map(str, self.gaussians))}"
        which = which if self.box is None else f"box {','.join(f'{side:g}' for side in self.box)}"
        done = ["deleted"] if self.delete else []
        if self.move is not None:
            done.append(f"moved by {self.move[0]:g},{self.move[1]:g} pixels")
        if self.recolour is not None:
            done.append(f"coloured {','.join(f'{part:g}' for part in self.recolour)}")
        return f"{which}: {', '.join(done)}"


def edit_image(image: StoredImage, edit: Edit) -> tuple[StoredImage, int]:
    """Changes an image.

    Anchors are dropped from its header where Gaussians are deleted: slots would no longer fit them.

    Args:
        image: is not changed.
        edit: what to do.

    Returns:
        The new image, with fewer Gaussians where some were deleted, and how many Gaussians were touched.

    Raises:
        JobError: a Gaussian that is not there, a box with none in it, no Gaussian left, a wrong colour, or a move
            out of all numbers.
    """
    header, layout = image.header, image.header.splat_layout
    chosen = _choose(image, edit)
    count = int(chosen.sum())
    if edit.delete:
        if count == len(image.splats):
            raise JobError(f"Deleting all {count} Gaussians", allowed="at least one that stays")
        left = image.splats[~chosen]
        smaller = header.model_copy(update={"gaussians": len(left), "anchors": None, "start": None})
        return replace(image, splats=left, header=smaller), count
    splats = image.splats.copy()
    if edit.move is not None:
        with np.errstate(over="ignore"):
            splats[chosen, layout.index("x")] += 2 * edit.move[0] / header.width
            splats[chosen, layout.index("y")] += 2 * edit.move[1] / header.height
        if not np.isfinite(splats).all():
            raise JobError(
                f"--move {edit.move[0]:g},{edit.move[1]:g} leads out of the numbers that a store holds",
                allowed=f"pixels of an image of {header.width} x {header.height}",
            )
    if edit.recolour is not None:
        splats[chosen, layout.colour_slice] = _colour(image, edit.recolour)
    return replace(image, splats=splats), count


def _choose(image: StoredImage, edit: Edit) -> NDArray[np.bool_]:
    total = len(image.splats)
    if edit.box is not None:
        chosen = inside(image.splats, image.header.splat_layout, edit.box, image.header.height, image.header.width)
        if not chosen.any():
            raise JobError(
                f"No Gaussian has its centre in --box {','.join(f'{side:g}' for side in edit.box)}",
                allowed=f"a box in an image of {image.header.width} x {image.header.height} pixels",
            )
        return chosen
    if edit.gaussians is None:
        return np.ones(total, np.bool_)
    wrong = [index for index in edit.gaussians if not 0 <= index < total]
    if wrong:
        raise JobError(f"--gaussians {','.join(map(str, wrong))}", allowed=f"0 to {total - 1}")
    chosen = np.zeros(total, np.bool_)
    chosen[list(edit.gaussians)] = True
    return chosen


def _colour(image: StoredImage, given: tuple[float, ...]) -> NDArray[np.float32]:
    channels = image.header.channels
    lowest = -255 if image.header.colours == "signed" and image.header.codec != OVER else 0
    if len(given) not in (1, channels) or not all(lowest <= part <= 255 for part in given):
        wanted = "1 number" if channels == 1 else f"1 or {channels} numbers"
        raise JobError(
            f"--recolour {','.join(f'{part:g}' for part in given)}", allowed=f"{wanted} from {lowest} to 255"
        )
    return np.array(given, np.float32) / np.float32(255)
