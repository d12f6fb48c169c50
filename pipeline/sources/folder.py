"""A folder of images, or a .zip of such a folder. Nested folders become labels.

What SplatSpace itself wrote there (stores, reports, samples, trainings) is never a source. Each is known by what it is
called and by what is in it, so that a folder of the user's that merely has such a name stays one. A folder that is
given itself is a source, whatever it holds: samples can be encoded.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from data_schemas.errors import ImageError, SourceError, StoreError
from data_schemas.locations import resolve_path
from data_schemas.records import SourceRecord
from pipeline.image_limits import BLACK
from pipeline.sources.archives import SafeZip, digest_of_files, digest_of_listing
from pipeline.sources.base import NAMED, ImageSource, LeftOut, some
from pipeline.sources.image_files import ImageFile, ImageFileSource, natural_key

logger = logging.getLogger("splatspace.sources")


_STORE = re.compile(r"(?P<store>.+\.(zarr|h5|hdf5))(?P<beside>\.lock|\.journal|\.[0-9a-f]{12}\.partial)?")
_BESIDE = (".attribution.txt", ".regression.npz", "-features")
_UNFINISHED = re.compile(r".+\.[0-9a-f]{12}\.partial")
_SAMPLED = re.compile(
    r"\d{4,}\.png|(forward|sampling)\.gif"
    r"|(grid|pixels|interpolation|roll-out|seams|table|gram|drift|zoom-\dx|blobs|ellipses)\.png"
)
_FIRST_SAMPLE = re.compile(r"0{4,}\.png")
_PAGES = {"report.html": b": splat report</title>", "evaluation.html": b": evaluation</title>"}
_HDF5 = b"\x89HDF\r\n\x1a\n"
_SCHEMA = re.compile(rb"\"schema\"\s*:\s*\"splatspace\"|schema.{0,200}?splatspace", re.DOTALL)

_DOCUMENT_BYTES = 1 << 20


def own_outputs(paths: Iterable[str], head: Callable[[str], bytes]) -> set[str]:
    """Folders and files among some paths that SplatSpace wrote.

    Args:
        paths: of files, relative, with ``/``.
        head: gives the first bytes (a MiB, say) of one of them, b"" where it cannot be read.

    Returns:
        The outermost of them; everything below a folder belongs to it.
    """
    files: defaultdict[str, set[str]] = defaultdict(set)
    folders: defaultdict[str, set[str]] = defaultdict(set)
    for path in paths:
        parts = path.split("/")
        files["/".join(parts[:-1])].add(parts[-1])
        for depth in range(1, len(parts)):
            folders["/".join(parts[: depth - 1])].add(parts[depth - 1])
    start = _where_they_part(files)
    found: set[str] = set()
    waiting = [start]
    while waiting:
        at = waiting.pop()
        prefix = f"{at}/" if at else ""
        within = {name for name in folders[at] if _is_own_folder(prefix + name, files, folders, head)}
        within |= {name for name in files[at] if _is_own_store_file(prefix + name, head)}
        stems = {PurePosixPath(name).stem for name in within}
        for name in (*folders[at], *files[at]):
            match = _STORE.fullmatch(name)
            stem = next((name.removesuffix(ending) for ending in _BESIDE if name.endswith(ending)), None)
            if stem in stems or (match is not None and match["beside"] and match["store"] in within):
                within.add(name)
        for name in files[at]:
            if name.endswith(".lock") and name.removesuffix(".lock") in within:  # of a training or an evaluation
                within.add(name)
        found |= {prefix + name for name in within}
        waiting += [prefix + name for name in folders[at] if name not in within]
    return found


def is_within(path: str, own: set[str]) -> bool:
    """Whether a path is one of ``own`` or lies below one."""
    return path in own or any(str(parent) in own for parent in PurePosixPath(path).parents)


def _where_they_part(files: dict[str, set[str]]) -> str:
    """The deepest folder that all files share: what was packed or given as the data set."""
    parts = [folder.split("/") if folder else [] for folder in files]
    first, last = min(parts, default=[]), max(parts, default=[])
    shared = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return "/".join(first[:shared])


def _is_own_folder(
    folder: str, files: dict[str, set[str]], folders: dict[str, set[str]], head: Callable[[str], bytes]
) -> bool:
    names, name = files.get(folder, set()), folder.rpartition("/")[2]
    if _UNFINISHED.fullmatch(name):
        return True
    if name.endswith(".zarr"):
        return "zarr.json" in names and bool(_SCHEMA.search(head(f"{folder}/zarr.json")))
    if any(page in names and title in head(f"{folder}/{page}") for page, title in _PAGES.items()):
        return True
    if {"card.md", "log.jsonl"} <= names or {"state.json", "state.safetensors"} <= names:  # done, or only begun
        return True
    if {"ablation.json", "ablation.md"} <= names:
        return True
    if "grid.png" not in names or not any(map(_FIRST_SAMPLE.fullmatch, names)):
        return False
    others = {name for name in names | folders.get(folder, set()) if not _SAMPLED.fullmatch(name)}
    return all(PurePosixPath(name).name.startswith("samples.") for name in others)


def _is_own_store_file(path: str, head: Callable[[str], bytes]) -> bool:
    if not path.endswith((".h5", ".hdf5")):
        return False
    start = head(path)
    return start.startswith(_HDF5) and bool(_SCHEMA.search(start))


@dataclass(frozen=True)
class Listing:
    """What lies in a folder or a zip.

    Attributes:
        files: those that may be images, in natural order.
        left_out: the others, by reason; none of what SplatSpace itself wrote.
        sizes: bytes of each of ``files`` by its identifier; 0 where it is not opened.
    """

    files: list[ImageFile]
    left_out: tuple[LeftOut, ...]
    sizes: dict[str, int]


def open_folder(path: Path, *, size: int | None = None, background: str = BLACK) -> ImageSource:
    """All images below a folder.

    Args:
        path: the folder.
        size: cut each image to a centred square and resize it to so many pixels a side.
        background: what transparency is laid over, ``#rrggbb``.

    Raises:
        SourceError: no readable image, or several sizes without ``size``.
    """
    listing = list_folder(path)
    record = SourceRecord(name=resolve_path(path).name, digest=digest_of_listing(listing.sizes.items()))
    return _images_of(listing, record, path, size, background)


def open_zip(path: Path, *, size: int | None = None, background: str = BLACK) -> ImageSource:
    """All images inside a zip; arguments and errors as ``open_folder``, and ArchiveError for an unsafe zip."""
    listing = list_zip(path)
    record = SourceRecord(name=path.stem, digest=digest_of_files([path]))
    return _images_of(listing, record, path, size, background)


def _images_of(listing: Listing, record: SourceRecord, path: Path, size: int | None, background: str) -> ImageSource:
    return ImageFileSource(
        record,
        listing.files,
        size=size,
        where=str(path),
        background=background,
        left_out=listing.left_out,
        folders_are_labels=True,
    )


def list_folder(path: Path) -> Listing:
    """Every file below a folder, in natural order; links that leave the folder are not followed.

    Raises:
        SourceError: the folder cannot be listed.
    """
    root = resolve_path(path)
    found: dict[str, Path] = {}
    linked: list[str] = []
    unlisted: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=unlisted.append):
        linked += [_identifier(file, root) for name in folders if (file := Path(folder, name)).is_symlink()]
        for name in names:
            file = Path(folder, name)
            other = found.setdefault(_identifier(file, root), file)
            if other != file:
                raise SourceError(
                    f"{path} holds two files whose names are both written {_identifier(file, root)!r}",
                    allowed="names in UTF-8",
                    next_step="rename one of them",
                )
    for error in unlisted:
        if not _is_hidden(Path(error.filename).relative_to(root).as_posix()):
            raise SourceError(
                f"{error.filename} cannot be listed ({error.strerror})",
                next_step="make the folder readable or move it away",
            )
    return _sort_out(
        str(path),
        found,
        opener=lambda name: partial(found[name].open, "rb"),
        refusal=lambda name: _refusal(found[name], root),
        size=lambda name: _bytes_of(found[name]),
        linked=linked,
    )


def list_zip(path: Path) -> Listing:
    """Every file inside a zip, in natural order.

    Raises:
        ArchiveError: no zip, cut short, or unsafe members.
    """
    archive = SafeZip(path)
    found = {member.name: member for member in archive.members}
    return _sort_out(
        str(path),
        found,
        opener=lambda name: partial(archive.open, found[name]),
        refusal=lambda name: found[name].refusal,
        size=lambda name: found[name].info.file_size,
    )


def _sort_out(
    where: str,
    names: Iterable[str],
    *,
    opener: Callable[[str], Callable[[], BinaryIO]],
    refusal: Callable[[str], str],
    size: Callable[[str], int],
    linked: Sequence[str] = (),
) -> Listing:
    """The same for a folder and a zip: what is hidden or our own is no candidate."""
    hidden = [name for name in (*names, *linked) if _is_hidden(name)]
    seen = sorted(set(names).difference(hidden), key=natural_key)

    def head(name: str) -> bytes:
        try:
            if refusal(name):
                return b""
            with opener(name)() as stream:
                return stream.read(_DOCUMENT_BYTES)
        except (OSError, ImageError):
            return b""

    own = own_outputs(seen, head)
    if own:
        logger.warning(
            "%s: what SplatSpace wrote there is no part of it (%s)", where, some(sorted(own, key=natural_key), NAMED)
        )
        seen = [name for name in seen if not is_within(name, own)]
    left_out = (
        LeftOut(sorted(hidden, key=natural_key), "hidden"),
        LeftOut([name for name in linked if not _is_hidden(name)], "linked folders, not followed"),
    )
    files, sizes = [], {}
    for name in seen:
        reason = refusal(name)
        files.append(ImageFile(name, opener(name), refusal=reason))
        sizes[name] = 0 if reason else size(name)
    return Listing(files, left_out, sizes)


def _identifier(file: Path, root: Path) -> str:
    """The relative path with ``/``; a name that is not UTF-8 still needs one that every store can write."""
    return os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")


def _is_hidden(path: str) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.split("/"))


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # it went since it was listed: reading it fails later, by name
        return 0


def _refusal(file: Path, root: Path) -> str:
    if not file.is_symlink():
        return "" if file.is_file() else "This is no regular file"
    try:
        target = resolve_path(file)
    except StoreError:
        return "This is a link that leads back to itself"
    if not target.is_relative_to(root):
        return "This is a link that leaves the folder: not followed"
    return "" if target.is_file() else "This is a link to nothing that can be read"
