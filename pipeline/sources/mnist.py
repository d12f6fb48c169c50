"""MNIST and whatever else comes as idx files: 28x28 grey digits, ten classes."""

from __future__ import annotations

import gzip
import logging
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import SourceError
from data_schemas.files import cache_folder
from data_schemas.records import SourceRecord
from pipeline.sources.archives import digest_of_files
from pipeline.sources.arrays import ArraySource
from pipeline.sources.base import ImageSource
from pipeline.sources.download import Progress, RemoteFile, fetch

logger = logging.getLogger("splatspace.sources")

MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "http://yann.lecun.com/exdb/mnist/",
)

CHECKSUMS = {
    "train-images-idx3-ubyte.gz": "md5:f68b3c2dcbeaaa9fbdd348bbdeb94873",
    "train-labels-idx1-ubyte.gz": "md5:d53e105ee54ea40749a09fcbcd1e9432",
    "t10k-images-idx3-ubyte.gz": "md5:9fb629c4189551a2d022fa330f9573f3",
    "t10k-labels-idx1-ubyte.gz": "md5:ec29112dd5afa0611ce80d1b7f02629c",
}

SUBFOLDERS = ("", "MNIST/raw", "mnist", "raw", "MNIST")
"""Where the files are looked for below ``--data-dir``."""

IMAGES_MAGIC, LABELS_MAGIC = 0x803, 0x801

MOST_IDX_BYTES = 4 << 30

_PREFIXES = {"train": ("train",), "test": ("t10k",), "all": ("train", "t10k")}
_SPLIT_OF_PREFIX = {"train": "train", "t10k": "test"}


def open_mnist(*, data_dir: Path | None, split: str, download: bool, progress: Progress | None) -> ImageSource:
    """MNIST from ``data_dir``, the cache, or the network.

    Args:
        data_dir: folder with the four files (``.gz`` or not), directly or in one of SUBFOLDERS. Its files need
            not be the official ones, only consistent; None: download, checked by the official md5.
        split: ``train``, ``test`` or ``all`` (train, then test).
        download: whether the network may be used.
        progress: told of downloads.

    Raises:
        SourceError: a file that is missing, cut short, or has the wrong magic; DownloadError is one of these.
    """
    images: list[NDArray[np.uint8]] = []
    labels: list[NDArray[np.uint8]] = []
    identifiers: list[str] = []
    files: list[Path] = []
    for prefix in _PREFIXES[split]:
        image_file, label_file = (
            _locate(f"{prefix}-{kind}-ubyte", data_dir, split, download, progress)
            for kind in ("images-idx3", "labels-idx1")
        )
        part = read_idx(image_file, IMAGES_MAGIC)
        part_labels = read_idx(label_file, LABELS_MAGIC)
        if len(part) != len(part_labels):
            raise SourceError(
                f"{image_file.name} holds {len(part)} images, {label_file.name} {len(part_labels)} labels",
                allowed="as many labels as images",
                next_step="take both files from one place",
            )
        if images and part.shape[1:] != images[0].shape[1:]:
            raise SourceError(
                f"train images are {images[0].shape[1:]}, test images {part.shape[1:]} (height, width)",
                allowed="one size",
                next_step="choose --split train or --split test",
            )
        images.append(part)
        labels.append(part_labels)
        files += [image_file, label_file]
        digits = max(5, len(str(len(part) - 1)))
        identifiers += [f"{_SPLIT_OF_PREFIX[prefix]}/{index:0{digits}}" for index in range(len(part))]
    record = SourceRecord(
        name="mnist",
        split=split,
        digest=digest_of_files(files),
        licence="none stated by the authors (CC BY-SA 3.0 according to the Keras documentation)",
        attribution="The MNIST database of handwritten digits, Yann LeCun and Corinna Cortes",
        label_names=tuple("0123456789"),
    )
    pixels = images[0] if len(images) == 1 else np.concatenate(images)
    classes = np.concatenate(labels).astype(np.int32)
    if not len(pixels):
        raise SourceError(f"{files[0]} holds 0 images", allowed="at least one")
    return ArraySource(record, pixels[..., None], identifiers, classes)


