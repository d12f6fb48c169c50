"""Compiled calls on several threads; they hold no interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

Part = TypeVar("Part")
Result = TypeVar("Result")


def parts_of(images: int, threads: int) -> list[slice]:
    """Ranges of images: some for each thread, so that none waits long for another."""
    size = -(-images // (1 if threads == 1 else 4 * threads))
    return [slice(first, min(first + size, images)) for first in range(0, images, size)] if images else []


def on_threads(call: Callable[[Part], Result], parts: Sequence[Part], threads: int) -> list[Result]:
    """The results of all parts in order; in this thread where one is enough."""
    if threads == 1 or len(parts) <= 1:
        return [call(part) for part in parts]
    return list(_pool(os.getpid(), threads).map(call, parts))


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads that stay: starting them would cost as much as a small batch. A forked process has none of them."""
    return ThreadPoolExecutor(threads, thread_name_prefix="splats")
