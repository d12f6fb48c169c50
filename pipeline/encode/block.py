"""One block of a store: which rows need a fit, the fit itself, and its quality."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from data_schemas.records import RowBlock, RowState, StoreHeader
from encoders.base import Encoder, FitResult, FitStoppedError
from encoders.decode import decode_with_dead, to_uint8
from encoders.quality import psnr, ssim
from pipeline.encode.block_decision import BlockInput, Decision, decide, quantise, why_unreadable
from pipeline.encode.records import BlockSummary, FailedImage, NotedImage
from pipeline.sources.base import SourceImage

logger = logging.getLogger("splatspace.encode")

FEWEST_MEASURED = 16
"""Images that one thread measures at least."""


class BlockEncoder:
    """Fits the images of blocks with one engine, for one header.

    The engine is handed as many images at once as it likes best, and while it fits them, what it fitted before is
    rounded and measured.

    Args:
        header: of the store.
        encoder: the engine.
        workers: threads that measure.
        copy_of: finds a row of identical content that is fitted already: takes a content hash, returns a block of
            one row or None.
    """

    def __init__(
        self, header: StoreHeader, encoder: Encoder, workers: int, copy_of: Callable[[bytes], RowBlock | None]
    ) -> None:
        self.header = header
        self.encoder = encoder
        self.workers = workers
        self.copy_of = copy_of

    def run(
        self,
        block: BlockInput,
        *,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[BlockSummary], None] | None = None,
    ) -> tuple[RowBlock, BlockSummary]:
        """Brings a block up to date with its images.

        Args:
            block: as read.
            should_stop: polled; when it answers True, the images that are not fitted yet stay as they were.
            on_progress: called with what is decided of the block so far.

        Returns:
            The rows to be written and what happened to them.
        """
        rows = _copy_row(block.rows)
        decision, hashes = decide(block, self.header)
        tally = _Tally(block, decision, rows)
        for position, reason in decision.failed.items():
            if rows.state[position] != RowState.DONE:
                self._fail(rows, position, reason, hashes[position], block.images[position])
        for position in decision.relabelled:
            rows.label[position] = _image(block, position).label
        to_fit: list[int] = []
        for position in decision.fit:
            source = self.copy_of(hashes[position].tobytes())
            if source is None:
                to_fit.append(position)
            else:
                self._copy(rows, position, source, 0, hashes[position], _image(block, position))
                tally.reused.append(position)
        self._fit(block, rows, to_fit, hashes, tally, should_stop, on_progress)
        renewed = {*tally.fitted, *tally.reused, *tally.failed}
        for position, twin in decision.same.items():
            if twin not in renewed:
                continue  # stopped before it was fitted
            if twin in tally.failed:
                tally.failed[position] = tally.failed[twin]
                self._fail(rows, position, tally.failed[twin], hashes[position], _image(block, position))
            else:
                self._copy(rows, position, rows, twin, hashes[position], _image(block, position))
                tally.reused.append(position)
        return rows, tally.summary()

    def _fit(
        self,
        block: BlockInput,
        rows: RowBlock,
        to_fit: Sequence[int],
        hashes: NDArray[np.uint8],
        tally: _Tally,
        should_stop: Callable[[], bool] | None,
        on_progress: Callable[[BlockSummary], None] | None,
    ) -> None:
        """Fits images and puts them into their rows, a call of the engine after the other."""
        header = self.header
        size = max(1, self.encoder.images_per_call(header.height, header.width, header.channels))
        measuring: tuple[Sequence[int], Future[list[str]]] | None = None

        def settle(part: Sequence[int], problems: Sequence[str]) -> None:
            for position, problem in zip(part, problems, strict=True):
                image = _image(block, position)
                rows.label[position] = image.label
                rows.content_hash[position] = hashes[position]
                if problem:
                    tally.failed[position] = problem
                    self._fail(rows, position, problem, hashes[position], image)
                else:
                    tally.fitted.append(position)
            if on_progress is not None:
                on_progress(tally.summary())

        with ThreadPoolExecutor(1, "measure") as measurer:
            for first in range(0, len(to_fit), size):
                part = to_fit[first : first + size]
                pixels = np.stack([_pixels(block, position) for position in part])
                began = time.perf_counter()
                try:
                    result, finished = self._fit_some(pixels, should_stop)
                except InterruptedError:
                    tally.stopped = True
                    break
                tally.fit_seconds += time.perf_counter() - began
                tally.core_seconds += result.core_seconds
                if measuring is not None:
                    settle(measuring[0], measuring[1].result())
                # What is finished is kept: however often a run is stopped, it comes to its end.
                kept = np.flatnonzero(finished)
                part = [part[at] for at in kept.tolist()]
                splats, steps = result.splats[kept], result.steps[kept]
                measuring = None
                if part:
                    measuring = part, measurer.submit(self._store, rows, part, pixels[kept], splats, steps)
                if not finished.all():
                    tally.stopped = True
                    break
            if measuring is not None:
                settle(measuring[0], measuring[1].result())

    def _fit_some(
        self, pixels: NDArray[np.uint8], should_stop: Callable[[], bool] | None
    ) -> tuple[FitResult, NDArray[np.bool_]]:
        """Fits a batch; which of its images are finished, where it was stopped."""
        try:
            return self.encoder.fit(pixels, should_stop=should_stop), np.ones(len(pixels), np.bool_)
        except FitStoppedError as stopped:
            return stopped.result, stopped.finished

    def _store(
        self,
        rows: RowBlock,
        part: Sequence[int],
        pixels: NDArray[np.uint8],
        splats: NDArray[np.float32],
        steps: NDArray[np.int32],
    ) -> list[str]:
        """Rounds and measures a fitted batch and puts it in its rows; returns the problem of each image or ""."""
        header, at = self.header, np.asarray(part)
        rows.steps[at] = steps
        rows.state[at] = RowState.DONE
        rows.failure[at] = ""
        if rows.image is not None:
            rows.image[at] = pixels
        if not header.gaussians:
            return [""] * len(at)  # images only: nothing to decode or to measure
        view = {
            "layout": header.splat_layout,
            "codec": header.codec,
            "height": header.height,
            "width": header.width,
            "workers": 1,
        }

        def some(these: slice) -> list[str]:
            here = at[these]
            stored, problems = quantise(splats[these], header)
            decoded, dead = decode_with_dead(stored, **view)
            decoded = to_uint8(decoded)
            rows.splats[here] = stored
            rows.psnr[here] = psnr(decoded, pixels[these])
            rows.ssim[here] = ssim(decoded, pixels[these])
            rows.dead[here] = dead
            return problems

        size = max(FEWEST_MEASURED, -(-len(at) // self.workers))
        slices = [slice(first, first + size) for first in range(0, len(at), size)]
        if len(slices) == 1:
            return some(slices[0])
        with ThreadPoolExecutor(self.workers, "measure") as pool:
            return [problem for problems in pool.map(some, slices) for problem in problems]

    def _copy(
        self,
        rows: RowBlock,
        position: int,
        source: RowBlock,
        at: int,
        digest: NDArray[np.uint8],
        image: SourceImage,
    ) -> None:
        """Fills a row from one of identical content."""
        for name in ("splats", "psnr", "ssim", "steps", "dead"):
            getattr(rows, name)[position] = getattr(source, name)[at]
        if rows.image is not None and image.pixels is not None:
            rows.image[position] = image.pixels
        rows.label[position] = image.label
        rows.content_hash[position] = digest
        rows.state[position] = RowState.DONE
        rows.failure[position] = ""

    def _fail(
        self,
        rows: RowBlock,
        position: int,
        reason: str,
        digest: NDArray[np.uint8],
        image: SourceImage | None,
    ) -> None:
        """Makes a row FAILED: the reason, the source pixels where there are any, and nothing that looks fitted."""
        blank = RowBlock.empty(1, self.header)
        for name in ("splats", "psnr", "ssim", "steps", "dead"):
            getattr(rows, name)[position] = getattr(blank, name)[0]
        if rows.image is not None:
            rows.image[position] = 0
            if image is not None and image.pixels is not None and not why_unreadable(image, self.header):
                rows.image[position] = image.pixels
        rows.label[position] = -1 if image is None else image.label
        rows.content_hash[position] = digest
        rows.state[position] = RowState.FAILED
        rows.failure[position] = reason
        logger.info("%s: %s", rows.source_id[position], reason)


class _Tally:
    """Counts what happens to the rows of one block."""

    def __init__(self, block: BlockInput, decision: Decision, rows: RowBlock) -> None:
        self.block, self.decision, self.rows = block, decision, rows
        self.fitted: list[int] = []
        self.reused: list[int] = []
        self.failed = dict(decision.failed)
        self.stopped = False
        self.fit_seconds = 0.0
        self.core_seconds = 0.0

    def summary(self) -> BlockSummary:
        """What happened so far."""
        block, decision, rows = self.block, self.decision, self.rows
        renewed = {*self.fitted, *self.reused}
        done = [*decision.kept, *sorted(renewed)]
        # A row that could be neither read nor fitted makes the block new only where its state changes.
        newly_failed = any(rows.state[position] == RowState.FAILED for position in self.failed)
        return BlockSummary(
            images=sum(image is not None for image in block.images),
            kept=len(decision.kept),
            fitted=len(self.fitted),
            reused=len(self.reused),
            changed=len(renewed.intersection(decision.changed)),
            retried=len(renewed.intersection(decision.retried)),
            repaired=len(renewed) if block.repaired else 0,
            failed=tuple(
                FailedImage(row=block.first_row + p, source_id=str(rows.source_id[p]), reason=self.failed[p])
                for p in sorted(self.failed)
            ),
            noted=tuple(
                NotedImage(row=block.first_row + p, source_id=image.identifier, kind=note.kind, text=note.text)
                for p, image in enumerate(block.images)
                if image is not None
                for note in image.notes
            ),
            # An image without a fit has no error.
            mean_error=float(np.nansum(10.0 ** (-rows.psnr[done].astype(np.float64) / 10))),
            stopped=self.stopped,
            written=bool(renewed or decision.relabelled or newly_failed),
            wall_seconds=time.perf_counter() - block.started,
            fit_seconds=self.fit_seconds,
            core_seconds=self.core_seconds,
        )


def _copy_row(rows: RowBlock) -> RowBlock:
    return replace(rows, **{name: None if array is None else array.copy() for name, array in vars(rows).items()})


def _image(block: BlockInput, position: int) -> SourceImage:
    image = block.images[position]
    if image is None:
        raise LookupError(f"row {block.first_row + position} has no image in this job")
    return image


def _pixels(block: BlockInput, position: int) -> NDArray[np.uint8]:
    pixels = _image(block, position).pixels
    if pixels is None:
        raise LookupError(f"row {block.first_row + position} has no pixels")
    return pixels
