"""How far a run is: a bar on Prefect's page, and a line in the log from time to time."""

from __future__ import annotations

import logging
import threading
from contextvars import copy_context
from dataclasses import replace
from time import monotonic
from types import TracebackType
from typing import Self
from uuid import UUID

from prefect.artifacts import create_progress_artifact, update_progress_artifact

from flows.artifacts.report import harmless
from pipeline.cli.progress_bar import words
from pipeline.encode.records import BlockSummary, EncodePlan, EncodeProgress, ProgressMeter

logger = logging.getLogger("splatspace.flows.artifacts.progress")

SECONDS_BETWEEN_UPDATES = 5.0
"""``prefect deployment run --watch`` prints a line for each update."""

SECONDS_BETWEEN_LINES = 15.0
"""``--watch`` shows that a bar has moved and not where to; so the log says it too."""

SECONDS_FOR_THE_LAST = 2.0
"""A server that does not answer must not hold up the end of a run."""


class ProgressBar:
    """Shows how far something is while its context lasts; never raises.

    A thread of its own talks to the server, so that a slow one does not slow down the work: to show something is to
    keep two values. From time to time it also writes a line into the log of the run.

    Args:
        description: what is shown beside the bar until something else is.
    """

    def __init__(self, description: str) -> None:
        self._shown: tuple[float, str] = (0.0, description)
        self._ended = threading.Event()
        self._artifact: UUID | None = None
        context = copy_context()
        self._thread = threading.Thread(target=lambda: context.run(self._send), name="progress", daemon=True)

    def show(self, share: float, words: str | None = None) -> None:
        """Keeps what the bar shall show next.

        Args:
            share: of the work that is done, 0 to 1; more counts as 1.
            words: beside the bar; None keeps those before.
        """
        self._shown = (100.0 * min(1.0, max(0.0, share)), self._shown[1] if words is None else words)

    def __enter__(self) -> Self:
        with harmless("progress artifact"):
            made = create_progress_artifact(progress=0.0, description=self._shown[1])
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

    def _send(self) -> None:
        sent = self._shown
        ended, written = False, monotonic()
        while not ended:
            ended = self._ended.wait(SECONDS_BETWEEN_UPDATES)
            shown = self._shown
            if self._artifact is None or shown == sent:
                continue
            with harmless("progress artifact"):
                update_progress_artifact(self._artifact, progress=shown[0], description=shown[1])
            sent = shown
            # The end has a line of its own.
            if not ended and monotonic() - written >= SECONDS_BETWEEN_LINES:
                logger.info("%.0f %%: %s", *shown)
                written = monotonic()


class ProgressArtifact(ProgressBar):
    """Shows the share of images of an encoding that are decided. It is a ``BlockWatcher`` that any thread may tell.

    Args:
        plan: of the run.
    """

    def __init__(self, plan: EncodePlan) -> None:
        super().__init__("images encoded")
        self._images = plan.images
        self._meter = ProgressMeter(plan, self._note)
        self._turn = threading.Lock()

    def within_block(self, summary: BlockSummary) -> None:
        """The block under way has come so far."""
        with self._turn:
            self._meter.within_block(summary)

    def block_done(self, summary: BlockSummary) -> None:
        """A block, or several, are done."""
        with self._turn:
            self._meter.block_done(summary)

    def _note(self, progress: EncodeProgress) -> None:
        # Blocks of a shard that was tried again are told twice: more than all images counts as all.
        processed = min(progress.processed, self._images)
        said = f"{processed:,} of {self._images:,} images"
        if processed == self._images:
            progress = replace(progress, seconds_left=None)
        self.show(processed / max(self._images, 1), ", ".join(filter(None, [said, words(progress)])))
