"""Where a run's fits happen: which answers there are, and which fit which store."""

from __future__ import annotations

import os
import re

from upath import UPath

from data_schemas.errors import JobError

LOCAL, DASK = "local", "dask"

_SCHEDULER = re.compile(r"(tcp|tls)://(\[[0-9A-Fa-f:.]+\]|[^\s:/@\[\]]+):([0-9]{1,5})")

_ALLOWED = "local, dask, or tcp://HOST:PORT (tls://HOST:PORT) of a Dask scheduler"


def check_compute(compute: str, store: str | os.PathLike[str] | UPath) -> str:
    """Checks where a run is to be computed.

    Args:
        compute: ``local`` (this process), ``dask`` (worker processes on this machine, started for the run), or the
            address of a Dask scheduler that is there.
        store: the store that is to be written.

    Returns:
        ``compute``.

    Raises:
        JobError: an unknown word, or an HDF5 store, which has one writer, with Dask.
    """
    if compute == LOCAL:
        return compute
    scheduler = _SCHEDULER.fullmatch(compute)
    if compute != DASK and (scheduler is None or not 0 < int(scheduler[3]) < 2**16):
        raise JobError(f"--compute {compute!r}", allowed=_ALLOWED, next_step="give --compute dask")
    name = str(store)
    if not name.rstrip("/").lower().endswith(".zarr"):
        raise JobError(
            f"--compute {compute} with the store {name}: an HDF5 store has one writer",
            allowed="a store that ends in .zarr, or --compute local",
            next_step="give --out NAME.zarr; splatspace convert makes an HDF5 store of it afterwards",
        )
    return compute
