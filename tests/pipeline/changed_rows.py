"""Rows of a small store made into what other programs or damage leave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from unittest import mock

from data_schemas.records import RowBlock
from data_schemas.stores.open import open_store


def change_rows(path: Path, change: Callable[[int, RowBlock], None]) -> Path:
    """Rewrites every block.

    Args:
        path: of the store.
        change: told the number of the first row and the rows; writes into them, also what no writer accepts.
    """
    unchecked = mock.patch("data_schemas.stores.contract.check_block", lambda rows, _header, _count: rows)
    with unchecked, open_store(path, "a") as store:
        size = store.header.block_rows
        for block in range(-(-len(store) // size)):
            rows = store.read_block(block)
            change(block * size, rows)
            store.write_block(block, rows)
    return path
