"""Where images come from: one file per data set, and one table of their names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data_schemas.errors import SourceError, StoreError
from data_schemas.locations import resolve_path
from pipeline.image_limits import BLACK, MOST_SIZE
from pipeline.sources.arrays import open_npy, open_npz
from pipeline.sources.base import MAX_IMAGE_PIXELS, ImageSource, SourceImage
from pipeline.sources.cats import SIZE as CATS_SIZE
from pipeline.sources.cats import open_cats
from pipeline.sources.cifar10 import open_cifar10
from pipeline.sources.decoding.resized import ResizedSource
from pipeline.sources.demo import open_demo
from pipeline.sources.download import Progress
from pipeline.sources.folder import open_folder, open_zip
from pipeline.sources.mnist import open_mnist
from pipeline.sources.sprites import open_sprites

__all__ = ["MAX_IMAGE_PIXELS", "SOURCES", "SPLITS", "ImageSource", "SourceImage", "open_source"]

SPLITS = ("train", "test", "all")

_ARRAY_FILES: dict[str, Callable[[Path], ImageSource]] = {".npz": open_npz, ".npy": open_npy}


class SourceRequest(NamedTuple):
    """What a named data set is opened with."""

    data_dir: Path | None
    split: str
    size: int | None
    download: bool
    progress: Progress | None


def _mnist(request: SourceRequest) -> ImageSource:
    return open_mnist(
        data_dir=request.data_dir, split=request.split, download=request.download, progress=request.progress
    )


def _cifar10(request: SourceRequest) -> ImageSource:
    return open_cifar10(
        data_dir=request.data_dir, split=request.split, download=request.download, progress=request.progress
    )


def _sprites(request: SourceRequest, size: int = 32) -> ImageSource:
    return open_sprites(
        data_dir=request.data_dir,
        split=request.split,
        size=request.size or size,
        download=request.download,
        progress=request.progress,
    )


def _sprites64(request: SourceRequest) -> ImageSource:
    return _sprites(request, 64)


def _cats(request: SourceRequest) -> ImageSource:
    _refuse_test("cats", request.split)
    return open_cats(
        data_dir=request.data_dir,
        split=request.split,
        size=request.size or CATS_SIZE,
        download=request.download,
        progress=request.progress,
    )


def _demo(request: SourceRequest) -> ImageSource:
    _refuse_test("demo", request.split)
    if request.data_dir is not None:
        raise SourceError(
            "--data-dir with the built-in images, which are made and not read", next_step="leave --data-dir out"
        )
    return open_demo(split=request.split)


SOURCES: dict[str, Callable[[SourceRequest], ImageSource]] = {
    "mnist": _mnist,
    "sprites": _sprites,
    "sprites64": _sprites64,
    "cifar10": _cifar10,
    "cats": _cats,
    "demo": _demo,
}
"""The named data sets. A new one is a file beside this one and a line here."""


def open_source(
    dataset: str | Path,
    *,
    data_dir: Path | None = None,
    split: str = "all",
    size: int | None = None,
    download: bool = True,
    progress: Progress | None = None,
    background: str = BLACK,
) -> ImageSource:
    """Opens a data set by name or by path.

    Args:
        dataset: a name of SOURCES, or a path: a folder of images, a .zip of one, an .npz or a .npy.
            A name wins over a file of that name; ``./mnist`` is the file.
        data_dir: for a named set, where its files are; None: the cache, and the network.
        split: ``train``, ``test`` or ``all``. A set without an official split has no ``test``.
        size: cut each image to a centred square and resize it to so many pixels a side.
        download: whether the network may be used.
        progress: told of downloads.
        background: what transparent images of a folder or .zip are laid over, ``#rrggbb``.

    Returns:
        A source; no pixels are decoded before they are read.

    Raises:
        SourceError: no such set or path, wrong options, or files that cannot be read. ArchiveError and
            DownloadError are such errors.
    """
    if split not in SPLITS:
        raise SourceError(f"The split {split!r}", allowed=", ".join(SPLITS), next_step="type --split all")
    if size is not None and not 1 <= size <= MOST_SIZE:
        raise SourceError(f"--size {size}", allowed=f"1 to {MOST_SIZE}")
    name = str(dataset)
    if name in SOURCES and not isinstance(dataset, Path):
        if data_dir is not None and not data_dir.exists():
            raise SourceError(f"--data-dir {data_dir} does not exist", next_step="check the path")
        _refuse_background(name, background)
        source = SOURCES[name](SourceRequest(data_dir, split, size, download, progress))
    else:
        source = _open_path(name, data_dir, split, size, background)
    if size is not None and source.image_shape[:2] != (size, size):
        return ResizedSource(source, size)
    return source


def _open_path(name: str, data_dir: Path | None, split: str, size: int | None, background: str) -> ImageSource:
    try:
        resolve_path(Path(name))
    except StoreError as error:
        raise SourceError(error.got, allowed=error.allowed, next_step=error.next_step) from error
    path = Path(name).expanduser()
    allowed = f"one of {', '.join(SOURCES)}, or the path of a folder, .zip, .npz or .npy"
    if not path.exists():
        raise SourceError(
            f"{name!r} is neither a known data set nor a path that exists",
            allowed=allowed,
            next_step="make that folder, or name another: splatspace encode PATH, or the parameter `dataset` of a flow",
        )
    if data_dir is not None:
        raise SourceError(f"--data-dir together with the path {name}", next_step="leave --data-dir out")
    _refuse_test(name, split)
    if path.is_dir():
        return open_folder(path, size=size, background=background)
    if path.suffix.lower() == ".zip":
        return open_zip(path, size=size, background=background)
    opener = _ARRAY_FILES.get(path.suffix.lower())
    if opener is None:
        raise SourceError(
            f"{name} is a file that ends in {path.suffix or 'nothing'}",
            allowed=allowed,
            next_step="put the images into a folder and give that",
        )
    _refuse_background(name, background)
    return opener(path)


def _refuse_background(name: str, background: str) -> None:
    if background != BLACK:
        raise SourceError(
            f"--background {background} for {name}, whose images have no transparency to be laid over anything",
            allowed="a folder of images or a .zip of one",
            next_step="leave --background out",
        )


def _refuse_test(name: str, split: str) -> None:
    if split == "test":
        raise SourceError(
            f"--split test for {name}, which has no split of its own",
            allowed="train or all, which both mean every image",
            next_step="leave --split out, or keep test images in a folder of their own and give that",
        )
