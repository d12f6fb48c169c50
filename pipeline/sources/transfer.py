"""One file from one mirror: connections that go on where the last one was cut."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from pipeline.sources.download import Progress, RemoteFile

_CHUNK_BYTES = 1 << 18
_TIMEOUT_SECONDS = (10.0, 60.0)  # to connect, between two pieces
_REFUSALS = range(400, 500)


class TransferFailed(Exception):
    """One mirror did not give the file."""


class Transfer:
    """A downloader for pooch that keeps what has arrived in NAME.part and asks only for the rest.

    Args:
        remote: the file.
        target: where it will be.
        progress: told of every piece that arrives.
        attempts: connections; each goes on where the one before was cut.
        pause: seconds before the second connection, doubled for each further one.

    Attributes:
        continued: whether bytes of an earlier connection were kept.
    """

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
        """Downloads; pooch's signature, which calls the address ``fname`` and the file to write ``action``.

        Raises:
            TransferFailed: refused, cut too often, or more bytes than the file may have.
        """
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
        raise TransferFailed(reason)

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
                        raise TransferFailed(f"more than {self._remote.most_bytes} bytes")
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
