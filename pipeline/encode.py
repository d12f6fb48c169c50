"""The main job: images to a store.

    summary = encode(resolve_job("demo", "demo.zarr"))

or in pieces, each of which may run in a process of its own: :func:`plan_encode`, :func:`encode_block` for each of
``plan.blocks``, :func:`finish_encode`. The store is the only truth: what is done is read from its rows, so running
again continues, and a run that was killed ends with the same rows as one that was not.
"""

from __future__ import annotations

import importlib.metadata
import logging
import platform
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime

import numpy as np

from data_schemas.errors import StoppedError
from data_schemas.records import RowBlock, RowState, RunRecord
from data_schemas.store import SplatStore
from data_schemas.stores import open_store
from encoders.base import Encoder
from encoders.engines import create_encoder
from pipeline.block_decision import BlockInput
from pipeline.download import Progress
from pipeline.encode_records import BlockSummary, EncodePlan, EncodeProgress, EncodeSummary, FailedImage
from pipeline.encode_session import EncodeSession
from pipeline.jobs import EncodeJob
from pipeline.planning import attribution_path, plan_encode, survey
from pipeline.progress import ProgressMeter
from pipeline.sources.base import ImageSource

__all__ = [
    "BlockSummary",
    "EncodePlan",
    "EncodeProgress",
    "EncodeSession",
    "EncodeSummary",
    "FailedImage",
    "encode",
    "encode_block",
    "encode_blocks",
    "finish_encode",
    "plan_encode",
]

logger = logging.getLogger("splatspace.encode")

RECORDED_PACKAGES = ("splatspace", "numpy", "numba", "torch", "zarr", "h5py")


