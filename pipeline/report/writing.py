"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from data_schemas.errors import ReportError


def write_whole(path: Path, data: bytes) -> Path:
    """Writes a file, or leaves what was there; makes the folder if it is missing.

    Args:
        path: of the file.
        data: all of its bytes.

    Returns:
        ``path``.

    Raises:
        ReportError: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(name).chmod(0o644)
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ReportError(
            f"{path} cannot be written ({error.strerror or error})",
            allowed="a folder that can be written, on a disk that is not full",
            next_step="name another with --out",
        ) from error
    return path
