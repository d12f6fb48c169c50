"""Where the report of a store goes when nothing else is said: cheap to import, the report itself is not."""

from __future__ import annotations

from data_schemas.locations import Location


def report_folder(store: Location) -> Location:
    """``NAME-report`` beside the store ``NAME.zarr``."""
    return store.with_name(store.stem + "-report")
