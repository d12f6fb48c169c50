"""The published folder of torch files: ``gaussian_representation_{i}.pt`` with ``W`` [K, 7] raw stamp numbers.

Files are read with torch's restricted unpickler: plain tensors and containers, never code.
"""

from __future__ import annotations

import io
import pickle
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from data_schemas.errors import StoreError
from data_schemas.published_layouts.detect import TORCH_FILE_PATTERN, TORCH_FOLDER
from data_schemas.published_layouts.options import ConversionOptions
from data_schemas.published_layouts.record import (
    MAX_RECORD_BYTES,
    AbsentRow,
    PublishedRecord,
    absent_rows,
)
from data_schemas.published_layouts.rows import (
    MAX_GAUSSIANS_READ,
    PublishedImage,
    Survey,
    UnreadableImageError,
    class_label,
    in_published_order,
    without_alpha,
)
from data_schemas.published_layouts.stamp import (
    StampFrame,
    activate,
    deactivate,
    from_splats,
    holding_kernel_size,
    kernel_notes,
    refuse_outside_colours,
    to_splats,
)
from data_schemas.published_layouts.stamp_hdf5 import USUAL_KERNEL_SIZE, StampSource
from data_schemas.records import RowBlock, RowState, StoreHeader
from data_schemas.splats import layout_for

RECORD_FILE = "splatspace.json"
MAX_FILE_BYTES = 64 * 2**20
"""Most bytes of one file, packed or unpacked; a published one has a few thousand."""


def read_torch_file(path: Path) -> dict[str, Any]:
    """The dictionary in one file.

    Raises:
        UnreadableImageError: too large, cut short, not a dictionary with a tensor ``W`` [K, 7 or 9], or holding
            anything but plain data.
    """
    try:
        size = path.stat().st_size
        if size <= MAX_FILE_BYTES and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                size = max(size, sum(member.file_size for member in archive.infolist()))
        if size > MAX_FILE_BYTES:
            raise UnreadableImageError(f"{size} bytes, more than {MAX_FILE_BYTES}")
        with warnings.catch_warnings():
            # Old files make torch warn about its own storage classes.
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UnreadableImageError(
            "refused: it is not a file of plain tensors (it would run code when opened, or it is damaged)"
        ) from error
    except UnreadableImageError:
        raise
    except Exception as error:
        # torch raises whatever its parsers raise on damaged bytes: EOFError, RuntimeError, KeyError, ...
        raise UnreadableImageError(f"cannot be read ({type(error).__name__}: {_first_line(error)})") from error
    if not isinstance(content, dict) or not isinstance(content.get("W"), torch.Tensor):
        raise UnreadableImageError("it holds no dictionary with a tensor 'W'")
    table = content["W"]
    if table.layout != torch.strided or table.ndim != 2 or table.shape[1] not in (7, 9):
        raise UnreadableImageError(f"W has shape {tuple(table.shape)}, not [K, 7] or [K, 9]")
    if not table.is_floating_point() or not 1 <= table.shape[0] <= MAX_GAUSSIANS_READ:
        raise UnreadableImageError(f"W has {table.shape[0]} rows of type {table.dtype}")
    content["W"] = table.detach().to(torch.float64).numpy()
    return content


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:200] if lines else "no message"


