"""How far a run is, as a progress artifact: a bar on the page of the run."""

from __future__ import annotations

import threading
from contextvars import copy_context
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.artifacts import harmless
from pipeline.encode_records import BlockSummary, EncodePlan, EncodeProgress
from pipeline.progress import ProgressMeter

SECONDS_BETWEEN_UPDATES = 5.0
"""``prefect deployment run --watch`` prints a line for each update."""

SECONDS_FOR_THE_LAST = 2.0
"""A server that does not answer must not hold up the end of a run."""


class ProgressArtifact:
    """Shows the share of images that are decided while its context lasts; never raises.

    A thread of its own talks to the server, so that a slow one does not slow down the fits. It is a
    ``BlockWatcher`` that any thread may tell.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: EncodePlan) -> None:
        self._images = plan.images
        self._processed = 0
        self._meter = ProgressMeter(plan, self._note)
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._artifact: UUID | None = None
        context = copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._send), name="progress", daemon=True)

    def within_block(self, summary: BlockSummary) -> None:
        """The block under way has come so far."""
        with self._turn:
            self._meter.within_block(summary)

    def block_done(self, summary: BlockSummary) -> None:
        """A block, or several, are done."""
        with self._turn:
            self._meter.block_done(summary)

    def __enter__(self) -> Self:
        with harmless("progress artifact"):
            made = create_progress_artifact(progress=0.0, description="images encoded")
            self._artifact = made if isinstance(made, UUID) else None
        if self._artifact is not None:
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._artifact is not None:
            self._thread.join(SECONDS_FOR_THE_LAST)

    def _note(self, progress: EncodeProgress) -> None:
        self._processed = progress.processed

    def _percent(self) -> float:
        # Blocks of a shard that was tried again are told twice.
        return min(100.0, 100.0 * self._processed / max(self._images, 1))

    def _send(self) -> None:
        sent = 0.0
        ended = False
        while not ended:
            ended = self._ended.wait(SECONDS_BETWEEN_UPDATES)
            percent = self._percent()
            if self._artifact is not None and percent != sent:
                with harmless("progress artifact"):
                    update_progress_artifact(self._artifact, progress=percent)
                sent = percent
