"""Loaded by each worker process that a run starts: Ctrl-C is for the run, which tells its workers itself."""

from __future__ import annotations

import signal


def dask_setup(_worker: object) -> None:
    """Called by Dask in the main thread of a worker.

    A terminal sends Ctrl-C to every process of a command. A worker that died of it would lose what it is fitting.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
