"""The main job: images to a store.

    summary = encode(resolve_job("demo", "demo.zarr"))

or in pieces: :func:`plan_encode`, then ``open_compute`` of ``pipeline.encode.compute``, which encodes any blocks of the
plan and writes the record of the run. The store is the only truth: what is done is read from its rows, so running again
continues, and a run that was killed ends with the same rows as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from data_schemas.errors import StoppedError
from data_schemas.stores.open import open_store
from encoders.base import Encoder
from pipeline.encode.compute import balanced_shards, check_compute, encode_shards, open_compute
from pipeline.encode.finish import finish_run
from pipeline.encode.inputs import encoder_for
from pipeline.encode.job import LOCAL, EncodeJob
from pipeline.encode.plan import plan_encode, survey
from pipeline.encode.records import BlockSummary, EncodePlan, EncodeProgress, EncodeSummary, FailedImage, ProgressMeter
from pipeline.encode.session import EncodeSession, encode_in_order
from pipeline.sources.base import ImageSource
from pipeline.sources.download import Progress

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

    Reading the next block, fitting this one and writing the last one overlap; memory holds three blocks (with Dask in
    each worker). Where it is computed changes no byte of the store.

    Args:
        job: from ``pipeline.encode.job.resolve_job``.
        progress: called after each batch of the engine and each block (with Dask after each shard).
        should_stop: polled; when it answers True the run ends after writing what is whole.
        source: read from it instead of opening ``job.dataset``; with Dask it is pickled.
        encoder: fit with it instead of the job's engine; with Dask it is pickled.
        downloading: told of downloads.

    Raises:
        StoppedError: ``should_stop`` answered True; run again to continue.
        SplatSpaceError: see :func:`plan_encode`; what was finished is in the store.
    """
    check_compute(job.compute, job.out)
    if encoder is None and job.refine != "none":
        # Inside: it runs this very function for its first fit.
        from pipeline.encode.refine import with_regression

        job = with_regression(job, progress=progress, should_stop=should_stop, source=source, downloading=downloading)
    ready = survey(job, source=source, encoder=encoder, downloading=downloading)
    plan = ready.plan
    meter = ProgressMeter(plan, progress)
    if job.compute == LOCAL:
        source, encoder = ready.source, ready.encoder
        groups: list[tuple[int, ...]] = [plan.blocks]
    else:
        groups = balanced_shards(plan)
    with open_compute(
        plan,
        should_stop=should_stop,
        source_factory=None if source is None else lambda: source,
        encoder_factory=None if encoder is None else lambda: encoder,
    ) as compute:
        summaries = encode_shards(compute, groups, meter)
        summary = compute.finish(summaries)
    done = BlockSummary.merge(summaries)
    if done.stopped:
        raise StoppedError(
            f"Stopped after {done.done + len(done.failed)} of {plan.images} images; {plan.store} keeps them",
            next_step="run the same command again to continue",
        )
    return summary


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
    if session is not None:
        return encode_in_order(session, blocks)
    with EncodeSession(plan, exclusive=exclusive) as own:
        return encode_in_order(own, blocks)


def finish_encode(plan: EncodePlan, summaries: Iterable[BlockSummary]) -> EncodeSummary:
    """Writes the record of the run into the store's header and commits.

    Args:
        plan: what ``plan_encode`` returned.
        summaries: of all blocks of the run, in any order.
    """
    header = plan.header
    encoder = encoder_for(plan.job, plan.job.fit_settings(header.height, header.width), workers=plan.job.workers)
    with open_store(plan.store, "a") as store:
        return finish_run(store, plan, summaries, encoder)
