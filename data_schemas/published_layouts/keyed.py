"""Layouts that keep one entry per image under a name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from data_schemas.errors import StoreError
from data_schemas.published_layouts.record import AbsentRow, PublishedRecord
from data_schemas.published_layouts.rows import PublishedImage, gather, trailing_number
from data_schemas.records import RowBlock, RowState, StoreHeader

MOST_LOST = 1_000_000
"""More missing entries than this are a damaged record, not a damaged set."""


class KeyedSource(ABC):
    """Rows from named entries.

    Without a record each entry is a row, in the order of the names' numbers. With one, the number of a name is the
    row, rows that the record calls absent come back as they were, and a name that should be there and is not becomes
    a failed row.
    """

    def __init__(self, keys: list[str], record: PublishedRecord | None, header: StoreHeader) -> None:
        """Lays out the rows.

        Args:
            keys: names of the entries in order.
            record: of a file that SplatSpace wrote.
            header: of the rows.

        Raises:
            StoreError: no entries, or names that do not fit the record.
        """
        self._rows_header = header
        self.unread_labels: dict[str, str] = {}
        self._plan: list[str | AbsentRow]
        if not keys:
            raise StoreError("The source has no images", next_step="check that it is complete")
        if record is None:
            self._plan = list(keys)
            return
        by_number = {trailing_number(key): key for key in keys}
        strange = [key for key in keys if not _fits(trailing_number(key), record.rows)]
        if strange or len(by_number) != len(keys):
            raise StoreError(
                f"Entries that the record of conventions does not know: {strange[:5] or 'the same number twice'}",
                allowed=f"names that end in 0 to {record.rows - 1}",
                next_step="delete the record to read the data with the published conventions",
            )
        absent = {row.row: row for row in record.absent}
        lost = record.rows - len(keys) - len(absent)
        if lost > MOST_LOST:
            raise StoreError(
                f"The record of conventions speaks of {record.rows} images, but {lost} of them are missing"
            )
        self._plan = [by_number.get(row) or absent.get(row) or _missing(row) for row in range(record.rows)]

    @property
    def header(self) -> StoreHeader:
        """The header of a store that holds these rows."""
        return self._rows_header

    def __len__(self) -> int:
        return len(self._plan)

    @abstractmethod
    def image(self, key: str) -> PublishedImage:
        """Reads one image; what is wrong with it becomes its failure, never an exception."""

    @abstractmethod
    def close(self) -> None:
        """Lets go of files."""

    def blocks(self) -> Iterator[RowBlock]:
        """All rows in order."""
        first = 0
        images = (self._planned(entry) for entry in self._plan)
        for rows in gather(self._rows_header, images, self.unread_labels):
            for row, entry in enumerate(self._plan[first : first + len(rows)]):
                if isinstance(entry, AbsentRow):
                    rows.state[row] = RowState(entry.state)
                    rows.failure[row] = entry.failure
            first += len(rows)
            yield rows

    def _planned(self, entry: str | AbsentRow) -> PublishedImage:
        if isinstance(entry, AbsentRow):
            return PublishedImage(entry.source_id, label=entry.label, failure=entry.failure or "not encoded")
        return self.image(entry)


def _fits(number: int | None, rows: int) -> bool:
    return number is not None and number < rows


def _missing(row: int) -> AbsentRow:
    return AbsentRow(row=row, source_id=f"row {row}", state=2, failure="its entry is missing from the source")
