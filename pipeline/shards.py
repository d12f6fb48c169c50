"""Blocks in groups: what one task of a scheduler does."""

from __future__ import annotations

from collections.abc import Sequence

MOST_SHARDS = 200
"""Most shards of a run: a larger set gets larger shards."""

IMAGES_PER_SHARD = 4096
"""Fewest images of a shard: some seconds of work at least, against what a scheduler adds to each."""


def shards(
    blocks: Sequence[int], block_rows: int, images_per_shard: int = IMAGES_PER_SHARD, *, most: int = MOST_SHARDS
) -> list[tuple[int, ...]]:
    """Groups neighbouring blocks.

    Args:
        blocks: numbers of the blocks that have work, ascending.
        block_rows: rows of a block.
        images_per_shard: fewest images of a shard, the last one aside.
        most: most shards.

    Returns:
        at most ``most`` groups that hold every block once, in order.
    """
    size = max(-(-images_per_shard // block_rows), -(-len(blocks) // most), 1)
    return [tuple(blocks[first : first + size]) for first in range(0, len(blocks), size)]
