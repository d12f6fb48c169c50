"""Blocks one after the other: the next is read and the last is written while this one is fitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from data_schemas.records import RowBlock
from pipeline.block_decision import BlockInput
from pipeline.encode_records import BlockSummary
from pipeline.encode_session import EncodeSession


class BlockWatcher(Protocol):
    """Is told how far blocks are."""

    def within_block(self, summary: BlockSummary) -> None:
        """The block under way has come so far."""
        ...

    def block_done(self, summary: BlockSummary) -> None:
        """A block, or several, are done."""
        ...


def encode_in_order(
    session: EncodeSession,
    blocks: Sequence[int],
    *,
    watcher: BlockWatcher | None = None,
    should_stop: Callable[[], bool] | None = None,
    may_write: Callable[[BlockSummary], bool] | None = None,
) -> list[BlockSummary]:
    """Encodes blocks in order: one thread reads ahead by one block, one writes behind by one.

    Args:
        session: of this process.
        blocks: which blocks.
        watcher: told after each batch of the engine and each block.
        should_stop: polled; when it answers True, what is fitted is written and the rest is left.
        may_write: asked before a block is written; where it answers False, the block is left to another process.

    Returns:
        One summary for each block. Stopped, the list ends early, with a summary that says so.
    """
    summaries: list[BlockSummary] = []
    if not blocks:
        return summaries

    def settle(block: int, rows: RowBlock, summary: BlockSummary) -> BlockSummary:
        if summary.written:
            if may_write is not None and not may_write(summary):
                return BlockSummary(stopped=True)
            session.write(block, rows)
        return summary

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        reading: Future[BlockInput] = reader.submit(session.read, blocks[0])
        writing: Future[BlockSummary] | None = None
        stopped = False
        try:
            for number, block in enumerate(blocks):
                if should_stop is not None and should_stop():
                    stopped = True
                    break
                content = reading.result()
                if number + 1 < len(blocks):
                    reading = reader.submit(session.read, blocks[number + 1])
                on_progress = None if watcher is None else watcher.within_block
                rows, summary = session.fit(content, should_stop=should_stop, on_progress=on_progress)
                if writing is not None:
                    done, writing = writing, None
                    summaries.append(done.result())
                writing = writer.submit(settle, block, rows, summary)
                if watcher is not None:
                    watcher.block_done(summary)
                if summary.stopped:
                    break
        finally:
            reading.cancel()
            try:
                # A block that is on its way to the disk arrives, or its error is raised.
                if writing is not None:
                    summaries.append(writing.result())
            finally:
                session.forget_unwritten()
        if stopped:
            summaries.append(BlockSummary(stopped=True))
    return summaries
