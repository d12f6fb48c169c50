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
from contextvars import copy_context
from typing import TypeVar

logger = logging.getLogger("splatspace.flows.stop")

Result = TypeVar("Result")


def run_stoppably(work: Callable[[Callable[[], bool]], Result]) -> Result:
    """Runs ``work`` in a thread of its own, so that what interrupts this one lets it end in its own way.

    Args:
        work: is given a function that says whether to stop, and returns or raises soon after it has said so.

    Returns:
        What ``work`` returns.

    Raises:
        BaseException: what ``work`` raises; or, where this thread is interrupted, the interruption.
    """
    stop, ended = threading.Event(), threading.Event()
    results: list[Result] = []
    errors: list[BaseException] = []
    context = copy_context()  # with the run of Prefect, for the lines of its log

    def target() -> None:
        try:
            results.append(context.run(work, stop.is_set))
        except BaseException as error:  # whatever it is, the waiting thread raises it
            errors.append(error)
        finally:
            ended.set()

    thread = threading.Thread(target=target, name="work")
    with settling(stop, ended.wait):
        thread.start()
        ended.wait()
    if errors:
        raise errors[0]
    return results[0]


@contextmanager
def settling(stop: threading.Event, settle: Callable[[], object]) -> Iterator[None]:
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
            logger.info("Stopping: what is finished is kept")
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
