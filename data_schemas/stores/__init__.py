"""Stores of splats: one contract, two kinds of file, open with :func:`~data_schemas.stores.open.open_store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_schemas.stores.open import open_store as open_store


def __getattr__(name: str) -> Any:
    """``from data_schemas.stores import open_store``; late, since what opens stores imports every module here."""
    if name != "open_store":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from data_schemas.stores.open import open_store

    return open_store
