"""Conversion between stores and published layouts: ``convert(src, dst)``.

Rows flow a block at a time into a folder beside the destination, which appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from upath import UPath

from data_schemas.errors import JobError, StoreError
from data_schemas.files import wrap_os_errors
from data_schemas.locations import Location
from data_schemas.published_layouts import ConversionOptions, RowSink, RowSource
from data_schemas.published_layouts.columnar_hdf5 import ColumnarSink, ColumnarSource
from data_schemas.published_layouts.detect import HDF5, TORCH_FOLDER, ZARR
from data_schemas.published_layouts.rotated_hdf5 import RotatedSink, RotatedSource
from data_schemas.published_layouts.rows import Survey, survey
from data_schemas.published_layouts.stamp_hdf5 import StampHdf5Sink, StampHdf5Source
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.stores.contract import SplatStore
from data_schemas.stores.contract import blocks as block_numbers
from data_schemas.stores.open import create_store, open_store
from pipeline.convert.places import check_places, expand_place, layout_of_source, layout_of_target, whole_or_absent
from pipeline.convert.quality import measure_rows
from pipeline.finite_splats import require_finite
from pipeline.sources.base import ImageSource

logger = logging.getLogger("splatspace.convert")


class PublishedSink(RowSink, Protocol):
    """A sink that says how its files have to be read.

    Attributes:
        notes: for people.
    """

    notes: list[str]


# Imports inside of these two: the other layouts do without torch, which takes seconds.
def _torch_source(path: Path, options: ConversionOptions) -> RowSource:
    from pipeline.convert.torch_folder import TorchFolderSource

    return TorchFolderSource(path, options)


def _torch_sink(path: Path, header: StoreHeader, rows: int, found: Survey, options: ConversionOptions) -> PublishedSink:
    from pipeline.convert.torch_folder import TorchFolderSink

    return TorchFolderSink(path, header, rows, found, options)


PUBLISHED_SOURCES: dict[str, Callable[[Path, ConversionOptions], RowSource]] = {
    TORCH_FOLDER: _torch_source,
    "hdf5-rotated": RotatedSource,
    "hdf5-stamp": StampHdf5Source,
    "hdf5-columnar": ColumnarSource,
}
PUBLISHED_SINKS: dict[str, Callable[[Path, StoreHeader, int, Survey, ConversionOptions], PublishedSink]] = {
    TORCH_FOLDER: _torch_sink,
    "hdf5-rotated": RotatedSink,
    "hdf5-stamp": StampHdf5Sink,
    "hdf5-columnar": ColumnarSink,
}


@dataclass
class ConversionSummary:
    """What a conversion did.

    Attributes:
        source: path.
        destination: path.
        source_layout: one of ``LAYOUT_NAMES``.
        target_layout: one of ``LAYOUT_NAMES``.
        gaussians: K.
        image_size: (height, width) in pixels.
        rows: rows of the source.
        done: rows that hold Gaussians in the destination.
        failed: (source_id, reason) of every failed row.
        empty: rows that were never encoded.
        notes: what a user should know of the destination.
        unread_labels: (source_id, label) of every label that is no class number and therefore -1 in the destination.
    """

    source: str
    destination: str
    source_layout: str
    target_layout: str
    gaussians: int
    image_size: tuple[int, int]
    rows: int
    done: int = 0
    failed: list[tuple[str, str]] = field(default_factory=list)
    empty: int = 0
    notes: list[str] = field(default_factory=list)
    unread_labels: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """JSON types only."""
        return asdict(self)

    def count(self, rows: RowBlock) -> None:
        """Adds the rows of a block."""
        self.done += int((rows.state == RowState.DONE).sum())
        self.empty += int((rows.state == RowState.EMPTY).sum())
        for row in np.flatnonzero(rows.state == RowState.FAILED):
            self.failed.append((str(rows.source_id[row]), str(rows.failure[row])))


class StoreSource:
    """Rows of a store."""

    def __init__(self, path: Location) -> None:
        """Opens a store for reading."""
        self._store: SplatStore = open_store(path, "r")
        self.unread_labels: dict[str, str] = {}

    @property
    def header(self) -> StoreHeader:
        """The store's header."""
        return self._store.header

    def __len__(self) -> int:
        return len(self._store)

    def blocks(self) -> Iterator[RowBlock]:
        """All rows in order.

        Raises:
            StoreCorruptError: splats that are not finite.
        """
        for block in block_numbers(len(self._store), self._store.header.block_rows):
            rows = self._store.read_block(block)
            done = np.flatnonzero(rows.state == RowState.DONE)
            require_finite(rows.splats[done], block * self._store.header.block_rows + done, self._store)
            yield rows

    def close(self) -> None:
        """Closes the store."""
        self._store.close()


