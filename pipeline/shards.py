"""Blocks in groups: what one task of a scheduler does."""

from __future__ import annotations

from collections.abc import Sequence

from encoders.engines import GPU_ENGINES
from pipeline.compute_choice import LOCAL

MOST_SHARDS = 200
"""Most shards of a run: a larger set gets larger shards."""

IMAGES_PER_SHARD = 4096
"""Fewest images of a shard: some seconds of work at least, against what a scheduler adds to each."""

BLOCKS_ON_A_CARD = 4
"""Blocks of a shard of an engine on a graphics card, where there are enough: reading the next block and writing the
last one overlap the fit inside a shard only, and a card is quicker than either."""

CARDS = 8
"""Cards that are thought to share a run with Dask: each is to get some shards."""


def shards(
    blocks: Sequence[int],
    block_rows: int,
    images_per_shard: int = IMAGES_PER_SHARD,
    *,
    most: int = MOST_SHARDS,
    blocks_per_shard: int = 1,
) -> list[tuple[int, ...]]:
    """Groups neighbouring blocks.

    Args:
        blocks: numbers of the blocks that have work, ascending.
        block_rows: rows of a block.
        images_per_shard: fewest images of a shard, the last one aside.
        most: most shards.
        blocks_per_shard: fewest blocks of a shard, the last one aside.

    Returns:
        at most ``most`` groups that hold every block once, in order.
    """
    size = max(-(-images_per_shard // block_rows), -(-len(blocks) // most), blocks_per_shard)
    return [tuple(blocks[first : first + size]) for first in range(0, len(blocks), size)]


def blocks_per_shard(engine: str, compute: str, blocks: int) -> int:
    """Fewest blocks of a shard.

    Args:
        engine: its name.
        compute: where the run is computed (``pipeline.compute_choice``).
        blocks: of the run.
    """
    if engine not in GPU_ENGINES:
        return 1
    return max(1, min(BLOCKS_ON_A_CARD, blocks // (2 if compute == LOCAL else 2 * CARDS)))
