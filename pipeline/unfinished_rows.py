"""Which images of some blocks have no splats: what a run that failed in part has to say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from data_schemas.errors import StoreCorruptError
from data_schemas.records import RowState
from data_schemas.store import SplatStore, block_range


@dataclass(frozen=True)
class UnfinishedRows:
    """Rows that are not done.

    Attributes:
        count: how many.
        named: names of the first ones inside their source.
    """

    count: int
    named: tuple[str, ...]

    def __str__(self) -> str:
        more = self.count - len(self.named)
        return ", ".join(self.named) + (f" and {more:,} more" if more else "")


def unfinished_rows(store: SplatStore, blocks: Iterable[int], *, most_named: int = 20) -> UnfinishedRows:
    """Looks which rows of some blocks are not done; a block that cannot be read counts as a whole.

    Args:
        store: open for reading.
        blocks: numbers of the blocks.
        most_named: how many rows are named; the rest are counted.
    """
    count = 0
    named: list[str] = []
    for block in blocks:
        span = block_range(block, store.header.block_rows, len(store))
        try:
            read = store.read(
                ["state", "source_id"] if len(named) < most_named else ["state"], slice(span.start, span.stop)
            )
        except StoreCorruptError:
            count += len(span)
            named += [f"row {row}" for row in span[: most_named - len(named)]]
            continue
        missing = np.flatnonzero(read["state"] != RowState.DONE)
        count += len(missing)
        named += [str(read["source_id"][position]) for position in missing[: most_named - len(named)]]
    return UnfinishedRows(count, tuple(named))
