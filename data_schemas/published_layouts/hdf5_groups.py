"""HDF5 files of published layouts: read whatever their origin, and written as one group of tables per image.

Reading looks at nothing outside the file and at nothing of unbounded size. Groups are ``/W/{prefix}_{row}/{table}``.
They are written into memory first: the HDF5 library itself cannot survive a failed write on a full disk.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import StoreError
from data_schemas.published_layouts.record import MAX_RECORD_BYTES, AbsentRow, PublishedRecord, absent_rows
from data_schemas.published_layouts.rows import MAX_GAUSSIANS_READ, UnreadableImageError, without_alpha
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.splats import Layout, layout_for
from data_schemas.stores.hdf5_file import CheckedFile, open_locked_if_possible

RECORD_NAME = "splatspace"


def open_file(path: Path) -> h5py.File:
    """Opens an HDF5 file for reading.

    Raises:
        StoreError: not HDF5, cut short, or not readable.
    """
    try:
        return open_locked_if_possible(path)
    except OSError as error:
        raise StoreError(
            f"{path} cannot be opened as HDF5 ({error})",
            next_step="check that it is complete and that no program is writing it",
        ) from error


def child(group: h5py.Group, name: str) -> h5py.Group | h5py.Dataset:
    """A member of a group that lies in the same file.

    Raises:
        UnreadableImageError: absent, a link that leads elsewhere, or data kept in another file.
    """
    try:
        link = group.get(name, getlink=True)
        if link is None:
            raise UnreadableImageError(f"no {name!r} in {group.name}")
        if not isinstance(link, h5py.HardLink):
            raise UnreadableImageError(f"{name!r} in {group.name} is a link that leads elsewhere")
        found: Any = group[name]
    except (KeyError, OSError, RuntimeError) as error:
        raise UnreadableImageError(f"{name!r} in {group.name} cannot be read ({error})") from error
    if isinstance(found, h5py.Dataset) and (found.external or found.is_virtual):
        raise UnreadableImageError(f"{found.name} keeps its numbers in another file")
    if not isinstance(found, h5py.Group | h5py.Dataset):
        raise UnreadableImageError(f"{name!r} in {group.name} is neither a group nor a data set")
    return found


def subgroup(group: h5py.Group, name: str) -> h5py.Group:
    """A member that is a group.

    Raises:
        UnreadableImageError: see ``child``; or it is a data set.
    """
    found = child(group, name)
    if not isinstance(found, h5py.Group):
        raise UnreadableImageError(f"{found.name} is a data set, not a group")
    return found


def table(group: h5py.Group, name: str, width: int | tuple[int, ...]) -> h5py.Dataset:
    """A member that is a table of numbers of bounded size.

    Args:
        group: where.
        name: of the data set.
        width: allowed numbers of columns.

    Returns:
        Data set [gaussian, width], not read yet.

    Raises:
        UnreadableImageError: see ``child``; or another shape or type.
    """
    found = child(group, name)
    widths = (width,) if isinstance(width, int) else width
    if not isinstance(found, h5py.Dataset):
        raise UnreadableImageError(f"{found.name} is a group, not a data set")
    if found.dtype.kind not in "fiu":
        raise UnreadableImageError(f"{found.name} has type {found.dtype}, not numbers")
    allowed = " or ".join(str(one) for one in widths)
    if found.ndim != 2 or found.shape[1] not in widths or not 1 <= found.shape[0] <= MAX_GAUSSIANS_READ:
        raise UnreadableImageError(f"{found.name} has shape {found.shape}, not [K, {allowed}]")
    return found


def numbers(dataset: h5py.Dataset, rows: Any = ()) -> NDArray[np.float64]:
    """Reads numbers.

    Raises:
        UnreadableImageError: damaged bytes.
    """
    try:
        return np.asarray(dataset[rows], np.float64)
    except (OSError, RuntimeError, ValueError) as error:
        raise UnreadableImageError(f"{dataset.name} cannot be read ({error})") from error


def attribute(group: h5py.Group, name: str, default: Any) -> Any:
    """A scalar attribute of the type of ``default``, or the default where it is absent or something else."""
    try:
        value = group.attrs.get(name)
        if value is None or np.ndim(value) != 0:
            return default
        if isinstance(default, str):
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        return type(default)(value)
    except (OSError, RuntimeError, ValueError, TypeError, OverflowError):
        return default


def plain_attribute(group: h5py.Group, name: str) -> Any:
    """An attribute as a number, a text or, where it is neither, as it is; None where it is absent."""
    try:
        value = group.attrs.get(name)
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    except (OSError, RuntimeError, ValueError, TypeError):
        return "cannot be read"


def read_record(file: h5py.File) -> PublishedRecord | None:
    """The record of conventions of a file that SplatSpace wrote, None for files of others.

    Raises:
        StoreError: there is one that cannot be read.
    """
    if RECORD_NAME not in file:
        return None
    where = f"{file.filename}:/{RECORD_NAME}"
    try:
        found = child(file, RECORD_NAME)
    except UnreadableImageError as error:
        raise StoreError(f"The record of conventions {where} cannot be read: {error}") from error
    if not isinstance(found, h5py.Dataset) or found.shape != () or found.dtype.kind not in "OS":
        raise StoreError(f"The record of conventions {where} is not a string")
    try:
        text = found[()]
    except (OSError, RuntimeError) as error:
        raise StoreError(f"The record of conventions {where} cannot be read: {error}") from error
    if not isinstance(text, bytes) or len(text) > MAX_RECORD_BYTES:
        raise StoreError(f"The record of conventions {where} is not a string of at most {MAX_RECORD_BYTES} bytes")
    return PublishedRecord.parse(text, where)


def write_record(file: h5py.File, record: PublishedRecord) -> None:
    """Writes the record of conventions."""
    file.create_dataset(RECORD_NAME, data=record.model_dump_json(), dtype=h5py.string_dtype())


class NewHdf5File:
    """A new HDF5 file.

    Args:
        path: must not exist yet.

    Attributes:
        file: to write into, inside ``checked``.
    """

    def __init__(self, path: Path) -> None:
        self._target = CheckedFile(path)
        try:
            self.file = h5py.File(self._target, "w", libver=("earliest", "v110"))
        except BaseException:
            self._target.close()
            raise

    @contextlib.contextmanager
    def checked(self) -> Iterator[h5py.File]:
        """The file; on leaving, whatever went wrong with the disk is raised.

        Raises:
            OSError: a write failed.
        """
        try:
            yield self.file
        except Exception as error:
            # The library reports a failed write as it likes, often much later; the file knows the cause.
            if self._target.error is not None:
                raise self._target.error from error
            raise
        if self._target.error is not None:
            raise self._target.error

    def finish(self) -> None:
        """Completes the file.

        Raises:
            OSError: a write failed.
        """
        with self.checked() as file:
            file.close()
        self._target.finish()
        self._target.close()

    def abandon(self) -> None:
        """Closes the file as it is; safe to call after ``finish``."""
        with contextlib.suppress(Exception):
            self.file.close()
        self._target.close()


class GroupSink(ABC):
    """Writes one group per row that is done; the others are named in the file's record.

    A layout supplies :meth:`tables` and the conventions of its record.

    Args:
        path: the HDF5 file to create.
        header: of the rows that will come.
        rows: how many.
        prefix: of the groups' names.
        conventions: fields of the record besides header and rows, the layout's name among them.
        notes: what a user should know of the file.
    """

    def __init__(
        self, path: Path, header: StoreHeader, rows: int, prefix: str, conventions: dict[str, Any], notes: list[str]
    ) -> None:
        self.notes = notes
        self._header, self._rows, self._prefix, self._conventions = header, rows, prefix, conventions
        self._new = NewHdf5File(path)
        self._images = self._new.file.create_group("W")
        self._absent: list[AbsentRow] = []
        self._next = 0

    @abstractmethod
    def tables(self, splats: NDArray[Any], layout: Layout) -> dict[str, NDArray[Any]]:
        """The tables of one image.

        Args:
            splats: [gaussian, parameter] in ``layout``.
            layout: the columns of ``splats``, without alpha.
        """

    def write(self, rows: RowBlock) -> None:
        """Adds one group per row that is done."""
        layout = layout_for(self._header.channels)
        with self._new.checked():
            values = without_alpha(rows.splats, self._header.splat_layout)
            for row in np.flatnonzero(rows.state == RowState.DONE):
                tables = self.tables(values[row], layout)
                group = self._images.create_group(f"{self._prefix}_{self._next + row}")
                for name, table in tables.items():
                    group.create_dataset(name, data=table)
                group.attrs["source_id"] = str(rows.source_id[row])
                group.attrs["label"] = int(rows.label[row])
        self._absent += absent_rows(self._next, rows)
        self._next += len(rows)

    def finish(self) -> None:
        """Writes the record and closes the file."""
        record = PublishedRecord(header=self._header, rows=self._rows, absent=tuple(self._absent), **self._conventions)
        with self._new.checked() as file:
            write_record(file, record)
        self._new.finish()

    def abandon(self) -> None:
        """Closes the file as it is."""
        self._new.abandon()
