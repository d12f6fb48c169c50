"""How far a run is: counts, running PSNR, rate and time left."""

from __future__ import annotations

import time
from collections.abc import Callable

from pipeline.encode_records import BlockSummary, EncodePlan, EncodeProgress


class ProgressMeter:
    """Adds up the blocks that are done and the one that is under way.

    Args:
        plan: of the run.
        report: called with each new state; None to only count.
    """

    def __init__(self, plan: EncodePlan, report: Callable[[EncodeProgress], None] | None) -> None:
        self._plan = plan
        self._report = report
        self._finished = BlockSummary()
        self._began = time.perf_counter()

    def within_block(self, summary: BlockSummary) -> None:
        """The block under way has come so far."""
        self._say(BlockSummary.merge((self._finished, summary)))

    def block_done(self, summary: BlockSummary) -> None:
        """A block is done."""
        self._finished = BlockSummary.merge((self._finished, summary))
        self._say(self._finished)

    def _say(self, total: BlockSummary) -> None:
        if self._report is None:
            return
        seconds = time.perf_counter() - self._began
        renewed = total.fitted + total.reused
        decided = renewed + len(total.failed)
        rate = decided / seconds if decided and seconds > 0 else None
        self._report(
            EncodeProgress(
                images=self._plan.images,
                processed=total.done + len(total.failed),
                fitted=renewed,
                kept=total.kept,
                failed=len(total.failed),
                psnr=total.psnr,
                seconds=seconds,
                images_per_second=rate,
                seconds_left=None if rate is None else max(self._plan.pending - decided, 0) / rate,
            )
        )
