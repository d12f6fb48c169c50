"""CIFAR-10, python or binary version, packed or unpacked: 32x32 RGB photographs, ten classes.

The pickles in which it is published are loaded by an unpickler that makes arrays and nothing else.
"""

from __future__ import annotations

import io
import logging
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import SourceError
from data_schemas.files import cache_folder
from data_schemas.records import SourceRecord
from pipeline.sources.archives import digest_of_files, read_tar_members
from pipeline.sources.arrays import ArraySource
from pipeline.sources.base import ImageSource
from pipeline.sources.download import Progress, RemoteFile, fetch

logger = logging.getLogger("splatspace.sources")

_ARRAY_CLASS = object()
"""Stands for ``numpy.ndarray`` inside a pickle; cannot be called, so no array of a pickle's choice is made."""

ARCHIVE = RemoteFile(
    "cifar10/cifar-10-python.tar.gz",
    ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
    "sha256:6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    most_bytes=512 << 20,
)

LABEL_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

BATCH_IMAGES = 10_000
PIXEL_BYTES = 3072
RECORD_BYTES = 1 + PIXEL_BYTES

PARTS = {
    "train": ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    "test": ("test_batch",),
}
PARTS["all"] = PARTS["train"] + PARTS["test"]

FOLDERS = (
    "",
    "cifar-10-batches-py",
    "cifar-10-batches-bin",
    "cifar10",
    "cifar10/cifar-10-batches-py",
    "cifar10/cifar-10-batches-bin",
)
"""Where unpacked batches are looked for below ``--data-dir``."""

_ARCHIVES = ("cifar-10*.tar*", "cifar-10*.tgz", "cifar10/cifar-10*.tar*", "cifar10/cifar-10*.tgz")
_MOST_PART_BYTES = 64 << 20


def load_restricted(data: bytes, name: str) -> dict[str, Any]:
    """A dictionary of numbers, strings, lists and numpy arrays of plain numbers; no other class is ever called.

    Args:
        data: a pickle, of Python 2 or 3.
        name: what an error message calls it.

    Raises:
        SourceError: the pickle asks for anything else, is damaged or cut short, or is no dictionary.
    """
    try:
        loaded = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except SourceError as error:
        raise SourceError(f"{name}: {error.got}", allowed=error.allowed, next_step=error.next_step) from None
    # A damaged pickle may raise any error at all, MemoryError for an absurd length among them.
    except Exception as error:
        raise SourceError(
            f"{name} is damaged or cut short ({type(error).__name__}: {error})", next_step="download it again"
        ) from error
    if not isinstance(loaded, dict):
        raise SourceError(f"{name} holds a {type(loaded).__name__}", allowed="a dictionary, as CIFAR-10 is published")
    return {key.decode("latin1") if isinstance(key, bytes) else str(key): value for key, value in loaded.items()}


def _empty_array(kind: object, shape: object, code: object) -> NDArray[Any]:
    """Stands in for numpy's own function, which would allocate whatever shape a pickle names."""
    if kind is not _ARRAY_CLASS or shape != (0,):
        raise SourceError("A pickle asks for an array in an unusual way", allowed="arrays as numpy pickles them")
    return np.ndarray((0,), dtype=np.uint8)


def _plain_dtype(text: str, *_: object) -> np.dtype[Any]:
    dtype = np.dtype(text)
    if dtype.kind not in "buif":
        raise SourceError(f"A pickle asks for an array of {text!r}", allowed="arrays of plain numbers")
    return dtype


