"""Files of a report, in a folder or on object storage: read, and written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from upath import UPath

from data_schemas.errors import ReportError, StoreError
from data_schemas.files import remove_abandoned, write_file
from data_schemas.locations import Location, location
from data_schemas.objects import remove_objects, write_object
from pipeline.documents import read_document
from pipeline.report.figures import Report

JSON_FILE = "report.json"


def write_whole(path: Location, data: bytes) -> Location:
    """Writes a file, or leaves what was there; makes the folder if it is missing.

    Args:
        path: of the file, or the URL of an object.
        data: all of its bytes.

    Returns:
        ``path``.

    Raises:
        ReportError: it cannot be written.
    """
    if not isinstance(path, Path):
        try:
            write_object(path, data)
        except StoreError as error:
            raise ReportError(error.got, allowed=error.allowed, next_step="name a local folder with --out") from error
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path)
        write_file(path, data)
    except OSError as error:
        raise ReportError(
            f"{path} cannot be written ({error.strerror or error})",
            allowed="a folder that can be written, on a disk that is not full",
            next_step="name another with --out",
        ) from error
    return path


def remove_file(path: Location) -> None:
    """Deletes a file of an earlier report, where there is one.

    Raises:
        ReportError: it cannot be deleted.
    """
    try:
        if isinstance(path, Path):
            path.unlink(missing_ok=True)
        else:
            remove_objects(path, [""])
    except (OSError, StoreError) as error:
        raise ReportError(f"{path} cannot be deleted ({error})", next_step="name another folder with --out") from error


def read_report(path: str | os.PathLike[str] | UPath) -> Report:
    """Reads a ``report.json``, or the one in a folder.

    Raises:
        ReportError: no such file, not a report, or one of a newer version.
    """
    return read_document(location(path), Report, JSON_FILE, made_by="splatspace report STORE")
