"""What SplatSpace writes beside a published layout so that it can read its own files back exactly.

Other programs do not look at it. In a folder it is the file ``splatspace.json``, in HDF5 the scalar string data set
``splatspace`` of the root. With it come the layouts that keep one entry per image under a name.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_schemas.errors import StoreError
from data_schemas.headers import check_header
from data_schemas.published_layouts.rows import MAX_GAUSSIANS_READ, PublishedImage, gather, trailing_number
from data_schemas.records import RowBlock, RowState, SourceRecord, StoreHeader
from data_schemas.splats import layout_for

RECORD_VERSION = 1
MAX_RECORD_BYTES = 256 * 2**20
MAX_SIDE = 16_384
MAX_BLOCK_ROWS = 65_536

MOST_LOST = 1_000_000
"""More missing entries than this are a damaged record, not a damaged set."""


class AbsentRow(BaseModel):
    """A row that the published layout has no place for, because it holds no Gaussians.

    Attributes:
        row: number of the row.
        source_id: of the image.
        label: of the image.
        state: 0 empty or 2 failed.
        failure: the reason of a failed row.
    """

    model_config = ConfigDict(extra="forbid")

    row: int = Field(ge=0)
    source_id: str
    label: int = -1
    state: Literal[0, 2]
    failure: str = ""


class PublishedRecord(BaseModel):
    """Conventions of a published file that SplatSpace wrote, and what the layout itself cannot say.

    Attributes:
        record_version: of this model.
        layout: name of the published layout.
        kernel_size: side of the stamp in pixels, of stamp layouts.
        stamp: how Gaussians became stamps.
        pixel_centre: of the rotated layout.
        angle: of the rotated layout.
        header: of the store that was written.
        rows: rows of that store, done or not.
        absent: the rows that are not in the file.
    """

    model_config = ConfigDict(extra="forbid")

    record_version: int = RECORD_VERSION
    layout: str
    kernel_size: int | None = Field(default=None, ge=2)
    stamp: Literal["fitted", "centres"] = "centres"
    pixel_centre: Literal["integer", "half"] = "integer"
    angle: Literal["up", "down"] = "up"
    header: StoreHeader
    rows: int = Field(ge=1)
    absent: tuple[AbsentRow, ...] = ()

    @classmethod
    def parse(cls, text: str | bytes, where: str) -> PublishedRecord:
        """Reads and checks a record.

        Args:
            text: JSON.
            where: file name for the message.

        Raises:
            StoreError: it is not a record that this program can read.
        """
        try:
            record = cls.model_validate_json(text)
        except (ValidationError, RecursionError) as error:
            raise StoreError(
                f"The record of conventions {where} cannot be read: {str(error).splitlines()[0]}",
                next_step="delete it to read the data with the published conventions, or restore it",
            ) from error
        if record.record_version != RECORD_VERSION:
            raise StoreError(
                f"The record of conventions {where} has version {record.record_version}",
                allowed=str(RECORD_VERSION),
                next_step="install a newer SplatSpace",
            )
        header = record.header
        check_header(header)
        sane = header.gaussians <= MAX_GAUSSIANS_READ and max(header.height, header.width) <= MAX_SIDE
        if not (sane and header.block_rows <= MAX_BLOCK_ROWS):
            raise StoreError(
                f"The record of conventions {where} speaks of {header.gaussians} Gaussians, images of {header.height}x"
                f"{header.width} and blocks of {header.block_rows} rows",
                allowed=f"{MAX_GAUSSIANS_READ} Gaussians, {MAX_SIDE}x{MAX_SIDE} pixels, {MAX_BLOCK_ROWS} rows",
            )
        numbers = [absent.row for absent in record.absent]
        if len(set(numbers)) != len(numbers) or any(number >= record.rows for number in numbers):
            raise StoreError(
                f"The record of conventions {where} names a row twice or one beyond its {record.rows} rows"
            )
        return record

    def restored_header(self) -> StoreHeader:
        """The header of a store read back from the file: as it was, without pixels, opacity folded into colours.

        A product of two float16 numbers is no float16 number, so colours with folded opacity become float32.
        """
        changed: dict[str, Any] = {"images": False, "layout": layout_for(self.header.channels).name}
        if self.header.splat_layout.has_alpha:
            changed["dtype"] = "float32"
        return self.header.model_copy(update=changed)


def absent_rows(first: int, rows: RowBlock) -> list[AbsentRow]:
    """The rows of a block that hold no Gaussians.

    Args:
        first: number of the block's first row.
        rows: the block.
    """
    return [
        AbsentRow(
            row=first + row,
            source_id=str(rows.source_id[row]),
            label=int(rows.label[row]),
            state=2 if rows.state[row] == RowState.FAILED else 0,
            failure=str(rows.failure[row]),
        )
        for row in range(len(rows))
        if rows.state[row] != RowState.DONE
    ]


def header_of_published(
    source: str, *, layout: str, gaussians: int, height: int, width: int, channels: int, bounded: bool
) -> StoreHeader:
    """The header of a store made from files that others wrote.

    Args:
        source: name of the file or folder.
        layout: name of the published layout.
        gaussians: K.
        height: pixels.
        width: pixels.
        channels: 1 or 3.
        bounded: whether every colour is in [0, 1] by construction.
    """
    return StoreHeader(
        codec="additive/1",
        layout=layout_for(channels).name,
        gaussians=gaussians,
        height=height,
        width=width,
        channels=channels,
        images=False,
        colours="bounded" if bounded else "signed",
        engine=f"converted from {layout}",
        source=SourceRecord(name=source),
    )


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
