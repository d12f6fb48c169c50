"""Files from the network: mirrors in order, checksums, a cache folder, and downloads that resume after a cut."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pooch
import requests
from filelock import FileLock

from data_schemas.errors import DownloadError

logger = logging.getLogger("splatspace.download")

CACHE_VARIABLE = "SPLATSPACE_CACHE"

Progress = Callable[[str, int, int | None], None]
"""Called with (file name, bytes that are there, bytes in all or None) while a file arrives."""

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, between two pieces
_REFUSALS = range(400, 500)


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


def cache_folder() -> Path:
    """Where downloads are kept: ``$SPLATSPACE_CACHE``, else the platform's cache folder."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named).expanduser() if named else Path(pooch.os_cache("splatspace"))


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
    tried: list[str] = []
    for url in remote.urls:
        # A wrong checksum may be the fault of an earlier mirror whose half was continued: then once more, afresh.
        for last_try in (False, True):
            transfer = _Transfer(remote, target, progress, attempts, pause)
            try:
                pooch.retrieve(url, remote.checksum, fname=target.name, path=target.parent, downloader=transfer)
                return target
            except ValueError:
                if transfer.continued and not last_try:
                    continue
                tried.append(f"{url} (wrong checksum, file removed)")
            except _TransferFailed as error:
                tried.append(f"{url} ({error})")
            logger.warning("download failed: %s", tried[-1])
            break
    raise DownloadError(
        f"{remote.name} could not be downloaded; tried " + "; ".join(tried),
        allowed=f"a file with {remote.checksum}" if remote.checksum else "",
        next_step="check the network and run again (a cut download goes on where it stopped), "
        f"or get the file by other means and give its folder with {remote.option}",
    )


class _TransferFailed(Exception):
    """One mirror did not give the file."""


class _Transfer:
    """A downloader for pooch that keeps what has arrived in NAME.part and asks only for the rest."""

    def __init__(
        self, remote: RemoteFile, target: Path, progress: Progress | None, attempts: int, pause: float
    ) -> None:
        self._remote = remote
        self._part = target.with_name(target.name + ".part")
        self._progress = progress
        self._attempts = attempts
        self._pause = pause
        self._version = ""
        self.continued = False

    def __call__(self, fname: Any, action: Any, pooch: Any, *, check_only: bool | None = None) -> None:
        """Downloads; pooch's signature, which calls the address ``fname`` and the file to write ``action``."""
        url, output_file = str(fname), str(action)
        if self._remote.checksum is None:
            # Nothing would tell whether an old half belongs to what the server gives today.
            self._part.unlink(missing_ok=True)
        reason = ""
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(self._pause * 2 ** (attempt - 1))
            try:
                self._receive(url)
            except requests.RequestException as error:
                reason = _reason(error)
                if error.response is not None and error.response.status_code in _REFUSALS:
                    break
            else:
                os.replace(self._part, output_file)
                return
        raise _TransferFailed(reason)

    def _receive(self, url: str) -> None:
        have = self._part.stat().st_size if self._part.exists() else 0
        if have and not self._version and self._remote.checksum is None:
            have = 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if self._version:
                headers["If-Range"] = self._version
        with requests.get(url, headers=headers, stream=True, timeout=_TIMEOUT_SECONDS) as response:
            if response.status_code == 416:
                # The half is as long as the file or longer: start again rather than guess.
                self._part.unlink()
                raise requests.ConnectionError("the server has no bytes beyond those that were there")
            response.raise_for_status()
            if response.status_code != 206 or not response.headers.get("Content-Range", "").startswith(
                f"bytes {have}-"
            ):
                if response.status_code == 206:
                    self._part.unlink()
                    raise requests.ConnectionError("the server sent another part than was asked for")
                have = 0
            self.continued = self.continued or have > 0
            etag = response.headers.get("ETag", "")
            self._version = "" if etag.startswith("W/") else etag
            length = response.headers.get("Content-Length", "")
            total = have + int(length) if length.isdigit() else None
            with self._part.open("ab" if have else "wb") as stream:
                for chunk in response.iter_content(_CHUNK_BYTES):
                    stream.write(chunk)
                    have += len(chunk)
                    if have > self._remote.most_bytes:
                        self._part.unlink()
                        raise _TransferFailed(f"more than {self._remote.most_bytes} bytes")
                    if self._progress is not None:
                        self._progress(self._remote.name, have, total)
        if total is not None and have != total:
            raise requests.ConnectionError(f"cut after {have} of {total} bytes")


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"HTTP {error.response.status_code}"
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    text = str(error)
    return text if text.startswith(("cut", "the server")) else f"{type(error).__name__}: connection failed or cut"
