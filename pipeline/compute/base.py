"""The contract of what carries out a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from encoders.base import Encoder
from pipeline.block_pipeline import BlockWatcher
from pipeline.encode_records import BlockSummary, EncodeSummary
from pipeline.sources.base import ImageSource

SourceFactory = Callable[[], ImageSource]
"""Opens the data set in the process that reads it; with Dask it is pickled."""

EncoderFactory = Callable[[], Encoder]
"""Makes the engine in the process that fits; with Dask it is pickled."""


class Compute(Protocol):
    """Carries out shards of one plan. Holds the store's writer lock for its whole life.

    Attributes:
        slots: shards that may be under way at once, from as many threads.
    """

    slots: int

    def encode(self, blocks: Sequence[int], *, watcher: BlockWatcher | None = None) -> BlockSummary:
        """Encodes one shard to its end; safe to repeat.

        Args:
            blocks: some of the plan's blocks; no two calls at once may share one.
            watcher: told how far it is.

        Returns:
            The merged summary; ``stopped`` where the run was stopped before the shard's end.

        Raises:
            SplatSpaceError: the shard failed; what it had finished is in the store.
        """
        ...

    def finish(self, summaries: Iterable[BlockSummary]) -> EncodeSummary:
        """Writes the record of the run into the store's header and commits.

        Args:
            summaries: of all shards, in any order.
        """
        ...
