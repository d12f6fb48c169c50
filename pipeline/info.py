"""What a store is, without reading its splats."""

from __future__ import annotations

import json
import os

import numpy as np
from pydantic import BaseModel, Field, computed_field
from upath import UPath

from data_schemas.hub import is_hub_url
from data_schemas.locations import Location, LocationField, location
from data_schemas.records import RowState, StoreHeader
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import open_store
from encoders.quality import psnr_of_mean_error

FAILURES_SHOWN = 20


class StoreInfo(BaseModel):
    """Figures of a store.

    Attributes:
        path: of the store.
        header: its attributes, without the anchors.
        rows: rows of the store.
        done: rows that hold splats.
        failed: rows that failed.
        empty: rows that were never tried.
        psnr: of the mean squared error of the done rows in dB; None where none is done or all are lossless.
        lossless: done rows whose decoded image equals the source.
        bytes_by_array: bytes on disk.
        numbers_per_image: K times the columns of a Gaussian.
        failures: the first failed rows: row, name, reason.
    """

    path: LocationField
    header: StoreHeader
    rows: int
    done: int
    failed: int
    empty: int
    psnr: float | None = Field(default=None, allow_inf_nan=False)
    lossless: int
    bytes_by_array: dict[str, int]
    numbers_per_image: int
    failures: tuple[tuple[int, str, str], ...]

    @computed_field
    @property
    def opened_with(self) -> str:
        """The expression of Python that opens the store without SplatSpace, by the engine that can read it."""
        place = json.dumps(str(self.path), ensure_ascii=False)
        if self.path.suffix.lower() == ".zarr":
            return f"xarray.open_zarr({place}, consolidated=False)"
        # xarray's first choice, netCDF4, ends the process where it meets half precision.
        return f'xarray.open_dataset({place}, engine="h5netcdf")'

    @property
    def bytes_stored(self) -> int:
        """Bytes of all arrays on disk."""
        return sum(self.bytes_by_array.values())


def store_info(path: str | os.PathLike[str] | UPath) -> StoreInfo:
    """Reads the figures of a store.

    Raises:
        StoreError: it cannot be opened.
    """
    with open_store(path, "r") as store:
        # A repository of the hub is opened by its own name, its store elsewhere by that of the store.
        return info_of(store, store.path if is_hub_url(str(path)) else location(path))


def info_of(store: SplatStore, path: Location) -> StoreInfo:
    """The figures of a store that is open.

    Args:
        store: any.
        path: of the store, as it is shown.

    Raises:
        StoreCorruptError: bytes that are read have another checksum.
    """
    content = store.read(["state", "psnr", "source_id", "failure"])
    header = store.header
    counts = store.count_rows()
    recorded = content["psnr"][store.finished_rows()]
    psnr = psnr_of_mean_error(recorded)
    failed = np.flatnonzero(content["state"] == RowState.FAILED)
    return StoreInfo(
        path=path,
        header=header.model_copy(update={"anchors": None}),
        rows=len(store),
        done=counts[RowState.DONE],
        failed=counts[RowState.FAILED],
        empty=counts[RowState.EMPTY],
        psnr=psnr if np.isfinite(psnr) else None,
        lossless=int(np.isposinf(recorded).sum()),
        bytes_by_array=store.nbytes_stored,
        numbers_per_image=header.gaussians * header.splat_layout.width,
        failures=tuple(
            (int(row), str(content["source_id"][row]), str(content["failure"][row])) for row in failed[:FAILURES_SHOWN]
        ),
    )