class TorchFolderSource(StampSource):
    """Reads a folder of torch files, or one of them."""

    def __init__(self, path: Path, options: ConversionOptions) -> None:
        """Lists a folder and looks at every file's shape.

        Args:
            path: the folder, or one file of any name.
            options: what the files do not say.

        Raises:
            StoreError: no such files, or none that can be read; or one file of a folder with a record of conventions,
                which numbers the rows of the whole folder.
            JobError: the image size is neither given nor known.
        """
        single = path.is_file()
        self._files = {file.stem: file for file in ((path,) if single else path.glob(TORCH_FILE_PATTERN))}
        keys = in_published_order(self._files)
        if not keys:
            raise StoreError(f"{path} has no file {TORCH_FILE_PATTERN}", next_step="check the path")
        if single:
            self._require_alone(path)
        record = None if single else self._read_record(path / RECORD_FILE)
        super().__init__(
            path, TORCH_FOLDER, keys, record, options, usual_kernel_size=lambda _height, _width: USUAL_KERNEL_SIZE
        )

    @staticmethod
    def _read_record(path: Path) -> PublishedRecord | None:
        if not path.is_file():
            return None
        if path.stat().st_size > MAX_RECORD_BYTES:
            raise StoreError(f"{path} has {path.stat().st_size} bytes", allowed=f"up to {MAX_RECORD_BYTES}")
        return PublishedRecord.parse(path.read_bytes(), str(path))

    @staticmethod
    def _require_alone(path: Path) -> None:
        beside = path.with_name(RECORD_FILE)
        if beside.is_file():
            raise StoreError(
                f"{path} is one of a folder that {beside} describes",
                allowed="the folder",
                next_step=f"convert {path.parent}",
            )
        try:
            read_torch_file(path)
        except UnreadableImageError as error:
            raise StoreError(
                f"{path}: {error}", allowed="a torch file with W [K, 7]", next_step="check that it is complete"
            ) from error

    def _shape(self, key: str) -> tuple[int, int] | None:
        try:
            shape = read_torch_file(self._files[key])["W"].shape
        except UnreadableImageError:
            return None
        return shape[0], shape[1]

    def image(self, key: str) -> PublishedImage:
        """Reads one file; what is wrong with it becomes its failure."""
        image = PublishedImage(key)
        try:
            content = read_torch_file(self._files[key])
            name, label = content.get("source_id"), content.get("label")
            if self._record is not None and isinstance(name, str):
                image.source_id = name
            if isinstance(label, torch.Tensor) and label.numel() == 1:
                label = label.item()
            image.label, image.unread_label = class_label(label)
            history = content.get("loss_history")
            image.steps = len(history) if isinstance(history, list) else 0
            table = content["W"]
            wanted = (self.header.gaussians, 6 + self.header.channels)
            if table.shape != wanted:
                raise UnreadableImageError(
                    f"W has shape {table.shape[0]} x {table.shape[1]}, but the store has {wanted[0]} x {wanted[1]}"
                )
            if not np.all(np.isfinite(table)):
                raise UnreadableImageError("values that are not finite")
            image.splats = to_splats(activate(table), self.frame, alpha=self.alpha, match=self.match)
        except UnreadableImageError as error:
            image.failure = str(error)
        return image

    def close(self) -> None:
        """Nothing stays open between files."""


class TorchFolderSink:
    """Writes a folder of torch files, one per row that is done, and the record of conventions."""

    def __init__(self, path: Path, header: StoreHeader, rows: int, found: Survey, options: ConversionOptions) -> None:
        """Makes the folder.

        Args:
            path: the folder to make.
            header: of the rows that will come.
            rows: how many.
            found: what was seen of them.
            options: kernel size.

        Raises:
            StoreError: rows that the layout cannot hold, by name.
        """
        refuse_outside_colours(found)
        kernel_size = holding_kernel_size(header, found, options.kernel_size, USUAL_KERNEL_SIZE, bounded=True)
        self.notes = kernel_notes(header, kernel_size)
        self._frame = StampFrame(header.height, header.width, kernel_size)
        self._header, self._rows, self._folder = header, rows, path
        self._absent: list[AbsentRow] = []
        self._next = 0
        path.mkdir()

    def write(self, rows: RowBlock) -> None:
        """Adds one file per row that is done; its number is the row's."""
        layout = layout_for(self._header.channels)
        values = without_alpha(rows.splats, self._header.splat_layout)
        for row in np.flatnonzero(rows.state == RowState.DONE):
            raw = deactivate(from_splats(values[row], layout, self._frame))
            content = {
                "W": torch.from_numpy(raw),
                "label": int(rows.label[row]),
                "loss_history": [],
                "source_id": str(rows.source_id[row]),
            }
            # Through memory: of a failed write torch says neither the cause nor the file.
            packed = io.BytesIO()
            torch.save(content, packed)
            (self._folder / f"gaussian_representation_{self._next + row}.pt").write_bytes(packed.getvalue())
        self._absent += absent_rows(self._next, rows)
        self._next += len(rows)

    def finish(self) -> None:
        """Writes the record."""
        record = PublishedRecord(
            layout=TORCH_FOLDER,
            kernel_size=self._frame.kernel_size,
            header=self._header,
            rows=self._rows,
            absent=tuple(self._absent),
        )
        (self._folder / RECORD_FILE).write_text(record.model_dump_json(indent=1), encoding="utf-8")

    def abandon(self) -> None:
        """Nothing stays open."""
