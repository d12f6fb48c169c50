"""Images in one numpy array: .npy (memory-mapped), .npz, or in memory."""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy_format
from numpy.typing import NDArray

from data_schemas.errors import SourceError
from data_schemas.records import SourceRecord
from pipeline.sources.archives import digest_of_files
from pipeline.sources.base import ImageSource, SourceImage

IMAGES_KEY, LABELS_KEY = "images", "labels"

ALLOWED = "uint8 [image, height, width] or [image, height, width, channel] with channel 1 or 3"

_IMAGES_LOOKED_AT = 1000
_HEADER_BYTES = 65536


class ArraySource:
    """An ``ImageSource`` over one array.

    Args:
        record: where the images came from.
        images: uint8 [image, height, width, channel], channel 1 or 3.
        identifiers: one unique name per image.
        labels: int [image], or None where there are none.
    """

    def __init__(
        self,
        record: SourceRecord,
        images: NDArray[np.uint8],
        identifiers: Sequence[str],
        labels: NDArray[np.integer] | None = None,
    ) -> None:
        self._record = record
        self._images = images
        self._identifiers = identifiers
        self._labels = labels

    @property
    def record(self) -> SourceRecord:
        """Name, split, digest, licence and attribution."""
        return self._record

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every image."""
        height, width, channels = self._images.shape[1:]
        return height, width, channels

    def __len__(self) -> int:
        return len(self._images)

    def identifiers(self) -> Sequence[str]:
        """Unique names in source order."""
        return self._identifiers

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Copies images out of the array; none of them can fail."""
        return [
            SourceImage(
                self._identifiers[index],
                np.array(self._images[index], dtype=np.uint8, order="C"),
                -1 if self._labels is None else int(self._labels[index]),
            )
            for index in indices
        ]


def open_npy(path: Path) -> ImageSource:
    """Images of a .npy, memory-mapped: reading touches only what is asked for.

    Raises:
        SourceError: no npy, cut short, objects, another type than uint8, or another shape.
    """
    return _source(path, load_mapped(path), None)


def load_mapped(path: Path) -> NDArray[Any]:
    """The array of a .npy as a read-only memory map, of whatever type and shape.

    Raises:
        SourceError: no npy, cut short, or objects.
    """
    try:
        with path.open("rb") as stream:
            if stream.read(2) == b"PK":
                raise SourceError(f"{path} is an .npz by its content", next_step=f"rename it to {path.stem}.npz")
            stream.seek(0)
            shape, dtype = _read_header(stream)
            start, size = stream.tell(), path.stat().st_size
        if dtype.hasobject:
            raise _of_objects(path, path.stem)
        expected = math.prod(shape) * dtype.itemsize
        if size - start < expected:
            raise SourceError(
                f"{path} is cut short: expected {expected} bytes of numbers, got {size - start}",
                allowed=ALLOWED,
                next_step="write the file again with np.save",
            )
        if not expected:  # nothing to map; the shape is refused with a better message later
            return np.zeros(shape, dtype)
        return npy_format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError, OverflowError) as error:
        if isinstance(error, SourceError):
            raise
        raise _unreadable(path, error) from error


