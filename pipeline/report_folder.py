"""Where the report of a store goes when nothing else is said: cheap to import, the report itself is not."""

from __future__ import annotations

from pathlib import Path


def report_folder(store: Path) -> Path:
    """``NAME-report`` beside the store ``NAME.zarr``."""
    return store.with_name(store.stem + "-report")
