"""Shuffling a store that is larger than the memory: shards in random order, and rows in random order within them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from data_schemas.errors import JobError

if TYPE_CHECKING:
    from pipeline.dataset.splat_dataset import SplatDataset

SHARE_OF_MEMORY = 0.75
"""Of what a data set may hold, for the shards that are mixed: those of the next batches come in meanwhile."""


class ShardBatch(list[int]):
    """Positions of a batch that is followed by others of the same shards: reading these whole pays."""


class ShardShuffleSampler(Sampler[list[int]]):
    """Batches of positions in which every shard is read about once an epoch.

    For ``DataLoader(dataset, sampler=sampler, batch_size=None)``, which takes batches as the data set makes them (the
    fastest), or ``DataLoader(dataset, batch_sampler=sampler)``, which collates items.

    Shards (blocks of the store, one file for each array) come in random order, as many together as the memory of the
    data set holds, and their rows are shuffled among each other. Where the whole set is in memory this is the plain
    shuffle of all rows. Every row comes exactly once in an epoch.

    With several workers each shard is dealt to one of them, and its rows to batches that this worker will be asked for:
    ``DataLoader`` gives batch i to worker i modulo their number. So no shard is read twice.

    Args:
        dataset: whose rows are drawn.
        batch_size: rows of a batch; the last one of an epoch may be smaller.
        num_workers: as given to the ``DataLoader``.
        seed: the order of an epoch follows from it and the number of the epoch alone (and from the memory and the
            number of workers).
        drop_last: leave out the last batch where it is smaller.

    Raises:
        JobError: a number outside its range.
    """

    def __init__(
        self, dataset: SplatDataset, batch_size: int, *, num_workers: int = 0, seed: int = 0, drop_last: bool = False
    ) -> None:
        for name, value, least in (("batch_size", batch_size, 1), ("num_workers", num_workers, 0), ("seed", seed, 0)):
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise JobError(f"{name}={value!r}", allowed=f"a whole number from {least} on")
        self._shards = dataset.shards
        self._together = len(dataset) if dataset.in_memory else dataset.rows_in_memory(num_workers)
        self._streams = 1 if dataset.in_memory else max(1, num_workers)
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last
        self.epoch = 0
        self._rows = len(dataset)

    def set_epoch(self, epoch: int) -> None:
        """Draws another order from now on, as of ``torch.utils.data.DistributedSampler``."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(self._rows, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches of the epoch."""
        random = np.random.default_rng((self.seed, self.epoch))
        streams: list[list[NDArray[np.int64]]] = [[] for _ in range(self._streams)]
        dealt = [0] * self._streams
        for shard in random.permutation(len(self._shards)):
            least = dealt.index(min(dealt))
            streams[least].append(self._shards[shard])
            dealt[least] += len(self._shards[shard])
        batches: list[list[NDArray[np.int64]]] = []
        rests: list[NDArray[np.int64]] = []
        for stream in streams:
            order = self._mixed(stream, random)
            whole = len(order) // self.batch_size * self.batch_size
            batches.append(list(order[:whole].reshape(-1, self.batch_size)))
            rests.append(order[whole:])
        for number in range(max(map(len, batches))):
            for stream in batches:
                if number < len(stream):
                    yield ShardBatch(stream[number].tolist())
        # What fills no batch of one worker comes last, together.
        rest = np.concatenate(rests)
        for start in range(0, len(rest), self.batch_size):
            part = rest[start : start + self.batch_size]
            if len(part) == self.batch_size or not self.drop_last:
                yield ShardBatch(part.tolist())

    def _mixed(self, shards: list[NDArray[np.int64]], random: np.random.Generator) -> NDArray[np.int64]:
        """Positions of some shards, shuffled within groups of neighbours in the list that fit into memory."""
        groups: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        waiting: list[NDArray[np.int64]] = []
        count = 0
        for shard in shards:
            if waiting and count + len(shard) > self._together:
                groups.append(random.permutation(np.concatenate(waiting)))
                waiting, count = [], 0
            waiting.append(shard)
            count += len(shard)
        if waiting:
            groups.append(random.permutation(np.concatenate(waiting)))
        return np.concatenate(groups)
