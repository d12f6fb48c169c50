"""Cat faces, 64x64 JPEG photographs; byte-identical repeats are removed and counted."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from data_schemas.errors import ImageError, SourceError
from data_schemas.files import cache_folder
from data_schemas.records import SourceRecord
from pipeline.sources.archives import digest_of_files, digest_of_listing
from pipeline.sources.base import ImageSource, LeftOut, warn_of_left_out
from pipeline.sources.decoding.formats import HEAD_BYTES, format_of_file
from pipeline.sources.download import Progress, RemoteFile, fetch
from pipeline.sources.folder import list_folder, list_zip
from pipeline.sources.image_files import ImageFile, ImageFileSource, natural_key, without_common_folder

COMMIT = "e9c05ee2d1f624920f1ba9040db7557deabb58fe"

ARCHIVE = RemoteFile(
    f"cats/CatGAN-{COMMIT[:7]}.zip",
    (f"https://github.com/andyBarbaro/CatGAN/archive/{COMMIT}.zip",),
    None,  # archives are packed on request and nobody published a checksum; the counts are checked instead
    most_bytes=1 << 30,
)
FILES_PUBLISHED, FILES_DISTINCT = 15_747, 9_303
_FOLDER_IN_ARCHIVE = "cats/cat_pics/"

SIZE = 64

PLACES = ("cats_faces_64x64.zip", "cats64/cats_faces_64x64.zip", "cats64", "cats", "cat_pics")
"""What is looked for in ``--data-dir`` before the folder itself is taken."""


def open_cats(
    *, data_dir: Path | None, split: str, size: int, download: bool, progress: Progress | None
) -> ImageSource:
    """The cat faces from ``data_dir``, the cache, or the network.

    Args:
        data_dir: folder of JPEGs, a zip of such a folder, or a folder that holds one of PLACES.
        split: recorded; the set has no official split, all images are read.
        size: pixels a side.
        download: whether the network may be used.
        progress: told of the download.

    Raises:
        SourceError: nothing there, or a download that does not hold the published number of files.
    """
    if data_dir is None:
        path = _download(download, progress)
    else:
        path = next((data_dir / place for place in PLACES if (data_dir / place).exists()), data_dir)
    listing = list_folder(path) if path.is_dir() else list_zip(path)
    digest = digest_of_listing(listing.sizes.items()) if path.is_dir() else digest_of_files([path])
    files, left_out = listing.files, listing.left_out
    if data_dir is None:
        elsewhere = [file.identifier for file in files if _FOLDER_IN_ARCHIVE not in file.identifier]
        left_out = (*left_out, LeftOut(elsewhere, f"outside of {_FOLDER_IN_ARCHIVE}"))
        files = [file for file in files if _FOLDER_IN_ARCHIVE in file.identifier]
    kept, repeats = without_repeats(sorted(without_common_folder(files), key=_by_number))
    removed = len(repeats)
    if data_dir is None and (len(kept), removed) != (FILES_DISTINCT, FILES_PUBLISHED - FILES_DISTINCT):
        raise SourceError(
            f"{path} holds {len(kept) + removed} photographs, {len(kept)} of them distinct",
            allowed=f"{FILES_PUBLISHED} and {FILES_DISTINCT}",
            next_step="remove the file and run again, or get the set by other means and give --data-dir",
        )
    # Counted by themselves: a split by chance would leak them.
    warn_of_left_out(str(path), [LeftOut(repeats, "repeats, byte for byte,")])
    record = SourceRecord(
        name="cats",
        split=split,
        digest=digest,
        licence="none stated with the files",
        attribution="Cats faces 64x64 (for generative models), Kaggle spandan2; the photographs go back to the "
        "CAT dataset of Weiwei Zhang, Jian Sun and Xiaoou Tang, 2008",
        removed_duplicates=removed,
    )
    return ImageFileSource(record, kept, size=size, where=str(path), left_out=left_out)


def without_repeats(files: Sequence[ImageFile]) -> tuple[list[ImageFile], list[str]]:
    """Leaves out every image whose bytes equal those of an earlier one.

    Returns:
        The files that stay (an unreadable one among them: it fails later, by name; and what is no image), and the
        identifiers of those that went.
    """
    seen: set[bytes] = set()
    kept: list[ImageFile] = []
    repeats: list[str] = []
    for file in files:
        if file.refusal:
            kept.append(file)
            continue
        try:
            with file.open() as stream:
                data = stream.read()
        except (OSError, ImageError) as error:
            kept.append(replace(file, refusal=str(error)))
            continue
        digest = hashlib.blake2b(data).digest()
        if digest not in seen or format_of_file(file.identifier, data[:HEAD_BYTES]) is None:
            kept.append(file)
        else:
            repeats.append(file.identifier)
        seen.add(digest)
    return kept, repeats


def _by_number(file: ImageFile) -> tuple[object, ...]:
    return (natural_key(PurePosixPath(file.identifier).name), natural_key(file.identifier))


def _download(download: bool, progress: Progress | None) -> Path:
    if download:
        return fetch(ARCHIVE, progress=progress)
    path = cache_folder() / ARCHIVE.name
    if not path.is_file():
        raise SourceError(
            f"{path} is not there and downloading is off",
            next_step="allow the download, or get the set (Kaggle spandan2/cats-faces-64x64-for-generative-models) "
            "and give its folder or zip with --data-dir",
        )
    return path
