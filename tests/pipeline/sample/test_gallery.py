"""Images of a sampling: bounded portions whatever is asked for, and no image is rendered that nobody sees."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline import images as grids
from pipeline import images as portions
from pipeline.images import Grid, grid_of, pictures_at_once
from pipeline.sample.gallery import Gallery, strip_of
from pipeline.sample.run import Run

SIDE = 8


class Painter:
    """Stands in for a run: a number becomes an image of that grey, and what is asked for is kept."""

    spec = SimpleNamespace(height=SIDE, width=SIDE, channels=1)
    size_of = Run.size_of

    def __init__(self) -> None:
        self.asked: list[tuple[int, int | None]] = []

    def rendered(self, stored: NDArray[Any], size: int | None = None) -> NDArray[np.uint8]:
        self.asked.append((len(stored), size))
        height, width = Run.size_of(cast(Run, self), size)
        return np.broadcast_to(stored.astype(np.uint8)[:, None, None, None], (len(stored), height, width, 1))


def painted(folder: Path, number: int, batch: int, *, size: int | None) -> tuple[Painter, Gallery]:
    painter = Painter()
    gallery = Gallery(cast(Run, painter), folder, number, size=size, columns=None)
    for first in range(0, number, batch):
        gallery.add(np.arange(first, min(first + batch, number), dtype=np.float32))
    return painter, gallery


@pytest.mark.parametrize("size", [None, 32])
@pytest.mark.parametrize("batch", [1, 3, 10])
def test_files_and_grid_do_not_depend_on_the_portions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int | None, batch: int
) -> None:
    monkeypatch.setattr(portions, "PORTION_BYTES", 2 * (size or SIDE) ** 2 * portions.BYTES_OF_A_VALUE)
    painter, gallery = painted(tmp_path, 10, batch, size=size)
    assert [path.name for path in gallery.paths] == [f"{number:04d}.png" for number in range(10)]
    assert [np.asarray(Image.open(path)).max() for path in gallery.paths] == list(range(10))
    assert Image.open(gallery.paths[0]).size == (size or SIDE, size or SIDE)
    whole, _ = grid_of(Painter().rendered(np.arange(10)))
    np.testing.assert_array_equal(np.asarray(gallery.grid.picture()), np.asarray(whole))
    assert max(count for count, _ in painter.asked) <= 2
    assert sum(count for count, asked in painter.asked if asked == size) == 10


def test_the_grid_renders_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "LARGEST_GRID", 3 * (64 + 2) + 2)
    painter, gallery = painted(tmp_path, 40, 8, size=32)
    assert gallery.grid.room == 0
    assert sum(count for count, size in painter.asked if size is None) == 9
    assert sum(count for count, size in painter.asked if size == 32) == 40


def test_a_strip_renders_what_it_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grids, "LARGEST_GRID", 2 * (100 + 2) + 2)
    painter = Painter()
    strip, shown = strip_of(cast(Run, painter), np.arange(9), 100)
    assert (shown, painter.asked) == (4, [(1, 100)] * 4)
    assert strip.picture().size == (2 * 102 + 2, 2 * 102 + 2)


@pytest.mark.parametrize("side", [28, 64, 512, 8192])
def test_a_portion_is_bounded_in_bytes(side: int) -> None:
    count = pictures_at_once(side, side, 3)
    assert count >= 1
    assert count == 1 or count * side * side * 3 * 14 <= portions.PORTION_BYTES


def test_a_grid_has_room_for_as_many_as_come() -> None:
    grid = Grid(5, 4, 3, 1, columns=2, gap=1, smallest=8)
    grid.add(np.full((3, 4, 3, 1), 7, np.uint8))
    grid.add(np.full((4, 4, 3, 1), 9, np.uint8))
    assert grid.room == 0, "what comes beyond the number is left out"
    pixels = np.asarray(grid.picture())
    assert pixels.shape == (1 + 3 * 9, 1 + 2 * 7)
    assert [pixels[1 + row * 9, 1 + column * 7] for row in range(3) for column in range(2)] == [7, 7, 7, 9, 9, 32]
