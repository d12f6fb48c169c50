"""A folder of images, or a .zip of such a folder. Nested folders become labels."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path

from data_schemas.errors import SourceError
from data_schemas.records import SourceRecord
from pipeline.background import BLACK
from pipeline.sources.base import ImageSource
from pipeline.sources.digests import digest_of_files, digest_of_listing
from pipeline.sources.image_files import ImageFile, ImageFileSource, natural_key, with_folder_labels
from pipeline.sources.zip_members import SafeZip

logger = logging.getLogger("splatspace.sources")


def open_folder(
    path: Path, *, size: int | None = None, name: str | None = None, background: str = BLACK
) -> ImageSource:
    """All images below a folder.

    Args:
        path: the folder.
        size: cut each image to a centred square and resize it to so many pixels a side.
        name: what the record calls the set; by default the folder's name.
        background: what transparency is laid over, ``#rrggbb``.

    Raises:
        SourceError: no readable image, or several sizes without ``size``.
    """
    files, sizes = list_folder(path)
    labelled, label_names = with_folder_labels(files)
    record = SourceRecord(
        name=name or path.resolve().name, digest=digest_of_listing(sizes.items()), label_names=label_names
    )
    return ImageFileSource(record, labelled, size=size, where=str(path), background=background)


def open_zip(path: Path, *, size: int | None = None, name: str | None = None, background: str = BLACK) -> ImageSource:
    """All images inside a zip; arguments and errors as ``open_folder``, and ArchiveError for an unsafe zip."""
    labelled, label_names = with_folder_labels(list_zip(path))
    record = SourceRecord(name=name or path.stem, digest=digest_of_files([path]), label_names=label_names)
    return ImageFileSource(record, labelled, size=size, where=str(path), background=background)


def list_folder(path: Path) -> tuple[list[ImageFile], dict[str, int]]:
    """Every file below a folder, in natural order; links that leave the folder are not followed.

    Returns:
        The files, and the bytes of each by its relative path.

    Raises:
        SourceError: the folder cannot be listed.
    """
    root = path.resolve()
    files: list[ImageFile] = []
    sizes: dict[str, int] = {}
    hidden = 0
    unlisted: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=unlisted.append):
        hidden += sum(_is_hidden(name) for name in (*folders, *names))
        for name in folders:
            if Path(folder, name).is_symlink():
                logger.warning("%s: the linked folder %s is not followed", path, Path(folder, name))
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in names:
            if _is_hidden(name):
                continue
            file = Path(folder, name)
            # A name that is not UTF-8 still needs an identifier that every store can write.
            identifier = os.fsencode(file.relative_to(root).as_posix()).decode("utf-8", "backslashreplace")
            refusal = _refusal(file, root)
            sizes[identifier] = 0 if refusal else file.stat().st_size
            files.append(ImageFile(identifier, partial(file.open, "rb"), refusal=refusal))
    if unlisted:
        raise SourceError(
            f"{unlisted[0].filename} cannot be listed ({unlisted[0].strerror})",
            next_step="make the folder readable or move it away",
        )
    if hidden:
        logger.info("%s: %d hidden files and folders are left out", path, hidden)
    files.sort(key=lambda file: natural_key(file.identifier))
    return files, sizes


def list_zip(path: Path) -> list[ImageFile]:
    """Every file inside a zip, in natural order.

    Raises:
        ArchiveError: no zip, cut short, or unsafe members.
    """
    archive = SafeZip(path)
    members = [member for member in archive.members if not any(_is_hidden(part) for part in member.name.split("/"))]
    if len(members) < len(archive.members):
        logger.info("%s: %d hidden members are left out", path, len(archive.members) - len(members))
    members.sort(key=lambda member: natural_key(member.name))
    return [ImageFile(member.name, partial(archive.open, member), refusal=member.refusal) for member in members]


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _refusal(file: Path, root: Path) -> str:
    if not file.is_symlink():
        return "" if file.is_file() else "This is no regular file"
    target = file.resolve()
    if not target.is_relative_to(root):
        return "This is a link that leaves the folder: not followed"
    return "" if target.is_file() else "This is a link to nothing that can be read"
