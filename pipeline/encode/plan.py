"""The first step of a run: look at source and store, decide what is to be done, make room for new images.

Stores of one name with different settings: NAME.zarr, NAME.v2.zarr, NAME.v3.zarr. Rows of two settings never mix.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import SourceError, StoreMismatchError
from data_schemas.files import wrap_os_errors, write_file
from data_schemas.headers import require_identity
from data_schemas.locations import Location
from data_schemas.records import RowState, StoreHeader
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.open import create_store, open_store, store_exists
from encoders.base import Encoder
from pipeline.encode.header import fit_header
from pipeline.encode.inputs import encoder_for, engine_for, source_of
from pipeline.encode.job import LOCAL, EncodeJob
from pipeline.encode.records import EncodePlan
from pipeline.encode.rows import NameIndex, RowMatch, match_rows
from pipeline.format import describe_limit
from pipeline.sources.base import ImageSource
from pipeline.sources.download import Progress

logger = logging.getLogger("splatspace.encode")

SMALL_SET, SMALL_BLOCK = 8192, 256
LARGE_BLOCK = 1024
HUGE_SET, HUGE_BLOCK = 1_000_000, 8192
"""Small sets get small blocks, so that a stopped run loses less; huge sets large ones, since each is eleven files."""

ROWS_PER_APPEND = 262_144
"""Rows added to a store at once: bounds the names in memory."""

FEWEST_BLOCKS, FEWEST_BLOCKS_SHARED_OUT = 4, 32
"""Blocks of a set at least where an engine asks for large ones: while one is fitted, another is read or written, and
with Dask every worker wants some."""

BLOCK_BYTES = 64 * 2**20
"""Most bytes of pixels or of splats in one block: what a run keeps in memory is a few of them."""


def version_path(path: Location, version: int) -> Location:
    """Where a version of a store is kept: ``path`` itself is version 1."""
    return path if version == 1 else path.with_name(f"{path.stem}.v{version}{path.suffix}")


def newest_version(path: Location) -> Location:
    """The last of the versions that are there; ``path`` itself where there is one or none."""
    version = 1
    while store_exists(version_path(path, version + 1)):
        version += 1
    return version_path(path, version)


def version_for(path: Location, header: StoreHeader) -> Location:
    """The newest version with these settings, or the next free one.

    Args:
        path: the store as the user named it.
        header: what is about to be written.

    Raises:
        StoreError: a version cannot be read; it is not passed over, since its settings are unknown.
    """
    version, found = 1, None
    while store_exists(candidate := version_path(path, version)):
        with open_store(candidate) as store:
            try:
                require_identity(store.header, header)
                found = candidate
            except StoreMismatchError:
                pass  # another setting: it stays as it is
        version += 1
    return found or candidate


@dataclass
class Survey:
    """A plan with the source and the engine that it was made with, so that they need not be opened twice."""

    plan: EncodePlan
    source: ImageSource
    encoder: Encoder


def plan_encode(job: EncodeJob, *, write: bool = True) -> EncodePlan:
    """Decides what a run has to do; with ``write`` the store then exists and has a row for every image.

    Args:
        job: what is asked for.
        write: False for a look only: nothing is created or changed.

    Raises:
        SourceError: the data set cannot be read.
        StoreMismatchError: the store that is there was made with other settings.
        StoreError: the store cannot be created or written.
    """
    return survey(job, write=write).plan


def survey(
    job: EncodeJob,
    *,
    source: ImageSource | None = None,
    encoder: Encoder | None = None,
    write: bool = True,
    downloading: Progress | None = None,
) -> Survey:
    """As :func:`plan_encode`, and hands back what it opened.

    Args:
        job: what is asked for.
        source: read from it instead of opening ``job.dataset``.
        encoder: fit with it instead of the job's engine; it brings its own settings.
        write: False for a look only.
        downloading: told of downloads.
    """
    started = datetime.now(UTC)
    if source is None:
        source = source_of(job, downloading=downloading)
    height, width, channels = source.image_shape
    settings = job.fit_settings(height, width)
    names = source.identifiers()
    _require_unique(names, source)
    images = min(len(names), job.limit or len(names))
    if beyond := describe_limit(job.limit, len(names), source.record.name, "images are encoded"):
        logger.warning("%s", beyond)
    why = ""
    if encoder is None:
        choice = engine_for(job, settings, images, source.image_shape)
        why = choice.reason
        # Named from here on, so that every process of the run takes the same.
        job = EncodeJob.model_validate({**dict(job), "engine": choice.engine})
        encoder = encoder_for(job, settings, workers=job.workers, unlearned=not write)
    settings = encoder.settings
    job = job.model_copy(update={"gaussians": settings.gaussians})
    header = fit_header(
        encoder,
        source.image_shape,
        source=source.record,
        block_rows=job.block_rows
        or _block_rows(
            images,
            max(height * width * channels, settings.gaussians * 9 * 4),
            encoder.images_per_call(height, width, channels),
            FEWEST_BLOCKS if job.compute == LOCAL else FEWEST_BLOCKS_SHARED_OUT,
        ),
        dtype=job.dtype,
        images=job.images,
    )
    if job.versions:
        job = job.model_copy(update={"out": version_for(job.out, header)})
    exists = not job.overwrite and store_exists(job.out)
    match, done, failed = RowMatch(0, None), 0, 0
    if exists:
        with open_store(job.out, "r") as store:
            match = match_rows(store, names)
            header = _continue_header(store, header, match, job)
            done, failed = _count(store, match, images)
    new = match.new(images)
    if write:
        _make_room(job, header, names, new, exists)
    blocks = np.zeros(-(-(match.rows + len(new)) // header.block_rows), bool)
    blocks[match.rows // header.block_rows :] = len(new) > 0
    for rows, of_job in match.portions(images):
        blocks[(rows.start + np.flatnonzero(of_job)) // header.block_rows] = True
    plan = EncodePlan(
        job=job,
        store=job.out,
        header=header,
        started=started,
        images=images,
        images_in_source=len(names),
        rows=match.rows + len(new),
        new=len(new),
        done=done,
        failed_before=failed,
        removed=match.removed(),
        blocks=tuple(int(block) for block in np.flatnonzero(blocks)),
        exists=exists,
        aligned=match.aligned,
        engine_choice=why,
    )
    logger.info(
        "%s images, %s done, %s new, %s blocks",
        *(f"{number:,}" for number in (plan.images, plan.done, plan.new, len(plan.blocks))),
    )
    return Survey(plan, source, encoder)


def attribution_path(store: Location) -> Location:
    """Where the text that credits the images is kept: beside the store."""
    return store.with_name(store.stem + ".attribution.txt")


def _make_room(
    job: EncodeJob, header: StoreHeader, names: Sequence[str], new: NDArray[np.int64] | range, exists: bool
) -> None:
    """Creates the store or continues it, and appends a row for each new image."""
    with open_store(job.out, "a") if exists else create_store(job.out, header, overwrite=job.overwrite) as store:
        for first in range(0, len(new), ROWS_PER_APPEND):
            part = new[first : first + ROWS_PER_APPEND]
            if isinstance(part, range):
                store.append(list(names[part.start : part.stop]))
            else:
                store.append([names[int(index)] for index in part])
        if store.header.source != header.source:
            store.set_header(store.header.model_copy(update={"source": header.source}))
    record = header.source
    if record.attribution:
        lines = [f"Source: {record.name}", f"Licence: {record.licence}", "", record.attribution.strip(), ""]
        with wrap_os_errors("write the attribution beside", job.out):
            write_file(attribution_path(job.out), "\n".join(lines).encode())


def _count(store: SplatStore, match: RowMatch, images: int) -> tuple[int, int]:
    """Rows of the job that are done, and that have failed."""
    done = failed = 0
    for rows, of_job in match.portions(images):
        states = store.read(["state"], rows)["state"][of_job]
        done += int((states == RowState.DONE).sum())
        failed += int((states == RowState.FAILED).sum())
    return done, failed


def _continue_header(store: SplatStore, wanted: StoreHeader, match: RowMatch, job: EncodeJob) -> StoreHeader:
    """The header with which a store that is there goes on.

    Raises:
        StoreMismatchError: it was made with other settings, or of other images.
    """
    header = store.header
    try:
        require_identity(header, wanted)
    except StoreMismatchError as error:
        raise StoreMismatchError(
            error.got,
            allowed="the settings of the store that is there",
            next_step="give another --out, --versions to keep both, or --overwrite to replace it",
        ) from None
    same_name = header.source.name == wanted.source.name
    if match.rows and not same_name and match.removed() == match.rows:
        raise StoreMismatchError(
            f"{job.out} holds images of {header.source.name!r}, none of which is in {wanted.source.name!r}",
            allowed="the same data set, grown or changed",
            next_step="give another --out, or --overwrite to replace it",
        )
    return header.model_copy(update={"source": wanted.source})


def _require_unique(names: Sequence[str], source: ImageSource) -> None:
    if not names:
        raise SourceError(f"{source.record.name} holds no images", next_step="check the path and --split")
    twice = NameIndex(names).repeated()
    if twice is not None:
        raise SourceError(f"{source.record.name} names two images {twice!r}", allowed="a name for each image")


def _block_rows(images: int, image_bytes: int, images_per_call: int, blocks: int) -> int:
    """Rows of a block: a power of two, bounded by the number of images and by memory.

    Args:
        images: of the job.
        image_bytes: of an image's pixels or splats.
        images_per_call: what the engine is best given at once; a block holds as many, where there are ``blocks`` then.
        blocks: fewest.
    """
    rows = SMALL_BLOCK if images < SMALL_SET else LARGE_BLOCK if images < HUGE_SET else HUGE_BLOCK
    while rows < images_per_call and 2 * rows * blocks <= images:
        rows *= 2
    while rows > 1 and rows * image_bytes > BLOCK_BYTES:
        rows //= 2
    return rows
