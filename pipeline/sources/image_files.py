"""A source over many image files, wherever their bytes lie: headers are scanned once, pixels are read on demand."""

from __future__ import annotations

import logging
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import PurePosixPath
from typing import BinaryIO

from data_schemas.errors import ImageError, SourceError
from data_schemas.records import SourceRecord
from pipeline.image_limits import BLACK
from pipeline.sources.base import ImageNote, LeftOut, SourceImage, some, warn_of_left_out
from pipeline.sources.decoding.decode_image import DecodedImage, ImageHeader, read_header, read_image
from pipeline.sources.decoding.formats import (
    HEAD_BYTES,
    READ_NAMES,
    ImageFormat,
    format_of_file,
    format_of_name,
    unread,
)

logger = logging.getLogger("splatspace.sources")

_SCANNED_FIRST = 128
_SLOW_SECONDS = 0.002  # for one header: such a disk is far away, and waiting for many at a time pays
_SCAN_THREADS = 16
_NAMED_IN_MESSAGES = 5


@dataclass(frozen=True)
class ImageFile:
    """One file that may be an image.

    Attributes:
        identifier: relative path with ``/``.
        open: gives its bytes as a stream; may raise OSError or ImageError.
        label: class number, -1 where there is none.
        refusal: why it is not opened at all ("" where it may be).
    """

    identifier: str
    open: Callable[[], BinaryIO]
    label: int = -1
    refusal: str = ""

    @property
    def promised_format(self) -> ImageFormat | None:
        """The format that the name's ending promises; None where the name is not that of an image."""
        return format_of_name(self.identifier)


@dataclass(frozen=True)
class _Scanned:
    """What a look at a file's beginning found.

    Attributes:
        file: which.
        header: of an image that can be read.
        failure: why it cannot ("" where it can).
        is_image: whether it is an image, readable or not; None where that cannot be told.
    """

    file: ImageFile
    header: ImageHeader | None
    failure: str
    is_image: bool | None = True


