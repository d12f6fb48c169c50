"""HDF5 files of raw stamp numbers: ``/<key>/W`` or ``/W/<key>/W``, one table [K, 7 or 9] per image."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.published_layouts.hdf5_groups import (
    RECORD_NAME,
    GroupSink,
    attribute,
    numbers,
    open_file,
    plain_attribute,
    read_record,
    subgroup,
    table,
)
from data_schemas.published_layouts.options import AlphaUse, ConversionOptions, StampMatch, usual_image_size
from data_schemas.published_layouts.record import KeyedSource, PublishedRecord, header_of_published
from data_schemas.published_layouts.rows import (
    PublishedImage,
    Survey,
    UnreadableImageError,
    class_label,
    in_published_order,
    usual_count,
)
from data_schemas.published_layouts.stamp import (
    StampFrame,
    activate,
    deactivate,
    from_splats,
    holding_kernel_size,
    kernel_notes,
    refuse_outside_colours,
    to_splats,
)
from data_schemas.records import StoreHeader
from data_schemas.splats import Layout

LAYOUT_NAME = "hdf5-stamp"
IMAGE_SIZES = {70: (28, 28), 150: (32, 32), 200: (32, 32), 300: (32, 32), 500: (64, 64)}
USUAL_KERNEL_SIZE = 17


def published_kernel_size(height: int, width: int) -> int:
    """The stamp with which the published scripts draw images of this size."""
    return {(32, 32): 18, (64, 64): 25}.get((height, width), USUAL_KERNEL_SIZE)


def stamp_header(
    name: str, layout: str, shapes: Sequence[tuple[int, int] | None], options: ConversionOptions
) -> StoreHeader:
    """The header of images that are tables of raw stamp numbers, from what most of them hold.

    Args:
        name: of the source.
        layout: name of its layout.
        shapes: (Gaussians, columns) of each image, None where it cannot be read.
        options: what the shapes do not say.

    Raises:
        JobError: the image size is neither given nor known.
    """
    gaussians = usual_count((shape[0] if shape else None for shape in shapes), options.gaussians)
    columns = usual_count((shape[1] if shape else None for shape in shapes), None)
    height, width = usual_image_size(gaussians, IMAGE_SIZES, options.image_size)
    return header_of_published(
        name,
        layout=layout,
        gaussians=gaussians,
        height=height,
        width=width,
        channels=columns - 6,
        bounded=options.stamp == "centres",
    )


class StampSource(KeyedSource):
    """Reads tables of raw stamp numbers, one of each image.

    Attributes:
        match: see ``ConversionOptions.stamp``.
        alpha: see ``ConversionOptions.alpha``.
        frame: of the images.
    """

    def __init__(
        self,
        path: Path,
        layout: str,
        keys: list[str],
        record: PublishedRecord | None,
        options: ConversionOptions,
        *,
        usual_kernel_size: Callable[[int, int], int],
    ) -> None:
        """Takes the conventions from the record, or from the options and the shapes of the tables.

        Args:
            path: of the source.
            layout: its name.
            keys: of the images, in their order.
            record: of its conventions; None for sources of others.
            options: what the source does not say.
            usual_kernel_size: the stamp for images of (height, width) where nobody says it.

        Raises:
            JobError: the image size is neither given nor known.
        """
        self._record = record
        header = (
            record.restored_header()
            if record
            else stamp_header(path.name, layout, [self._shape(key) for key in keys], options)
        )
        super().__init__(keys, record, header)
        self.match: StampMatch = record.stamp if record else options.stamp
        self.alpha: AlphaUse = "ignored" if record else options.alpha
        kernel_size = record.kernel_size if record else options.kernel_size
        height, width = header.height, header.width
        self.frame = StampFrame(height, width, kernel_size or usual_kernel_size(height, width))

    @abstractmethod
    def _shape(self, key: str) -> tuple[int, int] | None:
        """(Gaussians, columns) of an image; None where it cannot be read."""


class StampHdf5Source(StampSource):
    """Reads a file of raw stamp numbers."""

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
            self._images: h5py.Group = images_group(self._file)
            record = read_record(self._file)
            keys = in_published_order(str(key) for key in self._images if key != RECORD_NAME)
            super().__init__(path, LAYOUT_NAME, keys, record, options, usual_kernel_size=published_kernel_size)
        except BaseException:
            self._file.close()
            raise

    def _shape(self, key: str) -> tuple[int, int] | None:
        try:
            return table(subgroup(self._images, key), "W", (7, 9)).shape
        except UnreadableImageError:
            return None

    def image(self, key: str) -> PublishedImage:
        """Reads one image; what is wrong with it becomes its failure."""
        image = PublishedImage(key)
        try:
            group = subgroup(self._images, key)
            image.source_id = attribute(group, "source_id", key) if self._record else key
            image.label, image.unread_label = class_label(plain_attribute(group, "label"))
            dataset = table(group, "W", 6 + self.header.channels)
            if dataset.shape[0] != self.header.gaussians:
                raise UnreadableImageError(
                    f"{dataset.shape[0]} Gaussians, but the store has {self.header.gaussians} per image"
                )
            image.splats = to_splats(activate(numbers(dataset)), self.frame, alpha=self.alpha, match=self.match)
        except UnreadableImageError as error:
            image.failure = str(error)
        return image

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def images_group(file: h5py.File) -> h5py.Group:
    """The group whose members are the images: ``/W``, or the root.

    Raises:
        StoreError: the members cannot be read.
    """
    if "W" in file and isinstance(file.get("W", getlink=True), h5py.HardLink):
        found = file["W"]
        if isinstance(found, h5py.Group):
            return found
    if "W" in file:
        raise StoreError(f"{file.filename}:/W is not a group of images")
    return file


class StampHdf5Sink(GroupSink):
    """Writes raw stamp numbers as ``/W/img_{row}/W``."""

    def __init__(self, path: Path, header: StoreHeader, rows: int, found: Survey, options: ConversionOptions) -> None:
        """Creates a file.

        Args:
            path: the HDF5 file to create.
            header: of the rows that will come.
            rows: how many.
            found: what was seen of them.
            options: kernel size and key prefix.

        Raises:
            StoreError: rows that the layout cannot hold, by name.
        """
        refuse_outside_colours(found)
        usual = published_kernel_size(header.height, header.width)
        kernel_size = holding_kernel_size(header, found, options.kernel_size, usual - 1 + usual % 2, bounded=True)
        self._frame = StampFrame(header.height, header.width, kernel_size)
        conventions = {"layout": LAYOUT_NAME, "kernel_size": kernel_size}
        super().__init__(path, header, rows, options.key_prefix, conventions, kernel_notes(header, kernel_size))

    def tables(self, splats: NDArray[Any], layout: Layout) -> dict[str, NDArray[Any]]:
        """The one table of an image."""
        return {"W": deactivate(from_splats(splats, layout, self._frame))}
