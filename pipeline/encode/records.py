"""What a run of the encoder says while it works and when it is done: plain data, picklable and JSON-ready."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from data_schemas.locations import LocationField
from data_schemas.records import StoreHeader
from encoders.quality import psnr_of_error
from pipeline.encode.job import EncodeJob
from pipeline.format import list_counts
from pipeline.sources.base import NoteKind


class FailedImage(BaseModel):
    """One image that has no splats, or whose splats could not be renewed.

    Attributes:
        row: its row in the store.
        source_id: its name inside the source.
        reason: for people.
    """

    model_config = ConfigDict(frozen=True)

    row: int
    source_id: str
    reason: str


class NotedImage(BaseModel):
    """One image that was read, and of which something should be known.

    Attributes:
        row: its row in the store.
        source_id: its name inside the source.
        kind: one of NOTE_WORDS.
        text: what is particular to this image, or "".
    """

    model_config = ConfigDict(frozen=True)

    row: int
    source_id: str
    kind: NoteKind
    text: str = ""


class EncodePlan(BaseModel):
    """What is to be done, decided once; every block can then be encoded on its own, in any process.

    Attributes:
        job: as resolved, K included.
        store: path of the store.
        header: of the store.
        started: when planning began (UTC).
        images: images of the source that this job covers (``limit`` counted in).
        images_in_source: images of the whole source.
        rows: rows of the store once the new ones are appended.
        new: rows that the store did not have.
        done: images of this job that the store already holds, to be checked by content.
        failed_before: images of this job that failed in an earlier run, to be tried again.
        removed: rows whose image is no longer in the source; they stay as they are.
        blocks: numbers of the blocks that hold images of this job, ascending.
        exists: whether the store was there before.
        aligned: whether row n of the store is image n of the source, so that names need not be looked up.
        engine_choice: why this engine, where the job left it open.
    """

    model_config = ConfigDict(frozen=True)

    job: EncodeJob
    store: LocationField
    header: StoreHeader
    started: datetime
    images: int
    images_in_source: int
    rows: int
    new: int
    done: int
    failed_before: int
    removed: int
    blocks: tuple[int, ...]
    exists: bool
    aligned: bool
    engine_choice: str = ""

    @property
    def pending(self) -> int:
        """Images that have no splats yet."""
        return self.images - self.done


class BlockSummary(BaseModel):
    """What happened to the rows of one block (or, merged, of several).

    Attributes:
        images: images of the job in this block.
        kept: done before, content unchanged.
        fitted: fitted in this run.
        reused: copied from a row of identical content instead of fitted.
        changed: of those fitted or reused, rows that held another content under the same name.
        retried: of those fitted or reused, rows that had failed before.
        repaired: of those fitted or reused, rows whose stored bytes were damaged.
        failed: images without splats, by name and reason.
        noted: images that were read, and of which something should be known.
        mean_error: summed mean squared error of the rows now done, in units of 255 squared.
        stopped: whether the user stopped the run inside this block; the rest of its images is left to the next run.
        written: whether the block was written at all.
        wall_seconds: time from reading to the end of the fit.
        fit_seconds: wall time inside the engine.
        core_seconds: CPU time of the engine's threads.
    """

    model_config = ConfigDict(frozen=True)

    images: int = 0
    kept: int = 0
    fitted: int = 0
    reused: int = 0
    changed: int = 0
    retried: int = 0
    repaired: int = 0
    failed: tuple[FailedImage, ...] = ()
    noted: tuple[NotedImage, ...] = ()
    mean_error: float = 0.0
    stopped: bool = False
    written: bool = False
    wall_seconds: float = 0.0
    fit_seconds: float = 0.0
    core_seconds: float = 0.0

    @property
    def done(self) -> int:
        """Images of the job that have splats now and were counted into ``mean_error``."""
        return self.kept + self.fitted + self.reused

    @property
    def psnr(self) -> float | None:
        """PSNR in dB of the mean squared error; None without images, ``inf`` where all are lossless."""
        if not self.done:
            return None
        return psnr_of_error(self.mean_error / self.done)

    @classmethod
    def merge(cls, summaries: Iterable[BlockSummary]) -> BlockSummary:
        """Adds summaries up."""
        parts = list(summaries)
        return cls(
            images=sum(part.images for part in parts),
            kept=sum(part.kept for part in parts),
            fitted=sum(part.fitted for part in parts),
            reused=sum(part.reused for part in parts),
            changed=sum(part.changed for part in parts),
            retried=sum(part.retried for part in parts),
            repaired=sum(part.repaired for part in parts),
            failed=tuple(image for part in parts for image in part.failed),
            noted=tuple(image for part in parts for image in part.noted),
            mean_error=math.fsum(part.mean_error for part in parts),
            stopped=any(part.stopped for part in parts),
            written=any(part.written for part in parts),
            wall_seconds=math.fsum(part.wall_seconds for part in parts),
            fit_seconds=math.fsum(part.fit_seconds for part in parts),
            core_seconds=math.fsum(part.core_seconds for part in parts),
        )


@dataclass(frozen=True)
class EncodeProgress:
    """How far a run is.

    Attributes:
        images: images of the job.
        processed: images decided so far: kept, fitted, reused or failed.
        fitted: fitted or reused so far in this run.
        kept: done before.
        failed: without splats.
        psnr: of the mean squared error so far in dB; None before the first image.
        seconds: since the run began.
        images_per_second: of those not kept; None before the first.
        seconds_left: by that rate; None before the first.
    """

    images: int
    processed: int
    fitted: int
    kept: int
    failed: int
    psnr: float | None
    seconds: float
    images_per_second: float | None
    seconds_left: float | None


class EncodeSummary(BaseModel):
    """What a run did; ``model_dump_json`` is what ``--json`` prints.

    Attributes:
        store: path of the store.
        rows: rows of the store.
        rows_done: rows that hold splats, of any run.
        images: images of the job.
        kept: done before, content unchanged.
        fitted: fitted in this run.
        reused: copied from a row of identical content.
        changed: rows whose image had another content than before.
        retried: rows that had failed before and were done now.
        repaired: rows whose stored bytes were damaged and were fitted again.
        removed: rows whose image is no longer in the source; kept.
        removed_duplicates: repeats that the source itself left out.
        left_out: other files where the images are: no images, or hidden.
        failed: images without splats, by name and reason.
        noted: images that were read, and of which something should be known: flattened, vanished, decoder.
        psnr: of the mean squared error in dB over the images of the job; None where none is done or all are lossless.
        wall_seconds: of the whole run.
        fit_seconds: wall time inside the engine.
        core_seconds: CPU time of the engine's threads.
        core_seconds_per_image: of the images fitted in this run; None where none was.
        engine: which one.
        engine_choice: why this one, where the job left it open.
        attribution: path of the text that credits the images, where they ask for it.
        report: path of report.html where one was written.
    """

    store: LocationField
    rows: int
    rows_done: int
    images: int
    kept: int
    fitted: int
    reused: int
    changed: int
    retried: int
    repaired: int
    removed: int
    removed_duplicates: int
    left_out: int = 0
    failed: tuple[FailedImage, ...]
    noted: tuple[NotedImage, ...] = ()
    psnr: float | None = Field(default=None, allow_inf_nan=False)
    wall_seconds: float
    fit_seconds: float
    core_seconds: float
    core_seconds_per_image: float | None
    engine: str
    engine_choice: str = ""
    attribution: LocationField | None = None
    report: LocationField | None = None


def list_outcomes(summary: BlockSummary | EncodeSummary) -> str:
    """What became of the images of a run or of a part of it, as ``1,000 fitted, 3 failed``; for logs.

    Args:
        summary: of the run, or of some blocks.
    """
    counts = {
        "fitted": summary.fitted,
        "copied from identical images": summary.reused,
        "kept": summary.kept,
        "failed": len(summary.failed),
    }
    return list_counts(counts)


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