class ImageFileSource:
    """An ``ImageSource`` over image files.

    A file that is an image by its content, or whose name promises one, is in the source: as a failure where it cannot
    be read. Every other file is left out, counted and named in one warning.

    Args:
        record: where the files came from; the number of files left out is added.
        files: in source order, identifiers unique.
        size: cut to a square and resize to so many pixels a side; None: all must have one size.
        where: what an error message calls the place.
        background: what transparency is laid over, ``#rrggbb``; it enters the record.
        left_out: files of the place that are not among ``files``, by reason.
        folders_are_labels: the nested folder of an image is its class; the names are added to the record.

    Raises:
        SourceError: no image at all, none that can be read, or several sizes without ``size``.
    """

    def __init__(
        self,
        record: SourceRecord,
        files: Sequence[ImageFile],
        *,
        size: int | None,
        where: str,
        background: str = BLACK,
        left_out: Sequence[LeftOut] = (),
        folders_are_labels: bool = False,
    ) -> None:
        self._size = size
        self._background = background
        images, others = _scan_all(files, where, background)
        count = warn_of_left_out(where, (*others, *left_out))
        if not images:
            raise SourceError(
                f"{where} holds no images" + (f", and {count:,} other files" if count else ""),
                allowed=f"{READ_NAMES} files, also in nested folders",
                next_step="give the folder, .zip, .npz or .npy that holds the images",
            )
        label_names: tuple[str, ...] = ()
        if folders_are_labels:
            # Only now is it known which files are images: the others make no class.
            labelled, label_names = with_folder_labels([image.file for image in images])
            images = [replace(image, file=file) for image, file in zip(images, labelled, strict=True)]
        self._images = images
        found = {"left_out": count, "label_names": label_names or record.label_names, "background": background}
        self._record = record.model_copy(update=found)
        headers = [image.header for image in images if image.header is not None]
        if not headers:
            raise SourceError(
                f"{where} holds no readable image; "
                + _some([f"{image.file.identifier}: {image.failure}" for image in images]),
                allowed=READ_NAMES,
            )
        height, width = (size, size) if size is not None else _only_size(images, where)
        self._shape = (height, width, 3 if any(header.colour for header in headers) else 1)
        self._identifiers = tuple(image.file.identifier for image in images)

    @property
    def record(self) -> SourceRecord:
        """Name, split, digest, licence and attribution."""
        return self._record

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of every readable image; three channels where any image has colour."""
        return self._shape

    def __len__(self) -> int:
        return len(self._images)

    def identifiers(self) -> Sequence[str]:
        """Relative paths in source order."""
        return self._identifiers

    def read(self, indices: Sequence[int]) -> list[SourceImage]:
        """Decodes images; one that cannot be read comes back with ``failure`` set."""
        return [self._read_one(self._images[index]) for index in indices]

    def _read_one(self, image: _Scanned) -> SourceImage:
        file = image.file
        if image.failure:
            return SourceImage(file.identifier, None, file.label, image.failure)
        try:
            with file.open() as stream:
                data = stream.read()
            found = read_image(data, colour=self._shape[2] == 3, size=self._size, background=self._background)
        except ImageError as error:
            return SourceImage(file.identifier, None, file.label, str(error))
        except OSError as error:
            return SourceImage(
                file.identifier, None, file.label, f"The file cannot be read: {error.strerror or error}."
            )
        pixels = found.pixels
        if pixels.shape != self._shape:
            size = f"{pixels.shape[1]} x {pixels.shape[0]}"
            failure = f"The image is now {size} pixels, not as when the source was opened."
            return SourceImage(file.identifier, None, file.label, failure)
        return SourceImage(file.identifier, pixels, file.label, notes=_notes(found, image.header))


def natural_key(name: str) -> tuple[tuple[str, int, str], ...]:
    """Sorts ``2.png`` before ``10.png``; a total order, the same on every machine."""
    # Numbers are compared by their length and then as text: a name may hold more digits than int() takes.
    pieces = [(text, digits.lstrip("0")) for text, digits in re.findall(r"([^0-9]*)([0-9]*)", name)]
    return (*((text, len(digits), digits) for text, digits in pieces), (name, 0, ""))


def with_folder_labels(files: Sequence[ImageFile]) -> tuple[list[ImageFile], tuple[str, ...]]:
    """Labels from nested folders: the folder of an image, below the deepest folder that all images share.

    Args:
        files: images only, readable or not.

    Returns:
        The files with labels (-1 for one that lies directly in the shared folder), and the label names; no
        names where all images lie in one folder.
    """
    parents = [PurePosixPath(file.identifier).parts[:-1] for file in files]
    shared = len(_common_start(parents))
    labels = ["/".join(parts[shared:]) for parts in parents]
    names = sorted(set(labels) - {""}, key=natural_key)
    numbers = {name: number for number, name in enumerate(names)}
    labelled = [replace(file, label=numbers.get(label, -1)) for file, label in zip(files, labels, strict=True)]
    return labelled, tuple(names)


def without_common_folder(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Identifiers relative to the deepest folder that all files share: the same for a folder and any zip of it."""
    shared = len(_common_start([PurePosixPath(file.identifier).parts[:-1] for file in files]))
    return [replace(file, identifier="/".join(PurePosixPath(file.identifier).parts[shared:])) for file in files]


