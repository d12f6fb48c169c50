"""Threads that work on one image together."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from encoders.compiled import compiled
from encoders.vector import flush_denormals, restore_denormals


@compiled
def _flush():
    return flush_denormals()


@compiled
def _restore(before):
    restore_denormals(before)


class Team:
    """This thread and ``threads`` - 1 more, which share calls of compiled code; a context manager.

    Within it all of them treat numbers below 1e-38 as 0, as compiled fits do (``encoders.vector.flush_denormals``).

    Args:
        threads: at least 1.

    Attributes:
        threads: as given.
        seconds: CPU time of the other threads so far.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self.seconds = 0.0
        self._pool: ThreadPoolExecutor | None = None
        self._before = 0

    def __enter__(self) -> Self:
        self._before = _flush()
        if self.threads > 1:
            self._pool = ThreadPoolExecutor(self.threads - 1, "image", initializer=_flush)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _restore(self._before)
        if self._pool is not None:
            self._pool.shutdown()

    def share(self, calls: Sequence[Callable[[], object]]) -> None:
        """Makes every call once, each on the thread that is free first, and returns when all are done."""
        # Under the interpreter lock each call is handed out once.
        waiting = iter(calls)

        def work() -> float:
            before = time.thread_time()
            for call in waiting:
                call()
            return time.thread_time() - before

        others = []
        if self._pool is not None:
            others = [self._pool.submit(work) for _ in range(min(self.threads, len(calls)) - 1)]
        work()
        self.seconds += sum(other.result() for other in others)


def cut_evenly(
    work: NDArray[np.float64], shares: int, multiple: int = 1, again: NDArray[np.float64] | None = None
) -> list[tuple[int, int]]:
    """Cuts items into ranges of about equal work.

    Args:
        work: float64 [item], the work up to and with each item: it never falls.
        shares: ranges at most.
        multiple: of which every cut but the last is one.
        again: float64 [item], the work that is done twice where a cut lies before the item; None: none.

    Returns:
        First item and the item after the last of each range; none is empty.
    """
    end, edges = len(work), [0]
    twice = 0.0 if again is None else float(again.mean())
    each = (float(work[-1]) + (shares - 1) * twice) / shares
    done = each
    for _ in range(shares - 1):
        edge = (bisect_left(work, done) + multiple // 2) // multiple * multiple
        if edge >= end:
            break
        if edge > edges[-1]:
            edges.append(edge)
        done += each - (0.0 if again is None else float(again[edge]))
    return list(pairwise([*edges, end]))
