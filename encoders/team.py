"""Threads that work on one image together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from types import TracebackType

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

    def __enter__(self) -> Team:
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


def cut_evenly(work: NDArray[np.float64], shares: int, multiple: int = 1) -> list[tuple[int, int]]:
    """Cuts items into ranges of about equal work.

    Args:
        work: float64 [item], the work up to and with each item: it never falls.
        shares: ranges at most.
        multiple: of which every cut but the last is one.

    Returns:
        First item and the item after the last of each range; none is empty.
    """
    cuts = np.searchsorted(work, [work[-1] * share / shares for share in range(1, shares)]).tolist()
    edges = {0, *((cut + multiple // 2) // multiple * multiple for cut in cuts), len(work)}
    return list(pairwise(sorted(edge for edge in edges if edge <= len(work))))
