"""Lines of the log: which ones a run shows, and how often the same one is said."""

from __future__ import annotations

import logging
import time

PROJECT = "splatspace"

_SKIPPED = "%d scheduled runs skipped (at capacity)"
"""What Prefect's runner says at every query while a run waits for its turn."""


def follow_prefect() -> None:
    """Shows the lines of the project from the level on that Prefect has, ``PREFECT_LOGGING_LEVEL``.

    Prefect lends its handlers to the loggers of ``PREFECT_LOGGING_EXTRA_LOGGERS``, and not its level: without this,
    the process of a run shows warnings only. Every flow calls it when its module is loaded.
    """
    from prefect.settings import get_current_settings

    logging.getLogger(PROJECT).setLevel(get_current_settings().logging.level)


class WaitingOnce(logging.Filter):
    """Says once that runs wait, in place of Prefect's line at every query.

    Args:
        seconds: of silence after which it is news again.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._waiting = 0
        self._heard = -float("inf")

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a line is shown; that of waiting runs is put into other words."""
        if record.msg != _SKIPPED or not isinstance(record.args, tuple):
            return True
        (waiting,) = record.args
        assert isinstance(waiting, int)
        now = time.monotonic()
        is_news = waiting != self._waiting or now - self._heard > self._seconds
        self._waiting, self._heard = waiting, now
        record.msg = "%d run%s waiting: one is done at a time"
        record.args = (waiting, " is" if waiting == 1 else "s are")
        return is_news
