"""The contract of a store: one row per image, whole blocks visible at once.

    store = open_store("sprites.zarr")
    rows = store.read(["splats", "psnr"], slice(0, 100))

The suffix of the path decides the format: ``.zarr`` or ``.h5``/``.hdf5``. docs/store-format.md is the
specification for other programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from numpy.typing import NDArray

from data_schemas.locations import Location
from data_schemas.records import RowBlock, StoreHeader

ARRAYS = ("splats", "image", "label", "psnr", "ssim", "steps", "dead", "source_id", "content_hash", "state", "failure")
"""Names of the arrays of a store, in the order in which they are written: ``state`` makes a row visible."""


class SplatStore(Protocol):
    """One row per image. Rows are written in blocks of ``header.block_rows`` and become visible at once."""

    @property
    def path(self) -> Location:
        """Where the store is."""
        ...

    @property
    def header(self) -> StoreHeader:
        """What the numbers mean and how they were made."""
        ...

    def __len__(self) -> int:
        """Rows, done or not."""
        ...

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that this store has (``image`` is optional)."""
        ...

    @property
    def nbytes_stored(self) -> dict[str, int]:
        """Bytes on disk by array (compressed, with checksums)."""
        ...

    def read(self, names: Sequence[str], rows: slice | Sequence[int] = slice(None)) -> dict[str, NDArray[Any]]:
        """Reads rows of some arrays.

        Args:
            names: which of ``ARRAYS``; string arrays come as object arrays of str.
            rows: a slice, or row numbers in any order.

        Raises:
            StoreCorruptError: a checksum differs; ``rows`` names the rows that cannot be trusted.
        """
        ...

    def read_block(self, block: int) -> RowBlock:
        """The rows of one block, done or not."""
        ...

    def append(self, source_ids: Sequence[str]) -> range:
        """Adds rows in state EMPTY and returns their numbers. All or nothing under a kill at any instant."""
        ...

    def write_block(self, block: int, rows: RowBlock) -> None:
        """Replaces all rows of one block; a kill at any instant leaves the old rows or the new ones.

        Raises:
            StoreError: the disk is full or the store is read-only; what was there is still there.
        """
        ...

    def set_header(self, header: StoreHeader) -> None:
        """Replaces the attributes (atomically)."""
        ...

    def commit(self) -> None:
        """Makes everything written so far durable and readable by other programs."""
        ...

    def close(self) -> None:
        """Commits if writable, and lets go of the file and its lock."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def block_range(block: int, block_rows: int, rows: int) -> range:
    """Row numbers of one block."""
    return range(block * block_rows, min((block + 1) * block_rows, rows))


def blocks(rows: int, block_rows: int) -> Iterator[int]:
    """Numbers of the blocks that hold ``rows`` rows."""
    yield from range(-(-rows // block_rows))