def _common_start(paths: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    first, last = min(paths, default=()), max(paths, default=())
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
    return tuple(part for part, _ in same)


def _notes(found: DecodedImage, header: ImageHeader | None) -> tuple[ImageNote, ...]:
    """What should be known of a decoded image; what was said when its header was scanned is not said again."""
    notes = [ImageNote("flattened")] if found.flattened else []
    if found.vanished:
        notes.append(ImageNote("vanished"))
    said = header.messages if header is not None else ()
    messages = [message for message in found.messages if message not in said]
    if messages:
        notes.append(ImageNote("decoder", "; ".join(messages)))
    return tuple(notes)


def _scan_all(files: Sequence[ImageFile], where: str, background: str) -> tuple[list[_Scanned], list[LeftOut]]:
    """The images among some files, readable or not, and the others by reason."""
    images: list[_Scanned] = []
    others: list[str] = []
    unknown: list[str] = []
    misnamed: list[str] = []
    animated: list[str] = []
    odd: list[str] = []
    failed: list[str] = []
    for entry in _scan_headers(files, background):
        if not entry.is_image:
            (unknown if entry.is_image is None else others).append(entry.file.identifier)
            continue
        images.append(entry)
        if entry.header is None:
            failed.append(f"{entry.file.identifier}: {entry.failure}")
            continue
        found = "JPEG" if entry.header.format == "MPO" else entry.header.format
        promised = entry.file.promised_format
        if promised is None or found != promised.pillow:
            misnamed.append(f"{entry.file.identifier} is {found}")
        if entry.header.animated:
            animated.append(entry.file.identifier)
        if entry.header.messages:
            odd.append(f"{entry.file.identifier}: {'; '.join(entry.header.messages)}")
    _tell(where, misnamed, "images have another format than their names say; read all the same")
    _tell(where, animated, "images have several frames; the first is read")
    _tell(where, odd, "images have a header with faults and are read all the same")
    _tell(where, failed, "images cannot be read and are recorded as failed")
    return images, [
        LeftOut(others, "no images"),
        LeftOut(unknown, "cannot be opened and have no image's name"),
    ]


def _scan_headers(files: Sequence[ImageFile], background: str) -> list[_Scanned]:
    """One after another on a quick disk, where threads would only wait for each other; else many at a time."""
    started = time.perf_counter()
    scanned = [_scan(file, background) for file in files[:_SCANNED_FIRST]]
    rest = files[_SCANNED_FIRST:]
    if time.perf_counter() - started < _SLOW_SECONDS * len(scanned):
        return scanned + [_scan(file, background) for file in rest]
    with ThreadPoolExecutor(max_workers=_SCAN_THREADS, thread_name_prefix="scan") as threads:
        return scanned + list(threads.map(partial(_scan, background=background), rest))


def _scan(file: ImageFile, background: str) -> _Scanned:
    promised = file.promised_format
    unseen = True if promised else None  # what may be said of a file that cannot be opened
    if file.refusal:
        return _Scanned(file, None, file.refusal.rstrip(".") + ".", unseen)
    form = None
    try:
        with file.open() as stream:
            form = format_of_file(file.identifier, stream.read(HEAD_BYTES))
            if form is None:
                return _Scanned(file, None, "", is_image=False)
            if not form.pillow:
                raise unread(form)
            return _Scanned(file, read_header(stream, background), "")
    except ImageError as error:
        # A beginning that other files have too is no proof of an image.
        return _Scanned(file, None, str(error), unseen if form is None else promised is not None or not form.weak)
    except OSError as error:
        return _Scanned(file, None, f"The file cannot be read: {error.strerror or error}.", unseen)


def _only_size(images: Sequence[_Scanned], where: str) -> tuple[int, int]:
    examples: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
    for image in images:
        if image.header is not None:
            examples[image.header.height, image.header.width].append(image.file.identifier)
    if len(examples) == 1:
        return next(iter(examples))
    counts = Counter({size: len(names) for size, names in examples.items()}).most_common()
    listed = [
        f"{width} x {height}: {count} (such as {examples[height, width][0]})" for (height, width), count in counts
    ]
    smallest = min(min(size) for size in examples)
    raise SourceError(
        f"{where} holds images of {len(counts)} sizes (width x height): {_some(listed)}",
        allowed="images of one size, or --size",
        next_step=f"type --size N, such as --size {min(max(smallest, 16), 64)}: each is cut to a centred square of "
        "its shorter side and resized",
    )


def _tell(where: str, names: Sequence[str], what: str) -> None:
    if names:
        logger.warning("%s: %d %s (%s)", where, len(names), what, _some(names))


def _some(names: Sequence[str]) -> str:
    return some(names, _NAMED_IN_MESSAGES)