def read_idx(path: Path, magic: int) -> NDArray[np.uint8]:
    """Reads an idx file of unsigned bytes, gzipped or not (told by its content).

    Args:
        path: the file.
        magic: what its first four bytes must be; the lowest byte is the number of axes.

    Returns:
        uint8 with the shape that the header says.

    Raises:
        SourceError: names the file, what was expected and what was got.
    """
    axes = magic & 0xFF
    header_bytes = 4 + 4 * axes
    try:
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if zipped else raw
            header = stream.read(header_bytes)
            found = struct.unpack(">I", header[:4])[0] if len(header) >= 4 else None
            if found != magic:
                got = "fewer than 4 bytes" if found is None else f"the magic number 0x{found:08x}"
                raise SourceError(
                    f"{path} begins with {got}",
                    allowed=f"0x{magic:08x}, idx {'images' if axes == 3 else 'labels'} of unsigned bytes",
                    next_step="check that the file is what its name says, or download it again",
                )
            if len(header) < header_bytes:
                raise _cut_short(path, f"a header of {header_bytes} bytes", len(header))
            shape = struct.unpack(f">{axes}I", header[4:])
            expected = math.prod(shape)
            if expected > MOST_IDX_BYTES:
                raise SourceError(f"{path} announces {expected:,} bytes of pixels", allowed=f"up to {MOST_IDX_BYTES:,}")
            body = stream.read(expected)
            if len(body) < expected:
                raise _cut_short(path, f"{expected} bytes after the header (shape {list(shape)})", len(body))
            if stream.read(1):
                raise SourceError(
                    f"{path} goes on after the {expected} bytes that its header announces (shape {list(shape)})",
                    allowed="exactly as many",
                    next_step="download the file again",
                )
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(
            f"{path} cannot be read; it is damaged or cut short ({error})", next_step="copy or download it again"
        ) from error
    return np.frombuffer(body, np.uint8).reshape(shape)


def _cut_short(path: Path, expected: str, got: int) -> SourceError:
    return SourceError(f"{path} is cut short: expected {expected}, got {got}", next_step="download it again")


def _locate(stem: str, data_dir: Path | None, split: str, download: bool, progress: Progress | None) -> Path:
    if data_dir is None:
        name = f"{stem}.gz"
        if not download:
            cached = cache_folder() / "mnist" / name
            if cached.is_file():
                return cached
            raise SourceError(
                f"{cached} is not there and downloading is off",
                next_step="allow the download, or give --data-dir with the four MNIST files",
            )
        urls = tuple(mirror + name for mirror in MIRRORS)
        return fetch(RemoteFile(f"mnist/{name}", urls, CHECKSUMS[name], most_bytes=64 << 20), progress=progress)
    # Some copies are named with a dot before "idx".
    dotted = stem.replace("-idx", ".idx")
    names = [stem + ".gz", stem, dotted + ".gz", dotted]
    for subfolder in SUBFOLDERS:
        for name in names:
            if (path := data_dir / subfolder / name).is_file():
                return path
    others = [other for other in ("train", "t10k") if not stem.startswith(other)]
    has_other = any(
        (data_dir / subfolder / name.replace(stem.split("-")[0], others[0], 1)).is_file()
        for subfolder in SUBFOLDERS
        for name in names
    )
    advice = f"type --split {_SPLIT_OF_PREFIX[others[0]]}, which is there" if has_other else "check --data-dir"
    raise SourceError(
        f"{data_dir} has no {stem} (needed for --split {split})",
        allowed=f"{stem} or {stem}.gz directly, or in {', '.join(SUBFOLDERS[1:])}",
        next_step=advice + ", or leave --data-dir out to download",
    )
