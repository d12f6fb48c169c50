"""HDF5 files of the rotated layout: ``/W/sprite_{i}`` or ``/W/img_{i}``, each a group of five tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.published_layouts import rotated
from data_schemas.published_layouts.group_sink import GroupSink
from data_schemas.published_layouts.hdf5_access import (
    attribute,
    numbers,
    open_file,
    plain_attribute,
    read_record,
    subgroup,
    table,
)
from data_schemas.published_layouts.keyed import KeyedSource
from data_schemas.published_layouts.options import AngleSense, ConversionOptions, PixelCentre, usual_image_size
from data_schemas.published_layouts.record import header_of_published
from data_schemas.published_layouts.rows import (
    PublishedImage,
    Survey,
    UnreadableImageError,
    class_label,
    in_published_order,
    usual_count,
)
from data_schemas.records import StoreHeader
from data_schemas.splats import Layout

LAYOUT_NAME = "hdf5-rotated"
FIELDS = {"scaling": 2, "rotation": 1, "opacity": 1, "features": 3, "xyz": 2}
IMAGE_SIZES = {150: (32, 32), 200: (32, 32), 500: (64, 64)}


class RotatedSource(KeyedSource):
    """Reads a file of the rotated layout."""

    def __init__(self, path: Path, options: ConversionOptions) -> None:
        """Opens a file.

        Args:
            path: the HDF5 file.
            options: what the file does not say.

        Raises:
            StoreError: not such a file, or nothing in it can be read.
            JobError: the image size is neither given nor known.
        """
        self._file = open_file(path)
        try:
            self._images: h5py.Group = subgroup(self._file, "W")
            self._record = read_record(self._file)
            keys = in_published_order(str(key) for key in self._images)
            self.pixel_centre: PixelCentre = self._record.pixel_centre if self._record else options.pixel_centre
            self.angle: AngleSense = self._record.angle if self._record else options.angle
            super().__init__(keys, self._record, self._header(path, keys, options))
        except UnreadableImageError as error:
            self._file.close()
            raise StoreError(f"{path} has no images in this layout: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def _header(self, path: Path, keys: list[str], options: ConversionOptions) -> StoreHeader:
        if self._record is not None:
            return self._record.restored_header()
        gaussians = usual_count((self._count(key) for key in keys), options.gaussians)
        height, width = usual_image_size(gaussians, IMAGE_SIZES, options.image_size)
        return header_of_published(
            path.name, layout=LAYOUT_NAME, gaussians=gaussians, height=height, width=width, channels=3, bounded=False
        )

    def _count(self, key: str) -> int | None:
        try:
            return table(subgroup(self._images, key), "scaling", 2).shape[0]
        except UnreadableImageError:
            return None

    def image(self, key: str) -> PublishedImage:
        """Reads one image; what is wrong with it becomes its failure."""
        image = PublishedImage(key)
        try:
            group = subgroup(self._images, key)
            image.source_id = attribute(group, "source_id", key) if self._record else key
            image.label, image.unread_label = class_label(plain_attribute(group, "label"))
            tables = {name: table(group, name, width) for name, width in FIELDS.items()}
            counts = {dataset.shape[0] for dataset in tables.values()}
            if counts != {self.header.gaussians}:
                found = ", ".join(f"{name} {dataset.shape[0]}" for name, dataset in tables.items())
                raise UnreadableImageError(f"Gaussians: {found}; the store has {self.header.gaussians} per image")
            splats = rotated.to_splats(
                {name: numbers(dataset) for name, dataset in tables.items()},
                self.header.height,
                self.header.width,
                pixel_centre=self.pixel_centre,
                angle=self.angle,
            )
            grey = self.header.channels == 1
            image.splats = splats[:, [0, 1, 2, 3, 6, 7]] if grey else splats
        except UnreadableImageError as error:
            image.failure = str(error)
        return image

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class RotatedSink(GroupSink):
    """Writes a file of the rotated layout; rows without Gaussians are named in its record."""

    def __init__(self, path: Path, header: StoreHeader, rows: int, found: Survey, options: ConversionOptions) -> None:
        """Creates a file.

        Args:
            path: the HDF5 file to create.
            header: of the rows that will come.
            rows: how many.
            found: what was seen of them; this layout can hold any.
            options: key prefix and conventions.
        """
        notes: list[str] = []
        if found.outside_centres:
            notes.append(
                f"{found.outside_centres} images have centres outside the frame; "
                "programs that undo a tanh of the published centres will move those to its edge"
            )
        self._options = options
        conventions = {"layout": LAYOUT_NAME, "pixel_centre": options.pixel_centre, "angle": options.angle}
        super().__init__(path, header, rows, options.key_prefix, conventions, notes)

    def tables(self, splats: NDArray[Any], layout: Layout) -> dict[str, NDArray[Any]]:
        """The five tables of one image."""
        fields = rotated.from_splats(
            splats,
            layout,
            self._header.height,
            self._header.width,
            pixel_centre=self._options.pixel_centre,
            angle=self._options.angle,
        )
        return {name: field.astype(np.float32) for name, field in fields.items()}
