"""The first step of a run: look at source and store, decide what is to be done, make room for new images."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_schemas.durable_files import explained, write_file
from data_schemas.errors import SourceError, StoreMismatchError
from data_schemas.headers import require_identity
from data_schemas.records import RowState, StoreHeader
from data_schemas.splats import layout_for
from data_schemas.store import SplatStore
from data_schemas.stores import create_store, open_store
from encoders.anchors import anchors
from encoders.base import Encoder
from encoders.engines import create_encoder
from pipeline.download import Progress
from pipeline.encode_records import EncodePlan
from pipeline.jobs import EncodeJob
from pipeline.sources import open_source
from pipeline.sources.base import ImageSource

logger = logging.getLogger("splatspace.encode")

SMALL_SET, SMALL_BLOCK, LARGE_BLOCK = 8192, 256, 1024
"""Sets of fewer images get smaller blocks, so that a stopped run loses less."""

BLOCK_BYTES = 64 * 2**20
"""Most bytes of pixels or of splats in one block: what a run keeps in memory is a few of them."""


@dataclass
class Survey:
    """A plan with the source and the engine that it was made with, so that they need not be opened twice."""

    plan: EncodePlan
    source: ImageSource
    encoder: Encoder


def plan_encode(job: EncodeJob, *, write: bool = True, downloading: Progress | None = None) -> EncodePlan:
    """Decides what a run has to do; with ``write`` the store then exists and has a row for every image.

    Args:
        job: what is asked for.
        write: False for a look only: nothing is created or changed.
        downloading: told of downloads.

    Raises:
        SourceError: the data set cannot be read.
        StoreMismatchError: the store that is there was made with other settings.
        StoreError: the store cannot be created or written.
    """
    return survey(job, write=write, downloading=downloading).plan


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
        source = open_source(
            job.dataset,
            data_dir=job.data_dir,
            split=job.split,
            size=job.size,
            download=job.download,
            progress=downloading,
        )
    height, width, channels = source.image_shape
    settings = job.fit_settings(height, width)
    if encoder is None:
        encoder = create_encoder(job.engine, settings, workers=job.workers)
    settings = encoder.settings
    names = list(source.identifiers())
    _require_unique(names, source)
    wanted = names[: job.limit]
    job = job.model_copy(update={"gaussians": settings.gaussians})
    header = StoreHeader(
        codec=settings.codec,
        layout=layout_for(channels).name,
        gaussians=settings.gaussians,
        height=height,
        width=width,
        channels=channels,
        dtype=job.dtype,
        images=job.images,
        colours=settings.colours,
        start=settings.start,
        anchors=None
        if settings.start == "adaptive"
        else tuple((float(x), float(y)) for x, y in anchors(settings.gaussians, height, width)),
        engine=encoder.name,
        settings=json.loads(json.dumps({**settings.as_dict(), "recipe": encoder.recipe()})),
        seed=settings.seed,
        source=source.record,
        block_rows=job.block_rows or _block_rows(len(wanted), height * width * channels, settings.gaussians),
    )
    exists = job.out.exists() and not job.overwrite
    stored_names: list[str] = []
    states: NDArray[np.uint8] = np.zeros(0, np.uint8)
    if exists:
        with open_store(job.out, "r") as store:
            stored_names, states = _stored(store)
            header = _continued(store, header, names, stored_names, job)
    row_of = {name: row for row, name in enumerate(stored_names)}
    new = [name for name in wanted if name not in row_of]
    if write:
        _make_room(job, header, new, exists)
    rows = [row_of[name] for name in wanted if name in row_of]
    rows_of_job = np.concatenate([np.array(rows, np.int64), len(stored_names) + np.arange(len(new))])
    in_source = set(names)
    plan = EncodePlan(
        job=job,
        store=job.out,
        header=header,
        started=started,
        images=len(wanted),
        images_in_source=len(names),
        rows=len(stored_names) + len(new),
        new=len(new),
        done=int((states[rows] == RowState.DONE).sum()),
        failed_before=int((states[rows] == RowState.FAILED).sum()),
        removed=sum(name not in in_source for name in stored_names),
        blocks=tuple(int(block) for block in np.unique(rows_of_job // header.block_rows)),
        exists=exists,
    )
    logger.info("%d images, %d done, %d new, %d blocks", plan.images, plan.done, plan.new, len(plan.blocks))
    return Survey(plan, source, encoder)


def attribution_path(store: Path) -> Path:
    """Where the text that credits the images is kept: beside the store."""
    return store.with_name(store.stem + ".attribution.txt")


def _make_room(job: EncodeJob, header: StoreHeader, new: Sequence[str], exists: bool) -> None:
    """Creates the store or continues it, and appends a row for each new image."""
    if exists:
        with open_store(job.out, "a") as store:
            store.append(new)
            if store.header.source != header.source:
                store.set_header(store.header.model_copy(update={"source": header.source}))
    else:
        with explained("create the folder of", job.out):
            job.out.parent.mkdir(parents=True, exist_ok=True)
        with create_store(job.out, header, overwrite=job.overwrite) as store:
            store.append(new)
    record = header.source
    if record.attribution:
        lines = [f"Source: {record.name}", f"Licence: {record.licence}", "", record.attribution.strip(), ""]
        with explained("write the attribution beside", job.out):
            write_file(attribution_path(job.out), "\n".join(lines).encode())


def _stored(store: SplatStore) -> tuple[list[str], NDArray[np.uint8]]:
    arrays = store.read(["source_id", "state"])
    return [str(name) for name in arrays["source_id"]], arrays["state"]


def _continued(
    store: SplatStore, wanted: StoreHeader, names: Sequence[str], stored_names: Sequence[str], job: EncodeJob
) -> StoreHeader:
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
            next_step="give another --out, or --overwrite to replace it",
        ) from None
    same_name = header.source.name == wanted.source.name
    if stored_names and not same_name and set(stored_names).isdisjoint(names):
        raise StoreMismatchError(
            f"{job.out} holds images of {header.source.name!r}, none of which is in {wanted.source.name!r}",
            allowed="the same data set, grown or changed",
            next_step="give another --out, or --overwrite to replace it",
        )
    return header.model_copy(update={"source": wanted.source})


def _require_unique(names: Sequence[str], source: ImageSource) -> None:
    if not names:
        raise SourceError(f"{source.record.name} holds no images", next_step="check the path and --split")
    if len(set(names)) != len(names):
        seen: set[str] = set()
        twice = next(name for name in names if name in seen or seen.add(name))
        raise SourceError(f"{source.record.name} names two images {twice!r}", allowed="a name for each image")


def _block_rows(images: int, image_bytes: int, gaussians: int) -> int:
    """Rows of a block: a power of two, bounded by the number of images and by memory."""
    rows = SMALL_BLOCK if images < SMALL_SET else LARGE_BLOCK
    largest = max(image_bytes, gaussians * 9 * 4)
    while rows > 1 and rows * largest > BLOCK_BYTES:
        rows //= 2
    return rows
