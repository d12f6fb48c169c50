"""The main job: images to a store.

    summary = encode(resolve_job("demo", "demo.zarr"))

Command line, flows, notebooks and Dask all run this function. The store is the only truth: what is done is read from
its rows, so running again continues, and a run that was killed ends with the same rows as one that was not.
"""

from __future__ import annotations

from collections.abc import Callable

from encoders.base import Encoder
from pipeline.encode.compute import check_compute
from pipeline.encode.fit import RunShards, fit_store
from pipeline.encode.job import EncodeJob
from pipeline.encode.records import EncodeProgress, EncodeSummary
from pipeline.sources.base import ImageSource
from pipeline.sources.download import Progress


def encode(
    job: EncodeJob,
    *,
    progress: Callable[[EncodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    source: ImageSource | None = None,
    encoder: Encoder | None = None,
    downloading: Progress | None = None,
    run_shards: RunShards | None = None,
) -> EncodeSummary:
    """Encodes a data set into a store, or continues one; with ``refine`` after the first fit that it needs.

    Reading the next block, fitting this one and writing the last one overlap; memory holds three blocks (with Dask in
    each worker). Where it is computed changes no byte of the store.

    Args:
        job: from ``pipeline.encode.job.resolve_job``.
        progress: called after each batch of the engine and each block (with Dask after each shard).
        should_stop: polled; when it answers True the run ends after writing what is whole.
        source: read from it instead of opening ``job.dataset``; with Dask it is pickled.
        encoder: fit with it instead of the job's engine; with Dask it is pickled.
        downloading: told of downloads.
        run_shards: carries out each plan (the first fit's too) instead of this process, and tells of progress itself.

    Returns:
        What was done.

    Raises:
        StoppedError: ``should_stop`` answered True; run again to continue.
        SplatSpaceError: see ``pipeline.encode.plan.plan_encode``; what was finished is in the store.
    """
    check_compute(job.compute, job.out)
    if encoder is None and job.refine != "none":
        # Inside: it brings much linear algebra, which a job without a second fit does not load.
        from pipeline.encode.refine import with_regression

        job = with_regression(
            job, progress=progress, should_stop=should_stop, source=source, downloading=downloading,
            run_shards=run_shards,
        )  # fmt: skip
    return fit_store(
        job, progress=progress, should_stop=should_stop, source=source, encoder=encoder, downloading=downloading,
        run_shards=run_shards,
    )  # fmt: skip
