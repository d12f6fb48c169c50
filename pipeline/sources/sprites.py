"""Sprites (Li & Mandt 2018): 1,296 characters in 63 poses, 81,648 images, composed when they are read.

Pixels come from layer sheets, the ready array, or files of composed frames.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from data_schemas.errors import ArchiveError, ImageError, SourceError
from data_schemas.files import cache_folder
from data_schemas.records import SourceRecord
from pipeline.sources.archives import digest_of_files, digest_of_listing
from pipeline.sources.base import ImageSource, SourceImage
from pipeline.sources.decoding.decode_image import decode_image
from pipeline.sources.download import Progress, RemoteFile, fetch
from pipeline.sources.folder import list_folder, list_zip
from pipeline.sources.image_files import ImageFile
from pipeline.sources.sprite_sheets import (
    ACTION_NAMES,
    CELL,
    CHARACTERS,
    CHOICES,
    POSES,
    SHEET_SHA256,
    SpriteSheets,
    find_changed_sheets,
    halve,
    read_sheet_folder,
    read_sheet_zip,
)

logger = logging.getLogger("splatspace.sources")

COMMIT = "3ce4048c5227802bd8f1888e293fd3afdba91c0c"
_RAW = f"https://raw.githubusercontent.com/YingzhenLi/Sprites/{COMMIT}/"

SIZES = (32, 64)
TRAIN_CHARACTERS = 1000

LICENCE = "CC-BY-SA 3.0 and GPL 3.0 (the art); a store of it is under the same terms"
ATTRIBUTION = (
    "Liberated Pixel Cup and Universal LPC Spritesheet authors (lpc.opengameart.org), sheets as collected in "
    "github.com/YingzhenLi/Sprites; the set is Sprites of Yingzhen Li and Stephan Mandt, Disentangled Sequential "
    "Autoencoder, ICML 2018. Changed here: layers composed over black"
)

_SUBFOLDERS = ("", "sprites", "LPC", "Sprites")
_FRAME_NAME = re.compile(r"(?P<action>[a-z]+)/(?P<direction>[a-z]+)_(?P<outfit>[0-5]{4})_(?P<frame>\d)\.png")

POSE_NUMBERS = {pose.name: number for number, pose in enumerate(POSES)}
_LABELS = np.array([ACTION_NAMES.index(f"{pose.action} {pose.direction}") for pose in POSES])


class Frames(Protocol):
    """Pixels by the numbers of image of the whole set, pose * 1296 + character."""

    def take(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
        """Pixels uint8 [size, size, 3], or why there are none."""
        ...


class ComposedFrames:
    """Composes on request and keeps nothing.

    Args:
        sheets: the layers.
        size: 64 or 32 pixels a side.
    """

    def __init__(self, sheets: SpriteSheets, size: int) -> None:
        self._sheets = sheets
        self._size = size

    def take(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
        """Pixels, or why there are none."""
        result = np.empty((len(numbers), self._size, self._size, 3), np.uint8)
        poses = numbers // CHARACTERS
        for pose in np.unique(poses):
            at = np.flatnonzero(poses == pose)
            result[at] = self._sheets.compose(int(pose), numbers[at] % CHARACTERS, half=self._size != CELL)
        return list(result)


class ArrayFrames:
    """The ready array, in memory.

    Args:
        images: uint8 [image, 32, 32, 3], all of them.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._images = images

    def take(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
        """Pixels, or why there are none."""
        return list(self._images[numbers])


class FileFrames:
    """Composed frames as PNG files.

    Args:
        files: by number of the image.
        size: 64 or 32 pixels a side.
    """

    def __init__(self, files: dict[int, ImageFile], size: int) -> None:
        self._files = files
        self._size = size

    def take(self, numbers: NDArray[np.int64]) -> list[NDArray[np.uint8] | str]:
        """Pixels, or why there are none."""
        return [self._one(self._files[int(number)]) for number in numbers]

    def _one(self, file: ImageFile) -> NDArray[np.uint8] | str:
        try:
            with file.open() as stream:
                pixels = decode_image(stream.read(), colour=True)
        except (ImageError, OSError) as error:
            return str(error)
        if pixels.shape != (CELL, CELL, 3):
            return f"The frame has {pixels.shape[1]} x {pixels.shape[0]} pixels. Allowed: {CELL} x {CELL}."
        return pixels if self._size == CELL else halve(pixels[None])[0]


class SpriteSource:
    """An ``ImageSource`` over frames, wherever they come from.

    Args:
        record: name, split, digest, licence and attribution.
        frames: gives pixels.
        numbers: int [image], which of the 81,648 images are in the source, in order.
        size: pixels a side.
    """

    def __init__(self, record: SourceRecord, frames: Frames, numbers: NDArray[np.int64], size: int) -> None:
        self._record = record
        self._frames = frames
        self._numbers = numbers
        self._size = size
        self._identifiers = tuple(_identifier(int(number)) for number in numbers)

    @property
    def record(self) -> SourceRecord:
        """Name, split, digest, licence and attribution."""
        return self._record

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(size, size, 3)."""
        return self._size, self._size, 3

    def __len__(self) -> int:
        return len(self._numbers)

    def identifiers(self) -> Sequence[str]:
        """``action/direction/frame/character``, such as ``spellcard/left/0/0017``."""
        return self._identifiers

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Composes or copies images; indices of one pose side by side are cheapest."""
        numbers = self._numbers[np.asarray(indices, dtype=np.int64)] if len(indices) else np.zeros(0, np.int64)
        images: list[SourceImage] = []
        for index, number, pixels in zip(indices, numbers, self._frames.take(numbers), strict=True):
            label = int(_LABELS[number // CHARACTERS])
            failed = isinstance(pixels, str)
            images.append(
                SourceImage(self._identifiers[index], None if failed else pixels, label, pixels if failed else "")
            )
        return images


def open_sprites(
    *, data_dir: Path | None, split: str, size: int, download: bool, progress: Progress | None
) -> ImageSource:
    """Sprites from ``data_dir``, the cache, or the network.

    What is found first is taken: the layer sheets (a folder, ``lpc_sheets.zip`` or any zip that holds them;
    composing them is quicker than unpacking the array, and gives both sizes), the ready array
    ``sprites32_box.npz``, then composed frames (``frames64*.zip`` or ``frames/``), which may be some only.

    Args:
        data_dir: where to look, also in its folders ``sprites`` and ``LPC``; or one of those files itself.
        split: ``all``; ``train`` and ``test`` divide the characters, see ``characters_of``.
        size: 64, as drawn, or 32, the rounded mean of every 2x2 box.
        download: whether the network may be used for the 25 sheets.
        progress: told of downloads.

    Raises:
        SourceError: nothing there, another size, or a damaged file.
    """
    if size not in SIZES:
        raise SourceError(f"Sprites at {size} x {size}", allowed="32 or 64", next_step="type --size 32 or --size 64")
    wanted = np.flatnonzero(np.isin(np.arange(len(POSES) * CHARACTERS) % CHARACTERS, characters_of(split)))
    if data_dir is None:
        folder = _download(download, progress)
        frames, digest, available = _from_sheets(folder, read_sheet_folder(folder) or {}, size)
    else:
        frames, digest, available = _find(data_dir, size)
    numbers = wanted if available is None else np.intersect1d(wanted, available)
    if not len(numbers):
        raise SourceError(f"{data_dir} holds no frames of --split {split}", next_step="type --split all")
    note = "" if len(numbers) == len(wanted) else f" ({len(numbers)} of {len(wanted)} images)"
    if note:
        logger.warning("%s: Sprites is not complete%s", data_dir, note)
    record = SourceRecord(
        name=f"sprites{size if size != 32 else ''}{note}",
        split=split,
        digest=digest,
        licence=LICENCE,
        attribution=ATTRIBUTION + (", reduced to 32x32 by 2x2 box means." if size == 32 else "."),
        label_names=ACTION_NAMES,
    )
    return SpriteSource(record, frames, numbers, size)


def characters_of(split: str) -> NDArray[np.int64]:
    """Characters of a split, ascending: 1,000 for training, 296 for testing, as Li & Mandt divided them.

    Their own choice was random and is not published. Here the characters are ordered by the BLAKE2b hash of
    their number and the first 1,000 train: every body and garment is on both sides, which a cut by number,
    where the last bodies would never be seen in training, does not give.
    """
    order = sorted(range(CHARACTERS), key=lambda number: hashlib.blake2b(b"sprites %d" % number).digest())
    chosen = {"train": order[:TRAIN_CHARACTERS], "test": order[TRAIN_CHARACTERS:], "all": order}[split]
    return np.array(sorted(chosen), dtype=np.int64)


_Found = tuple[Frames, str, NDArray[np.int64] | None]


def _find(data_dir: Path, size: int) -> _Found:
    """Frames, digest, and the numbers of the images that are there (None: all)."""
    folders = [data_dir / name for name in _SUBFOLDERS if (data_dir / name).is_dir()]
    zips = [data_dir] if data_dir.suffix == ".zip" else sorted({p for f in folders for p in f.glob("*.zip")})
    for folder in folders:
        if (sheets := read_sheet_folder(folder)) is not None:
            return _from_sheets(folder, sheets, size)
    for path in zips:
        try:
            if (sheets := read_sheet_zip(path)) is not None:
                return _from_sheets(path, sheets, size)
        except ImageError as error:
            raise ArchiveError(f"{path}: {error}", next_step="copy or download it again") from error
    arrays = [data_dir] if data_dir.suffix == ".npz" else [folder / "sprites32_box.npz" for folder in folders]
    for path in arrays:
        if path.is_file() and size == 32:
            return ArrayFrames(_read_array(path)), digest_of_files([path]), None
    for path in zips:
        if files := _frame_files(list_zip(path).files):
            return FileFrames(files, size), digest_of_files([path]), np.array(sorted(files), dtype=np.int64)
    for folder in folders:
        if (folder / "frames").is_dir():
            listing = list_folder(folder / "frames")
            if files := _frame_files(listing.files):
                digest = digest_of_listing(listing.sizes.items())
                return FileFrames(files, size), digest, np.array(sorted(files), dtype=np.int64)
    only_small = any(path.is_file() for path in arrays)
    raise SourceError(
        f"{data_dir} holds {'Sprites at 32 x 32 only' if only_small else 'no Sprites'}",
        allowed="the layer sheets (body/0.png ... shoes/1.png, in folders or a zip), frames at 64 x 64, "
        "or, for 32 x 32, sprites32_box.npz",
        next_step="type sprites instead of sprites64" if only_small else "leave --data-dir out to download the sheets",
    )


def _from_sheets(path: Path, sheets: dict[str, bytes], size: int) -> _Found:
    if changed := find_changed_sheets(sheets):
        logger.warning("%s: %d sheets are not the official ones (%s)", path, len(changed), ", ".join(changed[:5]))
    digest = hashlib.sha256("".join(f"{n} {hashlib.sha256(sheets[n]).hexdigest()}\n" for n in sheets).encode())
    return ComposedFrames(SpriteSheets(sheets), size), "sha256:" + digest.hexdigest(), None


def _read_array(path: Path) -> NDArray[np.uint8]:
    expected = (len(POSES) * CHARACTERS, 32, 32, 3)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            poses = tuple(arrays["poses"].tolist()) if "poses" in arrays.files else ()
            images: NDArray[Any] = arrays["images"] if "images" in arrays.files else np.zeros(0)
    # zipfile, zlib and numpy each raise their own kinds for damaged bytes.
    except Exception as error:
        raise SourceError(
            f"{path} cannot be read; it is damaged or cut short ({error})", next_step="copy it again"
        ) from error
    if images.dtype != np.uint8 or images.shape != expected or poses != tuple(POSE_NUMBERS):
        raise SourceError(
            f"{path} holds images {images.dtype} {list(images.shape)} and {len(poses)} poses",
            allowed=f"images uint8 {list(expected)} and the {len(POSES)} poses in order",
            next_step="use the layer sheets",
        )
    return images


def _frame_files(files: Sequence[ImageFile]) -> dict[int, ImageFile]:
    found: dict[int, ImageFile] = {}
    for file in files:
        match = _FRAME_NAME.fullmatch("/".join(PurePosixPath(file.identifier).parts[-2:]))
        pose = POSE_NUMBERS.get(f"{match['action']}/{match['direction']}/{match['frame']}") if match else None
        if match and pose is not None:
            found[pose * CHARACTERS + int(match["outfit"], CHOICES)] = file
    return found


def _identifier(number: int) -> str:
    pose, character = divmod(number, CHARACTERS)
    return f"{POSES[pose].name}/{character:04}"


def _download(download: bool, progress: Progress | None) -> Path:
    folder = cache_folder() / "sprites"
    for name, digest in SHEET_SHA256.items():
        if download:
            fetch(RemoteFile(f"sprites/{name}", (_RAW + name,), f"sha256:{digest}", 1 << 20), progress=progress)
        elif not (folder / name).is_file():
            raise SourceError(
                f"{folder / name} is not there and downloading is off",
                next_step="allow the download, or give --data-dir with the layer sheets",
            )
    return folder
