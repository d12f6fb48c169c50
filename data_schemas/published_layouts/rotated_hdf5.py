"""HDF5 files of the rotated layout: ``/W/sprite_{i}`` or ``/W/img_{i}``, each a group of five tables."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

from data_schemas.errors import StoreError
from data_schemas.published_layouts import rotated
from data_schemas.published_layouts.hdf5_access import (
    attribute,
    numbers,
    open_file,
    read_record,
    subgroup,
    table,
    write_record,
)
from data_schemas.published_layouts.hdf5_writing import NewHdf5File
from data_schemas.published_layouts.keyed import KeyedSource
from data_schemas.published_layouts.options import AngleSense, ConversionOptions, PixelCentre, usual_image_size
from data_schemas.published_layouts.record import (
    AbsentRow,
    PublishedRecord,
    absent_rows,
    header_of_published,
)
from data_schemas.published_layouts.rows import (
    PublishedImage,
    Survey,
    UnreadableImageError,
    in_published_order,
    usual_count,
    without_alpha,
)
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.splats import layout_for

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
            image.label = attribute(group, "label", -1)
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


class RotatedSink:
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
        self.notes: list[str] = []
        if found.outside_centres:
            self.notes.append(
                f"{found.outside_centres} images have centres outside the frame; "
                "programs that undo a tanh of the published centres will move those to its edge"
            )
        self._header, self._rows, self._options = header, rows, options
        self._new = NewHdf5File(path)
        self._images = self._new.file.create_group("W")
        self._absent: list[AbsentRow] = []
        self._next = 0

    def write(self, rows: RowBlock) -> None:
        """Adds one group per row that is done."""
        with self._new.checked():
            self._write(rows)
        self._absent += absent_rows(self._next, rows)
        self._next += len(rows)

    def _write(self, rows: RowBlock) -> None:
        layout = layout_for(self._header.channels)
        values = without_alpha(rows.splats, self._header.splat_layout)
        for row in np.flatnonzero(rows.state == RowState.DONE):
            fields = rotated.from_splats(
                values[row],
                layout,
                self._header.height,
                self._header.width,
                pixel_centre=self._options.pixel_centre,
                angle=self._options.angle,
            )
            group = self._images.create_group(f"{self._options.key_prefix}_{self._next + row}")
            for name, field in fields.items():
                group.create_dataset(name, data=field.astype(np.float32))
            group.attrs["source_id"] = str(rows.source_id[row])
            group.attrs["label"] = int(rows.label[row])

    def finish(self) -> None:
        """Writes the record and closes the file."""
        record = PublishedRecord(
            layout=LAYOUT_NAME,
            pixel_centre=self._options.pixel_centre,
            angle=self._options.angle,
            header=self._header,
            rows=self._rows,
            absent=tuple(self._absent),
        )
        with self._new.checked() as file:
            write_record(file, record)
        self._new.finish()

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._new.abandon()
