"""Files from the network: mirrors in order, checksums, a cache folder, and downloads that resume after a cut."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from data_schemas.errors import DownloadError
from data_schemas.files import CACHE_VARIABLE, cache_folder

logger = logging.getLogger("splatspace.download")


Progress = Callable[[str, int, int | None], None]
"""Called with (file name, bytes that are there, bytes in all or None) while a file arrives."""


@dataclass(frozen=True)
class RemoteFile:
    """One file and where it may be had.

    Attributes:
        name: path inside the cache folder, with ``/``.
        urls: mirrors, best first.
        checksum: ``md5:...`` or ``sha256:...``; None where nobody published one.
        most_bytes: a server that sends more is not believed.
        option: of the command line, which names the folder of a copy that was got by other means.
    """

    name: str
    urls: tuple[str, ...]
    checksum: str | None
    most_bytes: int = 2 << 30
    option: str = "--data-dir"


def fetch(
    remote: RemoteFile,
    folder: Path | None = None,
    *,
    progress: Progress | None = None,
    attempts: int = 4,
    pause: float = 0.5,
) -> Path:
    """The file on this machine; downloaded where it is not there yet, checked whenever it has a checksum.

    Args:
        remote: what to get.
        folder: where it is kept; by default ``cache_folder()``.
        progress: told of every piece that arrives.
        attempts: connections per mirror; each goes on where the one before was cut.
        pause: seconds before the second connection, doubled for each further one.

    Returns:
        The path of the complete file.

    Raises:
        DownloadError: no mirror gave the file with the right checksum; names every one that was tried.
    """
    # Inside, here and below: most sources are on this machine, and need nothing that speaks HTTP.
    import pooch

    target = (folder or cache_folder()) / remote.name
    pooch.get_logger().setLevel("WARNING")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            return _fetch_locked(remote, target, progress=progress, attempts=attempts, pause=pause)
    except OSError as error:  # a full disk or a read-only folder; network errors never get here
        raise DownloadError(
            f"{remote.name} could not be written to {target.parent}: {error}",
            next_step=f"make room there or set {CACHE_VARIABLE} to a folder that can be written",
        ) from error


def _fetch_locked(remote: RemoteFile, target: Path, *, progress: Progress | None, attempts: int, pause: float) -> Path:
    import pooch

    from pipeline.sources.transfer import Transfer, TransferFailed

    tried: list[str] = []
    for url in remote.urls:
        # A wrong checksum may be the fault of an earlier mirror whose half was continued: then once more, afresh.
        for last_try in (False, True):
            transfer = Transfer(remote, target, progress, attempts, pause)
            try:
                pooch.retrieve(url, remote.checksum, fname=target.name, path=target.parent, downloader=transfer)
                return target
            except ValueError:
                if transfer.continued and not last_try:
                    continue
                tried.append(f"{url} (wrong checksum, file removed)")
            except TransferFailed as error:
                tried.append(f"{url} ({error})")
            logger.warning("download failed: %s", tried[-1])
            break
    raise DownloadError(
        f"{remote.name} could not be downloaded; tried " + "; ".join(tried),
        allowed=f"a file with {remote.checksum}" if remote.checksum else "",
        next_step="check the network and run again (a cut download goes on where it stopped), "
        f"or get the file by other means and give its folder with {remote.option}",
    )