def _latin1_bytes(text: object, encoding: object) -> bytes:
    """Stands in for ``_codecs.encode``, by which Python 3 writes bytes into a pickle of protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise SourceError("A pickle asks for another encoding than latin1", allowed="bytes as Python pickles them")
    return text.encode("latin1")


_ALLOWED = {
    ("_codecs", "encode"): _latin1_bytes,
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy", "ndarray"): _ARRAY_CLASS,
    ("numpy", "dtype"): _plain_dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise SourceError(
                f"A pickle asks for {module}.{name}, which is never loaded",
                allowed="numbers, strings, lists, dictionaries and numpy arrays",
                next_step="do not trust this file; download the official one",
            ) from None


@dataclass(frozen=True)
class _Part:
    """Raw bytes of one batch, of either version."""

    name: str
    where: str
    file: Path
    data: bytes
    binary: bool


def open_cifar10(*, data_dir: Path | None, split: str, download: bool, progress: Progress | None) -> ImageSource:
    """CIFAR-10 from ``data_dir``, the cache, or the network.

    Args:
        data_dir: folder with an archive or unpacked batches of either version (or an archive itself). A set
            with some batches only is read as far as it goes, with a warning, and the record's name says so.
        split: ``train``, ``test`` or ``all`` (train, then test).
        download: whether the network may be used.
        progress: told of downloads.

    Raises:
        SourceError: no batch of that split, or one that is cut short or damaged; ArchiveError and
            DownloadError are such errors.
    """
    if data_dir is None:
        if download:
            data_dir = fetch(ARCHIVE, progress=progress)
        else:
            data_dir = cache_folder() / ARCHIVE.name
            if not data_dir.is_file():
                raise SourceError(
                    f"{data_dir} is not there and downloading is off",
                    next_step="allow the download, or give --data-dir with CIFAR-10",
                )
    parts = _find_parts(data_dir, PARTS[split])
    missing = [name for name in PARTS[split] if name not in parts]
    if len(missing) == len(PARTS[split]):
        raise SourceError(
            f"{data_dir} holds no {' or '.join(missing)} (needed for --split {split})",
            allowed="cifar-10-python.tar.gz, cifar-10-binary.tar.gz (also .xz), or the unpacked batches",
            next_step="check --data-dir and --split, or leave --data-dir out to download",
        )
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.int32]] = []
    identifiers: list[str] = []
    notes: list[str] = []
    for name, part in parts.items():
        pixels, classes = (_decode_binary if part.binary else _decode_pickle)(part)
        images.append(pixels)
        labels.append(classes)
        half, first = ("test", 0) if name == "test_batch" else ("train", (int(name[-1]) - 1) * BATCH_IMAGES)
        identifiers += [f"{half}/{first + index:05}" for index in range(len(pixels))]
        if len(pixels) < BATCH_IMAGES:
            notes.append(f"{name} with {len(pixels)} of {BATCH_IMAGES} images")
    if missing:
        notes.insert(0, "without " + ", ".join(missing))
    if notes:
        logger.warning("%s: CIFAR-10 is not complete: %s", data_dir, "; ".join(notes))
    record = SourceRecord(
        name="cifar10" + (f" ({'; '.join(notes)})" if notes else ""),
        split=split,
        digest=digest_of_files(sorted({part.file for part in parts.values()})),
        licence="none stated by the authors, who ask to be cited",
        attribution="Alex Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009",
        label_names=LABEL_NAMES,
    )
    return ArraySource(record, np.concatenate(images), identifiers, np.concatenate(labels))


def _decode_binary(part: _Part) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    count, rest = divmod(len(part.data), RECORD_BYTES)
    if rest or not count:
        raise SourceError(
            f"{part.where} is cut short or no CIFAR-10 batch: {len(part.data)} bytes",
            allowed=f"a multiple of {RECORD_BYTES} (1 label and {PIXEL_BYTES} pixels)",
            next_step="download it again",
        )
    records = np.frombuffer(part.data, np.uint8).reshape(count, RECORD_BYTES)
    return _check(part, records[:, 1:], records[:, 0])


def _decode_pickle(part: _Part) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    batch = load_restricted(part.data, part.where)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, (list, np.ndarray)):
        raise SourceError(
            f"{part.where} has the entries {', '.join(map(repr, batch)) or '(none)'}",
            allowed="'data' (an array) and 'labels' (a list)",
            next_step="download it again",
        )
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != PIXEL_BYTES or len(pixels) != len(labels):
        raise SourceError(
            f"{part.where} holds {pixels.dtype} {list(pixels.shape)} and {len(labels)} labels",
            allowed=f"uint8 [N, {PIXEL_BYTES}] and N labels",
            next_step="download it again",
        )
    return _check(part, pixels, labels)


def _check(part: _Part, pixels: NDArray[np.uint8], labels: Any) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    numbers = np.asarray(labels)
    if not np.issubdtype(numbers.dtype, np.integer) or numbers.min() < 0 or numbers.max() >= len(LABEL_NAMES):
        raise SourceError(
            f"{part.where} holds labels outside 0 to 9; it is damaged or no CIFAR-10 batch",
            next_step="download it again",
        )
    # Stored as a red, a green and a blue plane; wanted with the channel last.
    planes = pixels.reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), numbers.astype(np.int32)


def _find_parts(data_dir: Path, wanted: tuple[str, ...]) -> dict[str, _Part]:
    """Each wanted batch from the first place that has it, in the order of ``wanted``."""
    found: dict[str, _Part] = {}
    archives = [data_dir] if data_dir.is_file() else sorted({p for glob in _ARCHIVES for p in data_dir.glob(glob)})
    if data_dir.is_dir():
        for folder in FOLDERS:
            for name in wanted:
                for file, binary in ((data_dir / folder / name, False), (data_dir / folder / f"{name}.bin", True)):
                    if name not in found and file.is_file():
                        found[name] = _Part(name, str(file), file, _read_bounded(file), binary)
    for archive in archives:
        names = [name for name in wanted if name not in found]
        if not names:
            break
        members = read_tar_members(archive, {*names, *(f"{name}.bin" for name in names)}, _MOST_PART_BYTES)
        for member, data in members.items():
            name = member.removesuffix(".bin")
            found.setdefault(name, _Part(name, f"{archive}: {member}", archive, data, member.endswith(".bin")))
    return {name: found[name] for name in wanted if name in found}


def _read_bounded(file: Path) -> bytes:
    if file.stat().st_size > _MOST_PART_BYTES:
        raise SourceError(f"{file} has {file.stat().st_size:,} bytes", allowed="about 31,000,000 for a CIFAR-10 batch")
    return file.read_bytes()