def encode(
    job: EncodeJob,
    *,
    progress: Callable[[EncodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    source: ImageSource | None = None,
    encoder: Encoder | None = None,
    downloading: Progress | None = None,
) -> EncodeSummary:
    """Encodes a data set into a store, or continues one.

    Reading the next block, fitting this one and writing the last one overlap; memory holds three blocks.

    Args:
        job: from ``pipeline.jobs.resolve_job``.
        progress: called after each batch of the engine and each block.
        should_stop: polled; when it answers True the run ends after writing what is whole.
        source: read from it instead of opening ``job.dataset``.
        encoder: fit with it instead of the job's engine.
        downloading: told of downloads.

    Raises:
        StoppedError: ``should_stop`` answered True; run again to continue.
        SplatSpaceError: see :func:`plan_encode`; what was finished is in the store.
    """
    ready = survey(job, source=source, encoder=encoder, downloading=downloading)
    plan = ready.plan
    meter = ProgressMeter(plan, progress)
    with EncodeSession(plan, source=ready.source, encoder=ready.encoder) as session:
        summaries: list[BlockSummary] = []
        try:
            _pipeline(session, plan.blocks, summaries, meter, should_stop)
        except InterruptedError:
            _record_run(session.store, plan, summaries, ready.encoder)
            done = BlockSummary.merge(summaries)
            raise StoppedError(
                f"Stopped after {done.done + len(done.failed)} of {plan.images} images; {plan.store} keeps them",
                next_step="run the same command again to continue",
            ) from None
        return _finish(session.store, plan, summaries, ready.encoder)


def encode_block(plan: EncodePlan, block: int, *, session: EncodeSession | None = None) -> BlockSummary:
    """Encodes one block; safe to repeat.

    Args:
        plan: what ``plan_encode`` returned.
        block: one of ``plan.blocks``.
        session: of this process, where one is open; else source, store and engine are opened for this block alone.
    """
    if session is not None:
        return session.encode_block(block)
    return encode_blocks(plan, [block])[0]


def encode_blocks(
    plan: EncodePlan, blocks: Sequence[int], *, session: EncodeSession | None = None, exclusive: bool = True
) -> list[BlockSummary]:
    """Encodes some blocks with reading, fitting and writing overlapped; safe to repeat.

    Args:
        plan: what ``plan_encode`` returned.
        blocks: some of ``plan.blocks``.
        session: of this process, where one is open.
        exclusive: see :class:`EncodeSession`.

    Returns:
        One summary for each block, in order.
    """
    summaries: list[BlockSummary] = []
    if session is not None:
        _pipeline(session, blocks, summaries, None, None)
        return summaries
    with EncodeSession(plan, exclusive=exclusive) as own:
        _pipeline(own, blocks, summaries, None, None)
    return summaries


def finish_encode(plan: EncodePlan, summaries: Iterable[BlockSummary]) -> EncodeSummary:
    """Writes the record of the run into the store's header and commits.

    Args:
        plan: what ``plan_encode`` returned.
        summaries: of all blocks of the run, in any order.
    """
    header = plan.header
    encoder = create_encoder(
        plan.job.engine, plan.job.fit_settings(header.height, header.width), workers=plan.job.workers
    )
    with open_store(plan.store, "a") as store:
        return _finish(store, plan, list(summaries), encoder)


def _pipeline(
    session: EncodeSession,
    blocks: Sequence[int],
    summaries: list[BlockSummary],
    meter: ProgressMeter | None,
    should_stop: Callable[[], bool] | None,
) -> None:
    """Encodes blocks in order: one thread reads ahead by one block, one writes behind by one."""
    if not blocks:
        return

    def settle(block: int, rows: RowBlock, summary: BlockSummary) -> BlockSummary:
        if summary.written:
            session.write(block, rows)
        return summary

    with ThreadPoolExecutor(1, "read") as reader, ThreadPoolExecutor(1, "write") as writer:
        reading: Future[BlockInput] = reader.submit(session.read, blocks[0])
        writing: Future[BlockSummary] | None = None
        try:
            for number, block in enumerate(blocks):
                if should_stop is not None and should_stop():
                    raise InterruptedError
                content = reading.result()
                if number + 1 < len(blocks):
                    reading = reader.submit(session.read, blocks[number + 1])
                on_progress = None if meter is None else meter.within_block
                rows, summary = session.fit(content, should_stop=should_stop, on_progress=on_progress)
                if writing is not None:
                    summaries.append(writing.result())
                writing = writer.submit(settle, block, rows, summary)
                if meter is not None:
                    meter.block_done(summary)
                if summary.stopped:
                    raise InterruptedError
        finally:
            reading.cancel()
            # A block that is on its way to the disk arrives, or its error is raised.
            if writing is not None:
                summaries.append(writing.result())


def _finish(store: SplatStore, plan: EncodePlan, summaries: Sequence[BlockSummary], encoder: Encoder) -> EncodeSummary:
    record = _record_run(store, plan, summaries, encoder)
    total = BlockSummary.merge(summaries)
    fitted = total.fitted
    psnr = total.psnr
    attribution = attribution_path(plan.store)
    return EncodeSummary(
        store=plan.store,
        rows=len(store),
        rows_done=int(np.count_nonzero(store.read(["state"])["state"] == RowState.DONE)),
        images=plan.images,
        kept=total.kept,
        fitted=fitted,
        reused=total.reused,
        changed=total.changed,
        retried=total.retried,
        repaired=total.repaired,
        removed=plan.removed,
        removed_duplicates=plan.header.source.removed_duplicates,
        failed=total.failed,
        psnr=None if psnr is None or not np.isfinite(psnr) else psnr,
        wall_seconds=record.wall_seconds,
        fit_seconds=record.fit_seconds,
        core_seconds=record.core_seconds,
        core_seconds_per_image=record.core_seconds / fitted if fitted else None,
        engine=record.engine,
        attribution=attribution if plan.header.source.attribution else None,
    )


def _record_run(store: SplatStore, plan: EncodePlan, summaries: Sequence[BlockSummary], encoder: Encoder) -> RunRecord:
    """Makes the record of this run; it enters the header where the run changed a row."""
    total = BlockSummary.merge(summaries)
    finished = datetime.now(UTC)
    record = RunRecord(
        started=plan.started,
        finished=finished,
        images=total.fitted,
        failed=len(total.failed),
        reused=total.reused,
        wall_seconds=max((finished - plan.started).total_seconds(), 0.0),
        fit_seconds=total.fit_seconds,
        core_seconds=total.core_seconds,
        workers=plan.job.workers,
        engine=encoder.name,
        device=encoder.device,
        versions=_versions(),
    )
    if total.written:
        header = store.header
        store.set_header(header.model_copy(update={"updated": finished, "runs": (*header.runs, record)}))
    store.commit()
    return record


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            logger.debug("%s is not installed as a package: its version is not recorded", package)
    return versions
