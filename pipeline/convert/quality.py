"""What a store says of its rows and a published layout does not: dead Gaussians, and the quality against the images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from data_schemas.errors import JobError
from data_schemas.published_layouts import RowSource
from data_schemas.records import RowBlock, RowState, StoreHeader, content_hash
from encoders.decode import decode_with_dead, to_uint8
from encoders.quality import psnr, ssim
from pipeline.sources.base import ImageSource

_AT_ONCE = 64
"""Images decoded together: bounds the memory of float pixels."""


class MeasuredSource:
    """Rows of a published layout with dead Gaussians counted, and with pixels and quality where images are given."""

    def __init__(self, rows: RowSource, images: ImageSource | None) -> None:
        """Joins rows and images.

        Args:
            rows: of a published layout.
            images: in the order of the rows.

        Raises:
            JobError: another number of images, or another size.
        """
        self._rows, self._images = rows, images
        header = rows.header
        if images is None:
            self._header = header
            return
        shape = (header.height, header.width, header.channels)
        if tuple(images.image_shape) != shape:
            raise JobError(
                f"source images of {tuple(images.image_shape)}", allowed=f"{shape}, as the Gaussians decode to"
            )
        if len(images) != len(rows):
            raise JobError(f"{len(images)} source images", allowed=f"{len(rows)}, one for each row in the same order")
        self._header = header.model_copy(update={"images": True, "source": images.record})

    @property
    def header(self) -> StoreHeader:
        """The header of the store to be made."""
        return self._header

    @property
    def unread_labels(self) -> dict[str, str]:
        """Those of the rows."""
        return self._rows.unread_labels

    def __len__(self) -> int:
        return len(self._rows)

    def blocks(self) -> Iterator[RowBlock]:
        """All rows in order."""
        first = 0
        for rows in self._rows.blocks():
            if self._images is not None:
                self._add_images(rows, range(first, first + len(rows)), self._images)
            first += len(rows)
            done = np.flatnonzero(rows.state == RowState.DONE)
            for start in range(0, len(done), _AT_ONCE):
                self._measure(rows, done[start : start + _AT_ONCE])
            yield rows

    def _add_images(self, rows: RowBlock, numbers: range, images: ImageSource) -> None:
        header = self._header
        rows.image = np.zeros((len(rows), header.height, header.width, header.channels), np.uint8)
        for row, image in enumerate(images.read(list(numbers))):
            rows.source_id[row] = image.identifier
            if rows.label[row] < 0:
                rows.label[row] = image.label
            if image.pixels is not None:
                rows.image[row] = image.pixels
                rows.content_hash[row] = content_hash(image.pixels)
            elif rows.state[row] == RowState.DONE:
                rows.state[row] = RowState.FAILED
                rows.failure[row] = f"its source image cannot be read: {image.failure}"
                rows.splats[row] = 0
                rows.steps[row] = rows.dead[row] = 0

    def _measure(self, rows: RowBlock, part: np.ndarray) -> None:
        header = self._header
        frame = {
            "layout": header.splat_layout, "codec": header.codec, "height": header.height, "width": header.width
        }  # fmt: skip
        splats = rows.splats[part]
        decoded, rows.dead[part] = decode_with_dead(splats, **frame)
        if rows.image is not None:
            decoded = to_uint8(decoded)
            rows.psnr[part] = psnr(decoded, rows.image[part])
            rows.ssim[part] = ssim(decoded, rows.image[part])

    def close(self) -> None:
        """Closes the rows' files."""
        self._rows.close()


def measure_rows(rows: RowSource, images: ImageSource | None) -> MeasuredSource:
    """Rows of a published layout, completed for a store (see ``MeasuredSource``)."""
    return MeasuredSource(rows, images)
