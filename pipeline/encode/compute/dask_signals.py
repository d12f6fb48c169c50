"""Loaded by each worker process that a run starts: signals are for the run, which tells its workers itself."""

from __future__ import annotations

import os
import signal
import threading

SECONDS_TO_BE_TOLD = 20.0
"""How long a worker that got SIGTERM waits for the run to end it."""


def dask_setup(_worker: object) -> None:
    """Called by Dask in the main thread of a worker.

    A terminal sends Ctrl-C to every process of a command, and Prefect sends SIGTERM to every process of a run. A worker
    that died of it would lose what it is fitting, and be replaced in the middle of the end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    asked = threading.Event()

    def leave_later(_number: int, _frame: object) -> None:
        if not asked.is_set():
            asked.set()
            # A process that ends without closing its workers sends this signal too, and waits for them.
            timer = threading.Timer(SECONDS_TO_BE_TOLD, os._exit, args=(128 + signal.SIGTERM,))
            timer.daemon = True
            timer.start()

    signal.signal(signal.SIGTERM, leave_later)
