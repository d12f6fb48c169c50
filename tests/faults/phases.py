"""Where a run is, for whoever is about to kill it: counters in memory that two processes share."""

from __future__ import annotations

import functools
import mmap
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pipeline.encode.fit as encode_module
from data_schemas.records import RowBlock, RowState
from pipeline.encode.block_decision import BlockInput
from pipeline.encode.compute.local import LocalCompute
from pipeline.encode.plan import Survey
from pipeline.encode.session import EncodeSession

PHASES = ("planning", "opening", "reading", "fitting", "writing", "finishing")

WRITTEN, PLANNED, REFITTED, ENDED = range(len(PHASES), len(PHASES) + 4)
"""Slots behind the phases: rows that the store took, rows found done by the plan, rows fitted twice, end of the run."""


class Board:
    """Shared with every fork of the process that makes it.

    A phase's number is how many threads are in it. The other slots are those named above.
    """

    def __init__(self) -> None:
        # Anonymous and shared; it lives as long as a process that has it.
        self.slots: NDArray[np.int64] = np.frombuffer(mmap.mmap(-1, 4096), np.int64)

    def clear(self) -> None:
        """For the next run."""
        self.slots[:] = 0

    def active(self) -> list[str]:
        """The phases that the run is in at this moment."""
        return [name for name, count in zip(PHASES, self.slots, strict=False) if count > 0]

    def during(self, phase: str, action: Callable[..., Any]) -> Callable[..., Any]:
        """``action``, and its phase is shown while it runs."""
        at = PHASES.index(phase)

        @functools.wraps(action)
        def shown(*arguments: Any, **named: Any) -> Any:
            self.slots[at] += 1
            try:
                return action(*arguments, **named)
            finally:
                self.slots[at] -= 1

        return shown

    def watch(self) -> None:
        """Makes the encoder of this process show its phases here."""

        def survey(*arguments: Any, **named: Any) -> Survey:
            ready = original_survey(*arguments, **named)
            self.slots[PLANNED] = ready.plan.done
            return ready

        def write(session: EncodeSession, block: int, rows: RowBlock) -> None:
            original_write(session, block, rows)
            self.slots[WRITTEN] += np.count_nonzero(rows.state == RowState.DONE)

        def fit(session: EncodeSession, block: BlockInput, **named: Any) -> Any:
            before = np.count_nonzero(block.rows.state == RowState.DONE)
            rows, summary = original_fit(session, block, **named)
            self.slots[REFITTED] += before - summary.kept
            return rows, summary

        original_survey, original_write, original_fit = encode_module.survey, EncodeSession.write, EncodeSession.fit
        encode_module.survey = self.during("planning", survey)
        EncodeSession.__init__ = self.during("opening", EncodeSession.__init__)
        EncodeSession.read = self.during("reading", EncodeSession.read)
        EncodeSession.fit = self.during("fitting", fit)
        EncodeSession.write = self.during("writing", write)
        LocalCompute.finish = self.during("finishing", LocalCompute.finish)
