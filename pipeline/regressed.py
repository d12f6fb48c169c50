"""``--refine regressed``: a store is fitted twice, and the second fit begins where the pixels say.

1. A seeded sample of the images is fitted into a store of its own, ``NAME-refine/first.zarr``: an ordinary run, which
   continues after a kill as every run does.
2. A small network learns the splats of that store from the pixels (``encoders.regression``) in 5 folds by content: for
   no image does its own first fit take part. It is written beside the first store, whole or not at all.
3. Every image is fitted into the store that was asked for, from starts halfway between the usual ones and what the
   network foretells, at half the rates.

The regression is learnt once: images that come later are foretold with it, and the header of the store holds its
digest, so rows of two regressions never mix. The folder may be deleted; continuing the store then makes it again, and
refuses to go on where its numbers differ.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from data_schemas.durable_files import explained, write_file
from data_schemas.errors import StoreCorruptError
from data_schemas.locations import Location
from data_schemas.stores import open_store
from pipeline.compute_choice import LOCAL
from pipeline.download import Progress
from pipeline.encode import encode
from pipeline.encode_records import EncodeProgress
from pipeline.fewest_learnt import FEWEST_LEARNT, too_few_to_learn
from pipeline.job_encoder import read_regression
from pipeline.job_source import source_of
from pipeline.jobs import EncodeJob
from pipeline.planning import survey
from pipeline.sources.base import ImageSource
from pipeline.sources.drawn import DrawnSource

logger = logging.getLogger("splatspace.encode")

MOST_LEARNT = 8192
"""Images of the first fit: more tell the network little."""


def with_regression(
    job: EncodeJob,
    *,
    progress: Callable[[EncodeProgress], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
    source: ImageSource | None = None,
    downloading: Progress | None = None,
    learn: bool = True,
) -> EncodeJob:
    """Makes the regression of a refined job, or finds the one that is there.

    Args:
        job: as resolved; one without ``refine`` is handed back as it is.
        progress: of the first fit.
        should_stop: polled in the first fit.
        source: read from it instead of opening ``job.dataset``.
        downloading: told of downloads.
        learn: False for a look only: a regression that is not there is not made.

    Returns:
        The job with its regression; without one only where ``learn`` is False and it is not there.

    Raises:
        StoppedError: ``should_stop`` answered True; run again to continue.
        SourceError: too few images to learn from.
        SplatSpaceError: as ``pipeline.encode.encode``.
    """
    if job.refine == "none" or job.regression is not None:
        return job
    if source is None:
        source = source_of(job, downloading=downloading)
    sample = DrawnSource(source, MOST_LEARNT, seed=job.seed, among=job.limit)
    if len(sample) < FEWEST_LEARNT:
        raise too_few_to_learn(len(sample), str(job.dataset))
    folder = job.out.with_name(job.out.stem + "-refine")
    first = job.model_copy(
        update={
            "out": folder / "first.zarr",
            "refine": "none",
            "images": True,
            "limit": None,
            "block_rows": None,
            # A bounded sample: not worth workers of its own.
            "compute": LOCAL,
            # Every setting has a first store of its own.
            "versions": True,
        }
    )
    planned = survey(first, source=sample, write=False).plan
    path = planned.store.with_name(planned.store.stem + ".regression.npz")
    there = not job.overwrite and _is_whole(path)
    if not there and not learn:
        return job
    if not there:
        with explained("create", folder):
            folder.mkdir(parents=True, exist_ok=True)
        logger.info("first fit: %d images, for the starts of the second", len(sample))
        first = first.model_copy(update={"out": planned.store, "versions": False})
        summary = encode(first, source=sample, progress=progress, should_stop=should_stop)
        # Inside: what learns is linear algebra and compiled code, which a job without a second fit does not load.
        from pipeline.start_learning import learn_regression

        with open_store(summary.store, "r") as store:
            learnt = learn_regression(store, seed=job.seed)
        with explained("write", path):
            write_file(path, learnt.to_bytes())
    return job.model_copy(update={"regression": path})


def _is_whole(path: Location) -> bool:
    if not path.exists():
        return False
    try:
        read_regression(path)
    except StoreCorruptError as error:
        logger.warning("%s; it is learnt again", error.got)
        return False
    return True
