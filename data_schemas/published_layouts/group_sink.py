"""Writing HDF5 files that hold one group of tables per image: ``/W/{prefix}_{row}/{table}``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.published_layouts.hdf5_access import write_record
from data_schemas.published_layouts.hdf5_writing import NewHdf5File
from data_schemas.published_layouts.record import AbsentRow, PublishedRecord, absent_rows
from data_schemas.published_layouts.rows import without_alpha
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.splats import Layout, layout_for


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
