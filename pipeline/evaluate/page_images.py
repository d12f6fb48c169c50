"""The images of an evaluation: samples, their way, their nearest originals, and the splats of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from models.features.pixels import PixelRepresentation
from pipeline.report.page.data import base64_text, canvas_facts, png_address, splat_table
from pipeline.report.panels import encode_png, picture
from pipeline.sample.run import Run
from pipeline.store_images import as_channels_last

GRID_SIDE = 8
"""Rows and columns of the sheets of samples and of originals."""

_MOST_COLUMNS = 12
_GAP = 1
_PAPER = 128


@dataclass(frozen=True)
class Pictures:
    """What the page draws.

    Attributes:
        run: the generator, which renders.
        samples: uint8 [image, channel, row, column].
        originals: the same.
        way: (time, stored data [image, ...]) of the first samples, step by step.
        neighbours: uint8 [image, channel, row, column], the nearest originals of the first samples.
        fitted: samples of pixels as their splats show them, uint8 [image, channel, row, column], if they were fitted.
        splats: what is known of the splats of the first samples, as ``way`` has it, and the run that renders them;
            None where a generator of splats has them in ``way``, or where there are none.
    """

    run: Run
    samples: Tensor
    originals: Tensor
    way: list[tuple[float, NDArray[np.float32]]]
    neighbours: Tensor
    fitted: Tensor | None = None
    splats: tuple[Run, list[tuple[float, NDArray[np.float32]]]] | None = None

    def sample_sheet(self) -> str:
        """The first samples, as the address of an image."""
        return _address(_sheet(as_channels_last(self.samples[: GRID_SIDE**2]), GRID_SIDE))

    def original_sheet(self) -> str:
        """As many originals."""
        return _address(_sheet(as_channels_last(self.originals[: GRID_SIDE**2]), GRID_SIDE))

    def fitted_sheet(self) -> str | None:
        """The first samples as splats; None where they were not fitted."""
        if self.fitted is None:
            return None
        return _address(_sheet(as_channels_last(self.fitted[: GRID_SIDE**2]), GRID_SIDE))

    def way_sheet(self) -> tuple[str, list[float]]:
        """One line per sample, from noise to data; and the times of the columns."""
        chosen = np.unique(np.linspace(0, len(self.way) - 1, min(_MOST_COLUMNS, len(self.way))).round().astype(int))
        columns = [self.run.rendered(self.way[number][1]) for number in chosen]
        tiles = np.stack(columns, axis=1).reshape(-1, *columns[0].shape[1:])
        return _address(_sheet(tiles, len(chosen))), [self.way[number][0] for number in chosen]

    def neighbour_sheet(self) -> str:
        """Samples above, below each the original that is nearest."""
        count = len(self.neighbours)
        tiles = np.concatenate([as_channels_last(self.samples[:count]), as_channels_last(self.neighbours)])
        return _address(_sheet(tiles, count))

    def canvas(self) -> dict[str, Any] | None:
        """The first sample's splats at each step, for the script of the page; None for pixels that were not fitted."""
        run, way = self.splats or (self.run, self.way)
        if isinstance(run.representation, PixelRepresentation):
            return None
        layout = run.representation.layout
        numbers = np.stack([stored[0] for _, stored in way])
        table = np.ascontiguousarray(splat_table(numbers, layout), "<f4")
        facts = canvas_facts(
            run.codec, layout, gaussians=numbers.shape[1], height=run.spec.height, width=run.spec.width
        )
        return {
            **facts,
            "steps": len(way),
            "times": [round(moment, 4) for moment, _ in way],
            "data": base64_text(table.tobytes()),
        }


def _sheet(tiles: NDArray[np.uint8], columns: int) -> Image.Image:
    """Tiles [image, row, column, channel] line by line."""
    count, height, width, channels = tiles.shape
    lines = -(-count // columns)
    size = (lines * (height + _GAP) + _GAP, columns * (width + _GAP) + _GAP, channels)
    sheet = np.full(size, _PAPER, np.uint8)
    for number, tile in enumerate(tiles):
        line, column = divmod(number, columns)
        top, left = _GAP + line * (height + _GAP), _GAP + column * (width + _GAP)
        sheet[top : top + height, left : left + width] = tile
    return picture(sheet)


def _address(image: Image.Image) -> str:
    return png_address(encode_png(image))
