"""The images of a sampling: a file each, and all in a grid; written as they come, so that memory is bounded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.images import Grid, picture_of, pictures_at_once, portions
from pipeline.render import save_png
from pipeline.sample.run import Run

FEWEST_DIGITS = 4
"""Of the names of the files."""


class Gallery:
    """Writes images and places them in the grid, portion by portion.

    Args:
        run: the generator.
        folder: where the files go.
        number: images in all.
        size: pixels of the longer side of the files; None takes that of the training images. The grid shows those.
        columns: images in a row of the grid; None makes it as square as it can be.

    Attributes:
        paths: of the files so far.
        grid: so far.
    """

    def __init__(self, run: Run, folder: Path, number: int, *, size: int | None, columns: int | None) -> None:
        self._run, self._folder, self._size = run, folder, size
        self._digits = max(FEWEST_DIGITS, len(str(number - 1)))
        self._at_once = pictures_at_once(*run.size_of(size), run.spec.channels)
        self.paths: list[Path] = []
        self.grid = Grid(number, run.spec.height, run.spec.width, run.spec.channels, columns=columns)

    def add(self, stored: NDArray[np.float32], drawn: Callable[[slice], NDArray[np.uint8]] | None = None) -> None:
        """Takes in the next images.

        Args:
            stored: splats or pixels [image, ...].
            drawn: draws some of them for the files in another way than ``Run.rendered``, as
                uint8 [image, row, column, channel].

        Raises:
            StoreError: a file cannot be written.
        """
        for part in portions(len(stored), self._at_once):
            images = self._run.rendered(stored[part], self._size) if drawn is None else drawn(part)
            for pixels in images:
                path = self._folder / f"{len(self.paths):0{self._digits}d}.png"
                save_png(picture_of(pixels), path)
                self.paths.append(path)
            shown = stored[part][: self.grid.room]
            if len(shown):
                self.grid.add(images[: len(shown)] if self._size is None else self._run.rendered(shown))


def strip_of(run: Run, stored: NDArray[Any], size: int | None) -> tuple[Grid, int]:
    """Images in one row, as far as an image may be wide: what it does not show is not rendered.

    Args:
        run: the generator.
        stored: splats or pixels [image, ...].
        size: pixels of the longer side of each.

    Returns:
        The row, and how many images it shows.
    """
    strip = Grid(len(stored), *run.size_of(size), run.spec.channels, columns=len(stored))
    shown = strip.room
    for frame in range(shown):
        strip.add(run.rendered(stored[frame : frame + 1], size))
    return strip, shown
