"""Arrays that are used again: what a rendering keeps for its gradient is as large in the next step of a training.

Memory that is new to a process is cleared page by page by the system, which takes longer than the sums that fill it.
"""

from __future__ import annotations

import threading
import weakref

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MOST_BYTES = 64 << 20
"""What lies spare at most; the rest goes back to the system."""


class SpareMemory:
    """Flat float32 arrays that nothing refers to any more, for any thread.

    Args:
        most_bytes: kept at most.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._spare: list[NDArray[np.float32]] = []
        # Tensors may die within a collection of garbage that begins while the lock is held.
        self._lock = threading.RLock()

    def take(self) -> NDArray[np.float32]:
        """The array that was given back last, of any length; its numbers are arbitrary."""
        with self._lock:
            return self._spare.pop() if self._spare else np.empty(0, np.float32)

    def give(self, memory: NDArray[np.float32]) -> None:
        """Takes back an array that nobody reads any more."""
        with self._lock:
            if memory.nbytes + sum(spare.nbytes for spare in self._spare) <= self._most_bytes:
                self._spare.append(memory)

    def lend(self, memory: NDArray[np.float32]) -> Tensor:
        """The array as a tensor; it is given back when that is gone."""
        view = memory[:]
        weakref.finalize(view, self.give, memory).atexit = False
        return torch.from_numpy(view)
