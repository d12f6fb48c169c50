"""Cancelling a run: what is under way ends at the next step of its fit, and what is fitted is kept.

Prefect ends a run by sending SIGTERM to its process, which it answers in the main thread with an exception. That
handler must stay installed: Prefect asks whether it is before it believes that a run can be cancelled, and otherwise
records a crash. So the shards are encoded in other threads, the main thread only waits for them, and the exception
finds it waiting.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger("splatspace.flows.stop")


@contextmanager
def settling(stop: threading.Event, settle: Callable[[], None]) -> Iterator[None]:
    """Lets the threads that the body waits for end their work where the body is interrupted.

    Whatever leaves the body (a cancellation, Ctrl-C, an error) sets ``stop``, waits for ``settle`` and goes on.
    A second SIGTERM changes nothing meanwhile; a second Ctrl-C leaves at once, which a store survives too.

    Args:
        stop: polled by the threads.
        settle: returns when they have ended.
    """
    try:
        yield
    except BaseException as error:
        stop.set()
        if not isinstance(error, Exception):
            logger.info("Stopping: rows that are fitted are kept")
        with _deaf_to_termination():
            settle()
        raise


@contextmanager
def _deaf_to_termination() -> Iterator[None]:
    """Ignores SIGTERM, which would interrupt the wait for what a first one has stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    # A function, not SIG_IGN: processes that are started meanwhile would inherit that one.
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    try:
        yield
    finally:
        # None stands for a handler that Python did not install and cannot put back.
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)
