"""A system clock that somebody sets again and again, years forward and back."""

from __future__ import annotations

import datetime as datetime_module
import random
import time
from collections.abc import Callable
from typing import Any

import data_schemas.records
import data_schemas.stores.locks
import pipeline.encode.finish
import pipeline.encode.plan

DAYS = 1000


def jumping(dice: random.Random, put: Callable[[Any, str, Any], object] = setattr) -> None:
    """Makes every look at the clock in this process find another day, up to ``DAYS`` before or after today.

    Clocks that count from the start of the machine (``time.monotonic``, ``time.perf_counter``) go on as they do in
    reality.

    Args:
        dice: which days.
        put: sets an attribute; pytest's ``monkeypatch.setattr`` undoes it.
    """
    now, now_ns = time.time, time.time_ns

    def seconds() -> int:
        return dice.randint(-DAYS, DAYS) * 86400

    class Clock(datetime_module.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime_module.datetime.fromtimestamp(now() + seconds(), tz)

    put(time, "time", lambda: now() + seconds())
    put(time, "time_ns", lambda: now_ns() + seconds() * 10**9)
    for module in (data_schemas.records, data_schemas.stores.locks, pipeline.encode.plan, pipeline.encode.finish):
        put(module, "datetime", Clock)
