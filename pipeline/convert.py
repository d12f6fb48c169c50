"""Conversion between stores and published layouts: ``convert(src, dst)``.

Rows flow a block at a time into a folder beside the destination, which appears under its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from data_schemas.durable_files import explained, partial_name, sync_folder
from data_schemas.errors import JobError, StoreError
from data_schemas.published_layouts import LAYOUT_NAMES, ConversionOptions, RowSink, RowSource, detect_layout
from data_schemas.published_layouts.columnar_hdf5 import ColumnarSink, ColumnarSource
from data_schemas.published_layouts.detect import HDF5, TORCH_FOLDER, ZARR, supported
from data_schemas.published_layouts.rotated_hdf5 import RotatedSink, RotatedSource
from data_schemas.published_layouts.rows import survey
from data_schemas.published_layouts.stamp_hdf5 import StampHdf5Sink, StampHdf5Source
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.store import SplatStore
from data_schemas.store import blocks as block_numbers
from data_schemas.stores import BACKENDS, create_store, open_store
from data_schemas.writer_lock import WriterLock
from pipeline.convert_quality import measured
from pipeline.convert_torch_folder import TorchFolderSink, TorchFolderSource
from pipeline.sources.base import ImageSource

logger = logging.getLogger("splatspace.convert")

PUBLISHED_SOURCES: dict[str, Callable[[Path, ConversionOptions], RowSource]] = {
    TORCH_FOLDER: TorchFolderSource,
    "hdf5-rotated": RotatedSource,
    "hdf5-stamp": StampHdf5Source,
    "hdf5-columnar": ColumnarSource,
}
PUBLISHED_SINKS: dict[str, type[TorchFolderSink | RotatedSink | StampHdf5Sink | ColumnarSink]] = {
    TORCH_FOLDER: TorchFolderSink,
    "hdf5-rotated": RotatedSink,
    "hdf5-stamp": StampHdf5Sink,
    "hdf5-columnar": ColumnarSink,
}
SUFFIXES = {ZARR: (".zarr",), TORCH_FOLDER: ("",)}
"""Suffixes of a destination; every other layout is an HDF5 file."""

_HDF5_SUFFIXES = tuple(suffix for suffix in BACKENDS if suffix != ".zarr")


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

    def __init__(self, path: Path) -> None:
        """Opens a store for reading."""
        self._store: SplatStore = open_store(path, "r")

    @property
    def header(self) -> StoreHeader:
        """The store's header."""
        return self._store.header

    def __len__(self) -> int:
        return len(self._store)

    def blocks(self) -> Iterator[RowBlock]:
        """All rows in order."""
        for block in block_numbers(len(self._store), self._store.header.block_rows):
            yield self._store.read_block(block)

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
    src: str | Path,
    dst: str | Path,
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
        src: a store, or a file or folder of a published layout.
        dst: what to make. ``.zarr`` and ``.h5`` make stores, a path without a suffix a folder of torch files;
            ``target_layout`` says otherwise.
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
        StoreError: the source cannot be read, or the destination exists or cannot be written; the destination is then
            as it was.
    """
    src, dst = Path(src).expanduser(), Path(dst).expanduser()
    options = options or ConversionOptions()
    source_layout = _checked_layout(source_layout) or detect_layout(src)
    target_layout = _target(dst, target_layout)
    _check_places(src, dst, overwrite)
    if images is not None and (source_layout in (ZARR, HDF5) or target_layout not in (ZARR, HDF5)):
        raise JobError(
            f"source images for a conversion from {source_layout} to {target_layout}",
            allowed="source images with a published layout to a store",
            next_step="leave the images out",
        )
    with explained("read", src):
        rows = StoreSource(src) if source_layout in (ZARR, HDF5) else PUBLISHED_SOURCES[source_layout](src, options)
    try:
        if source_layout not in (ZARR, HDF5) and target_layout in (ZARR, HDF5):
            rows = measured(rows, images)
        summary = ConversionSummary(
            source=str(src),
            destination=str(dst),
            source_layout=source_layout,
            target_layout=target_layout,
            gaussians=rows.header.gaussians,
            image_size=(rows.header.height, rows.header.width),
            rows=len(rows),
        )
        with explained("write", dst), _whole_or_absent(dst, lock=target_layout in (ZARR, HDF5)) as partial:
            _pour(rows, partial, summary, options, progress)
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


def _checked_layout(name: str | None) -> str | None:
    if name is not None and name not in LAYOUT_NAMES:
        raise StoreError(f"Unknown layout {name!r}", allowed=supported())
    return name


def _target(dst: Path, name: str | None) -> str:
    suffix = dst.suffix.lower()
    if _checked_layout(name) is None:
        by_suffix = {"": TORCH_FOLDER, ".zarr": ZARR, **dict.fromkeys(_HDF5_SUFFIXES, HDF5)}
        if suffix not in by_suffix:
            raise StoreError(
                f"{dst} has suffix {suffix!r}, which names no layout",
                allowed=supported(),
                next_step="end it in .zarr or .h5, or say which layout with --to",
            )
        return by_suffix[suffix]
    assert name is not None
    allowed = SUFFIXES.get(name, _HDF5_SUFFIXES)
    if suffix not in allowed:
        endings = " or ".join(one or "no suffix" for one in allowed)
        raise StoreError(f"{dst} has suffix {suffix!r}, but layout {name} has {endings}", allowed=endings)
    return name


def _check_places(src: Path, dst: Path, overwrite: bool) -> None:
    source, target = src.resolve(), dst.resolve()
    if source == target or target in source.parents or source in target.parents:
        raise JobError(f"{dst} and {src} lie inside each other", next_step="choose another destination")
    if not (dst.exists() or dst.is_symlink()):
        return
    if not overwrite:
        raise StoreError(f"{dst} exists already", allowed="a new path", next_step="choose another one or --overwrite")
    if dst.is_symlink():
        raise StoreError(f"{dst} is a link", allowed="a new path", next_step="give the path that it points to")
    if dst.is_dir() and next(dst.iterdir(), None) is None:
        return
    try:
        detect_layout(dst)
    except StoreError as error:
        raise StoreError(
            f"{dst} is neither a store nor a published layout, so it is not overwritten",
            next_step="choose another path",
        ) from error


@contextlib.contextmanager
def _whole_or_absent(dst: Path, *, lock: bool) -> Iterator[Path]:
    """A path to write to; it becomes ``dst`` when the block ends well and vanishes when it does not."""
    dst.parent.mkdir(parents=True, exist_ok=True)
    # What is replaced may be a store that another process writes.
    lock = lock or (dst.exists() and dst.suffix.lower() in BACKENDS)
    held = WriterLock(dst.resolve()) if lock else None
    folder = partial_name(dst)
    try:
        folder.mkdir()
        partial = folder / dst.name
        yield partial
        # A journal of a store that stood here must not be replayed into the new one.
        shutil.rmtree(dst.with_name(dst.name + ".journal"), ignore_errors=True)
        if dst.exists():
            os.replace(dst, folder / ("replaced-" + dst.name))
        os.replace(partial, dst)
        sync_folder(dst.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if held is not None:
            held.release()
