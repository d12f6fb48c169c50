"""Stores of one name with different settings: NAME.zarr, NAME.v2.zarr, NAME.v3.zarr. Rows of two settings never mix."""

from __future__ import annotations

from data_schemas.errors import StoreMismatchError
from data_schemas.headers import require_identity
from data_schemas.locations import Location
from data_schemas.records import StoreHeader
from data_schemas.stores import open_store, store_exists


def version_path(path: Location, version: int) -> Location:
    """Where a version of a store is kept: ``path`` itself is version 1."""
    return path if version == 1 else path.with_name(f"{path.stem}.v{version}{path.suffix}")


def newest_version(path: Location) -> Location:
    """The last of the versions that are there; ``path`` itself where there is one or none."""
    version = 1
    while store_exists(version_path(path, version + 1)):
        version += 1
    return version_path(path, version)


def version_for(path: Location, header: StoreHeader) -> Location:
    """The newest version with these settings, or the next free one.

    Args:
        path: the store as the user named it.
        header: what is about to be written.

    Raises:
        StoreError: a version cannot be read; it is not passed over, since its settings are unknown.
    """
    version, found = 1, None
    while store_exists(candidate := version_path(path, version)):
        with open_store(candidate) as store:
            try:
                require_identity(store.header, header)
                found = candidate
            except StoreMismatchError:
                pass  # another setting: it stays as it is
        version += 1
    return found or candidate