class StoreSink:
    """Rows into a new store."""

    def __init__(self, path: Path, header: StoreHeader) -> None:
        """Creates a store."""
        self.notes: list[str] = []
        self._store: SplatStore = create_store(path, header)
        self._header = header
        self._block = 0

    def write(self, rows: RowBlock) -> None:
        """Adds a block."""
        self._store.append([str(name) for name in rows.source_id])
        self._store.write_block(self._block, rows)
        self._block += 1

    def finish(self) -> None:
        """Writes the header as it was and closes the store."""
        self._store.set_header(self._header)
        self._store.close()

    def abandon(self) -> None:
        """Closes the store as it is."""
        with contextlib.suppress(StoreError, OSError):
            self._store.close()


def convert(
    src: str | os.PathLike[str] | UPath,
    dst: str | os.PathLike[str] | UPath,
    *,
    source_layout: str | None = None,
    target_layout: str | None = None,
    options: ConversionOptions | None = None,
    images: ImageSource | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> ConversionSummary:
    """Converts a store or a published layout into another.

    Args:
        src: a store or its URL, or a file or folder of a published layout.
        dst: what to make. ``.zarr`` and ``.h5`` make stores, a path without a suffix a folder of torch files;
            ``target_layout`` says otherwise. A URL must be of a ``.zarr``; its objects are uploaded at the end.
        source_layout: one of ``LAYOUT_NAMES``; None: by content.
        target_layout: one of ``LAYOUT_NAMES``; None: by the suffix of ``dst``.
        options: conventions of published layouts.
        images: the images that a published layout was fitted to, in the order of its rows; the store gets their
            pixels and hashes, and the PSNR of the decoded splats against them.
        overwrite: replace what is at ``dst``, if it is a store or a published layout.
        progress: called with (rows converted, rows).

    Returns:
        What was done; failed rows are named in it.

    Raises:
        JobError: options that do not go together.
        StoreError: the source cannot be read or holds no Gaussians, or the destination exists or cannot be written;
            the destination is then as it was.
    """
    src, dst = expand_place(src), expand_place(dst)
    options = options or ConversionOptions()
    source_layout = layout_of_source(src, source_layout)
    target_layout = layout_of_target(dst, target_layout)
    check_places(src, dst, overwrite)
    if images is not None and (source_layout in (ZARR, HDF5) or target_layout not in (ZARR, HDF5)):
        raise JobError(
            f"source images for a conversion from {source_layout} to {target_layout}",
            allowed="source images with a published layout to a store",
            next_step="leave the images out",
        )
    with wrap_os_errors("read", src):
        if source_layout in (ZARR, HDF5) or not isinstance(src, Path):
            rows: RowSource = StoreSource(src)
        else:
            rows = PUBLISHED_SOURCES[source_layout](src, options)
    try:
        if not rows.header.gaussians and target_layout not in (ZARR, HDF5):
            raise StoreError(
                f"{src} holds images only, and layout {target_layout} holds Gaussians",
                allowed=".zarr or .h5 for a store of images only",
                next_step="encode the images with --gaussians 1 or more, or convert to .zarr or .h5",
            )
        if source_layout not in (ZARR, HDF5) and target_layout in (ZARR, HDF5):
            rows = measure_rows(rows, images)
        summary = ConversionSummary(
            source=str(src),
            destination=str(dst),
            source_layout=source_layout,
            target_layout=target_layout,
            gaussians=rows.header.gaussians,
            image_size=(rows.header.height, rows.header.width),
            rows=len(rows),
        )
        with (
            wrap_os_errors("write", dst),
            whole_or_absent(dst, lock=target_layout in (ZARR, HDF5), overwrite=overwrite) as partial,
        ):
            _pour(rows, partial, summary, options, progress)
        summary.unread_labels = list(rows.unread_labels.items())
    finally:
        rows.close()
    for name, reason in summary.failed:
        logger.warning("%s: %s", name, reason)
    return summary


def _pour(
    rows: RowSource,
    partial: Path,
    summary: ConversionSummary,
    options: ConversionOptions,
    progress: Callable[[int, int], None] | None,
) -> None:
    header = rows.header
    sink: RowSink
    if summary.target_layout in (ZARR, HDF5):
        sink = StoreSink(partial, header)
    else:
        found = survey(rows)
        sink = PUBLISHED_SINKS[summary.target_layout](partial, header, len(rows), found, options)
    try:
        converted = 0
        for block in rows.blocks():
            sink.write(block)
            summary.count(block)
            converted += len(block)
            if progress is not None:
                progress(converted, summary.rows)
        if not summary.done and summary.source_layout not in (ZARR, HDF5):
            first, reason = summary.failed[0]
            raise StoreError(
                f"None of the {summary.rows} images of {summary.source} can be converted; {first}: {reason}",
                next_step="check the source and the options",
            )
        sink.finish()
        summary.notes += sink.notes
        absent = summary.rows - summary.done
        if absent and summary.target_layout not in (ZARR, HDF5):
            summary.notes.append(f"{absent} rows hold no Gaussians and are only named in the record of conventions")
    finally:
        sink.abandon()
