"""Columnar HDF5 files: ``W`` [image, K, 6 to 9] of physical stamp numbers, and one array per property.

Grey files hold stamps of ``kernel_size`` pixels (an attribute). RGB files were fitted with another renderer: the first
deviation acts on columns, one unit is (width - 1) / 10 pixels, and pixels are 1 - exp(-sum), which no codec of a store
states. Six or eight numbers leave the opacity out.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.published_layouts.hdf5_groups import (
    NewHdf5File,
    attribute,
    child,
    numbers,
    open_file,
    read_record,
    write_record,
)
from data_schemas.published_layouts.options import AlphaUse, ConversionOptions, StampMatch, usual_image_size
from data_schemas.published_layouts.record import PublishedRecord, header_of_published
from data_schemas.published_layouts.rows import (
    MAX_GAUSSIANS_READ,
    PublishedImage,
    Survey,
    UnreadableImageError,
    class_label,
    gather,
    trailing_number,
    without_alpha,
)
from data_schemas.published_layouts.stamp import StampFrame, from_splats, holding_kernel_size, to_splats
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.splats import layout_for

LAYOUT_NAME = "hdf5-columnar"
IMAGE_SIZES = {70: (28, 28)}
USUAL_KERNEL_SIZE = 11
PROPERTIES = {"labels": "iu", "psnr": "f", "n_epochs": "iu", "n_dead": "iu", "done": "biu"}
"""Optional arrays with one value per image, and the kinds of numpy type that they may have."""

NOT_DONE = "the file marks it as not encoded"


class ColumnarSource:
    """Reads a columnar file."""

    def __init__(self, path: Path, options: ConversionOptions) -> None:
        """Opens a file.

        Args:
            path: the HDF5 file.
            options: what the file does not say.

        Raises:
            StoreError: not such a file, or one whose pixels are not clamped sums.
            JobError: the image size is neither given nor known.
        """
        self.unread_labels: dict[str, str] = {}
        self._file = open_file(path)
        try:
            self._splats = self._table()
            self._record = read_record(self._file)
            columns = self._splats.shape[2]
            channels = 1 if columns <= 7 else 3
            self._has_alpha = columns in (7, 9)
            self._header = self._made_header(path, channels, options)
            self.alpha: AlphaUse = "ignored" if self._record else options.alpha
            self.match: StampMatch = self._record.stamp if self._record else options.stamp
            self.frame = self._made_frame(channels, options)
            self._properties = {name: self._column(name, kinds) for name, kinds in PROPERTIES.items()}
            self._names = self._column("source_id", "O") if self._record else None
            self._failures = self._column("failure", "O") if self._record else None
            self._states = self._column("state", "u") if self._record else None
        except UnreadableImageError as error:
            self._file.close()
            raise StoreError(f"{path}: {error}") from error
        except BaseException:
            self._file.close()
            raise

    def _table(self) -> h5py.Dataset:
        found = child(self._file, "W")
        if not isinstance(found, h5py.Dataset) or found.dtype.kind != "f" or found.ndim != 3:
            raise UnreadableImageError("W is not a table [image, Gaussian, number] of floats")
        images, gaussians, columns = found.shape
        if columns not in (6, 7, 8, 9) or not 1 <= gaussians <= MAX_GAUSSIANS_READ or images < 1:
            raise UnreadableImageError(f"W has shape {found.shape}, not [N, K, 6 to 9] with at least one image")
        if found.chunks is not None and np.prod(found.chunks, dtype=float) > 2**28:
            raise UnreadableImageError(f"W has chunks of {found.chunks} numbers, more than {2**28}")
        return found

    def _made_header(self, path: Path, channels: int, options: ConversionOptions) -> StoreHeader:
        gaussians = self._splats.shape[1]
        if self._record is not None:
            header = self._record.restored_header()
            if (header.gaussians, header.channels, self._record.rows) != (gaussians, channels, len(self._splats)):
                raise StoreError(f"{path}: its record of conventions is of another table than W {self._splats.shape}")
            return header
        if options.gaussians not in (None, gaussians):
            raise StoreError(
                f"{path} has {gaussians} Gaussians per image", allowed=f"{options.gaussians}, as asked for"
            )
        saturation = options.saturation or ("clamp" if channels == 1 else "soft")
        if saturation == "soft":
            raise StoreError(
                f"{path} holds RGB Gaussians, which were published with the pixels 1 - exp(-sum); no store says that",
                allowed="files whose pixels are the clamped sum",
                next_step="encode the images again, or say --saturation clamp if this file was fitted so",
            )
        height, width = usual_image_size(gaussians, IMAGE_SIZES, options.image_size)
        return header_of_published(
            path.name,
            layout=LAYOUT_NAME,
            gaussians=gaussians,
            height=height,
            width=width,
            channels=channels,
            bounded=False,
        )

    def _made_frame(self, channels: int, options: ConversionOptions) -> StampFrame:
        height, width = self._header.height, self._header.width
        if self._record is not None:
            return StampFrame(height, width, self._record.kernel_size or USUAL_KERNEL_SIZE)
        if channels == 3:
            # Evaluated on the whole image, not stamped: nothing to fit, and the frame is the image itself.
            self.match = "centres"
            return StampFrame(height, width, width, unit=(width - 1) / 10, swapped=False)
        written = attribute(self._file, "kernel_size", 0)
        kernel_size = options.kernel_size or (written if 2 <= written <= 1025 else USUAL_KERNEL_SIZE)
        return StampFrame(height, width, kernel_size)

    def _column(self, name: str, kinds: str) -> h5py.Dataset | None:
        if name not in self._file:
            return None
        found = child(self._file, name)
        if not isinstance(found, h5py.Dataset) or found.shape != (len(self._splats),):
            raise UnreadableImageError(f"{name} does not have one value per image")
        if found.dtype.kind not in kinds:
            raise UnreadableImageError(f"{name} has values of type {found.dtype}")
        return found

    @property
    def header(self) -> StoreHeader:
        """The header of a store that holds these rows."""
        return self._header

    def __len__(self) -> int:
        return len(self._splats)

    def blocks(self) -> Iterator[RowBlock]:
        """All rows in order."""
        size = self._header.block_rows
        for first in range(0, len(self), size):
            part = slice(first, min(first + size, len(self)))
            images = list(self._images(part))
            rows = next(gather(self._header, images, self.unread_labels))
            if self._states is not None:
                state = np.asarray(self._states[part], np.uint8)
                told = np.minimum(state, np.uint8(RowState.FAILED))
                rows.state = np.where(rows.state == RowState.DONE, rows.state, told)
                rows.state[(rows.state == RowState.DONE) & (state != RowState.DONE)] = RowState.FAILED
                rows.failure[rows.state == RowState.EMPTY] = ""
            yield rows

    def _images(self, part: slice) -> Iterator[PublishedImage]:
        found = {name: self._read(column, part) for name, column in self._properties.items()}
        names = self._text(self._names, part)
        failures = self._text(self._failures, part)
        for row in range(part.stop - part.start):
            image = PublishedImage(names[row] if names else f"image_{part.start + row}")
            if found["labels"] is not None:
                image.label, image.unread_label = class_label(int(found["labels"][row]))
            image.steps = 0 if found["n_epochs"] is None else int(found["n_epochs"][row])
            image.dead = 0 if found["n_dead"] is None else int(found["n_dead"][row])
            image.psnr = float("nan") if found["psnr"] is None else float(found["psnr"][row])
            if found["done"] is not None and not found["done"][row]:
                image.failure = (failures[row] if failures else "") or NOT_DONE
            else:
                self._fill(image, part.start + row)
            yield image

    def _fill(self, image: PublishedImage, row: int) -> None:
        try:
            values = numbers(self._splats, row)
            if not self._has_alpha:
                values = np.insert(values, 3, 1.0, axis=1)
            image.splats = to_splats(values, self.frame, alpha=self.alpha, match=self.match)
        except UnreadableImageError as error:
            image.failure = str(error)

    def _read(self, column: h5py.Dataset | None, part: slice) -> NDArray[Any] | None:
        if column is None:
            return None
        try:
            return np.asarray(column[part])
        except (OSError, RuntimeError) as error:
            raise StoreError(f"{self._file.filename}:{column.name} cannot be read ({error})") from error

    def _text(self, column: h5py.Dataset | None, part: slice) -> list[str] | None:
        if column is None:
            return None
        try:
            return [str(one) for one in column.asstr()[part]]
        except (OSError, RuntimeError, TypeError, UnicodeDecodeError) as error:
            raise StoreError(f"{self._file.filename}:{column.name} cannot be read ({error})") from error

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class ColumnarSink:
    """Writes a columnar file; every row has a place, done or not."""

    def __init__(self, path: Path, header: StoreHeader, rows: int, found: Survey, options: ConversionOptions) -> None:
        """Creates a file.

        Args:
            path: the HDF5 file to create.
            header: of the rows that will come.
            rows: how many.
            found: what was seen of them.
            options: kernel size.

        Raises:
            StoreError: images too small for the layout.
        """
        kernel_size = holding_kernel_size(header, found, options.kernel_size, USUAL_KERNEL_SIZE, bounded=False)
        self.notes = [f"deviations in units of {(kernel_size - 1) / 10:g} px (stamps of {kernel_size} px)"]
        if header.channels == 3:
            self.notes.append("pixels are the clamped sum, not the 1 - exp(-sum) of published RGB files")
        self._frame = StampFrame(header.height, header.width, kernel_size)
        self._header, self._next = header, 0
        self._psnr_sum, self._psnr_count = 0.0, 0
        self._new = NewHdf5File(path)
        file = self._new.file
        columns = 6 + header.channels
        chunk = max(1, min(rows, 2**18 // (header.gaussians * columns)))
        options_of_splats = {"chunks": (chunk, header.gaussians, columns), "compression": "gzip", "shuffle": True}
        self._columns: dict[str, h5py.Dataset] = {}
        self._columns["W"] = file.create_dataset(
            "W", (rows, header.gaussians, columns), np.float32, fletcher32=True, **options_of_splats
        )
        labels = np.uint8 if found.label_low >= 0 and found.label_high <= 255 else np.int32
        types: dict[str, Any] = {
            "labels": labels, "psnr": np.float32, "n_epochs": np.int32, "n_dead": np.int32, "done": np.bool_,
            "orig_index": np.int32, "global_idx": np.int32, "state": np.uint8, "source_id": h5py.string_dtype(),
            "failure": h5py.string_dtype(),
        }  # fmt: skip
        for name, kind in types.items():
            self._columns[name] = file.create_dataset(name, (rows,), kind)

    def write(self, rows: RowBlock) -> None:
        """Writes the next rows."""
        layout = layout_for(self._header.channels)
        part = slice(self._next, self._next + len(rows))
        done = rows.state == RowState.DONE
        values = without_alpha(rows.splats, self._header.splat_layout)
        table = np.zeros((len(rows), self._header.gaussians, 6 + layout.channels), np.float32)
        for row in np.flatnonzero(done):
            table[row] = from_splats(values[row], layout, self._frame)
        numbers_at_end = [trailing_number(str(name)) for name in rows.source_id]
        places = [
            part.start + row if number is None or number >= 2**31 else number
            for row, number in enumerate(numbers_at_end)
        ]
        columns: dict[str, Any] = {
            "W": table,
            "labels": rows.label,
            "psnr": rows.psnr,
            "n_epochs": rows.steps,
            "n_dead": rows.dead,
            "done": done,
            "orig_index": np.array(places, np.int32),
            "global_idx": np.arange(part.start, part.stop, dtype=np.int32),
            "state": rows.state,
            "source_id": rows.source_id,
            "failure": rows.failure,
        }
        with self._new.checked():
            for name, column in columns.items():
                self._columns[name][part] = column
        finite = rows.psnr[np.isfinite(rows.psnr)]
        self._psnr_sum += float(finite.sum(dtype=np.float64))
        self._psnr_count += len(finite)
        self._next = part.stop

    def finish(self) -> None:
        """Writes the attributes and the record, and closes the file."""
        attributes = {
            "K": self._header.gaussians,
            "kernel_size": self._frame.kernel_size,
            "encoder_version": "splatspace",
            "coord_fix_applied": True,
        }
        if self._psnr_count:
            attributes["mean_psnr"] = self._psnr_sum / self._psnr_count
        record = PublishedRecord(
            layout=LAYOUT_NAME, kernel_size=self._frame.kernel_size, header=self._header, rows=self._next
        )
        with self._new.checked() as file:
            file.attrs.update(attributes)
            write_record(file, record)
        self._new.finish()

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._new.abandon()