def open_npz(path: Path) -> ImageSource:
    """Images of an .npz: the array ``images`` or the only one there; ``labels`` (int) is optional.

    Raises:
        SourceError: as ``open_npy``, and an .npz in which the array cannot be told.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            candidates = [name for name in names if name != LABELS_KEY]
            if IMAGES_KEY not in names and len(candidates) != 1:
                raise SourceError(
                    f"{path} holds the arrays {', '.join(names) or '(none)'}",
                    allowed=f"an array named {IMAGES_KEY!r}, or one array besides {LABELS_KEY!r}",
                    next_step="np.savez_compressed(path, images=..., labels=...)",
                )
            key = IMAGES_KEY if IMAGES_KEY in names else candidates[0]
            images = _read_member(archive, path, key)
            labels = _read_member(archive, path, LABELS_KEY) if LABELS_KEY in names else None
    except (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError, zlib.error, NotImplementedError) as error:
        if isinstance(error, SourceError):
            raise
        raise _unreadable(path, error) from error
    return _source(path, images, labels)


def _read_member(archive: zipfile.ZipFile, path: Path, key: str) -> NDArray[Any]:
    names = archive.namelist()
    info = archive.getinfo(key if key in names else f"{key}.npy")
    with archive.open(info) as stream:
        shape, dtype = _read_header(stream)
        # Compared before anything is allocated: a header may announce what the file does not hold.
        if dtype.hasobject:
            raise _of_objects(path, key)
        announced = math.prod(shape) * dtype.itemsize
        if not 0 <= info.file_size - announced <= _HEADER_BYTES:
            raise SourceError(
                f"{path}: array {key!r} announces {announced} bytes of numbers, the file holds {info.file_size}",
                allowed="a complete array",
                next_step="write the .npz again",
            )
    with archive.open(info) as stream:
        return npy_format.read_array(stream, allow_pickle=False)


def _read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy_format.read_magic(stream)
    read = npy_format.read_array_header_1_0 if version == (1, 0) else npy_format.read_array_header_2_0
    shape, _, dtype = read(stream)
    return shape, dtype


def _source(path: Path, images: NDArray[Any], labels: NDArray[Any] | None) -> ImageSource:
    _check_type(path, images)
    if images.ndim == 3 and not (images.shape[2] in (3, 4) and images.shape[1] > 8):
        images = images[..., None]
    _check_shape(path, images)
    if labels is not None:
        if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
            raise SourceError(
                f"{path}: labels are {labels.dtype} {list(labels.shape)}",
                allowed=f"integers [{len(images)}], one per image",
                next_step="save the labels again or leave them out",
            )
        if labels.size and (labels.min() < -1 or labels.max() > np.iinfo(np.int32).max):
            raise SourceError(
                f"{path}: labels from {labels.min()} to {labels.max()}", allowed="0 to 2147483647, and -1 for none"
            )
    digits = len(str(len(images) - 1))
    identifiers = tuple(f"{index:0{digits}}" for index in range(len(images)))
    record = SourceRecord(name=path.stem, digest=digest_of_files([path]))
    return ArraySource(record, images, identifiers, labels)


def _check_type(path: Path, images: NDArray[Any]) -> None:
    if images.dtype == np.uint8:
        return
    if images.dtype.hasobject:
        raise _of_objects(path, IMAGES_KEY)
    got = f"{path} holds {images.dtype} {list(images.shape)}"
    advice = "save the images as uint8, 0 (black) to 255 (white)"
    if np.issubdtype(images.dtype, np.number) and images.ndim and images.size:
        looked_at = np.asarray(images[:_IMAGES_LOOKED_AT])
        odd = int((~np.isfinite(looked_at)).sum())
        finite = looked_at[np.isfinite(looked_at)]
        if finite.size:
            got += f" with values from {finite.min():g} to {finite.max():g}"
            if np.issubdtype(images.dtype, np.floating) and finite.min() >= 0 and finite.max() <= 1:
                advice = "save (images * 255).round().astype(np.uint8)"
        if odd:
            got += f" and {odd} that are NaN or infinite"
            advice = "fix the NaN and infinite values, then " + advice
    raise SourceError(got, allowed=ALLOWED, next_step=advice)


def _check_shape(path: Path, images: NDArray[np.uint8]) -> None:
    shape = images.shape
    if images.ndim == 4 and shape[3] in (1, 3) and min(shape) > 0:
        return
    advice = ""
    if images.ndim == 3 or images.ndim == 2:
        advice = "if it is one image, save images[None]"
    elif images.ndim == 4 and shape[1] in (1, 3):
        advice = "channels come last: save images.transpose(0, 2, 3, 1)"
    elif images.ndim == 4 and shape[3] == 4:
        advice = "lay transparency over a background first and save three channels"
    raise SourceError(
        f"{path} holds an array of shape {list(shape)}", allowed=ALLOWED + ", none of them 0", next_step=advice
    )


def _of_objects(path: Path, key: str) -> SourceError:
    return SourceError(
        f"{path}: {key!r} holds Python objects, which would have to be unpickled and are never loaded",
        allowed=ALLOWED,
        next_step="save np.stack(list_of_images).astype(np.uint8); images of several sizes go into a folder",
    )


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(
        f"{path} cannot be read as numpy's format; it is damaged or cut short ({error})",
        allowed=ALLOWED,
        next_step="write the file again with np.save or np.savez",
    )
