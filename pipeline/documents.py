"""JSON documents with the version of their form, the default folder of a report, and packages of extras.

And one process at a time in a folder of results: whoever comes second would overwrite what the first one writes. Cheap
to import.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from data_schemas.errors import JobError, ReportError, StoreError
from data_schemas.files import wrap_os_errors
from data_schemas.locations import Location, resolve_path
from data_schemas.objects import read_object
from data_schemas.stores.locks import WriterLock

Document = TypeVar("Document", bound=BaseModel)


def read_document(path: Location, kind: type[Document], file_name: str, *, made_by: str) -> Document:
    """Reads a document, whose version is looked at before its form.

    Args:
        path: of the JSON file, or of a folder on disk that holds one.
        kind: what it is read as. The default of its version is the newest that is known.
        file_name: in a folder. ``report.json`` is a report, with its version in ``report_version``.
        made_by: the command that writes such documents.

    Raises:
        ReportError: it is not there, cannot be read, is something else, or of a newer version.
    """
    name = file_name.removesuffix(".json")
    named = f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
    version_field = f"{name}_version"
    newest = kind.model_fields[version_field].default
    if isinstance(path, Path) and path.is_dir():
        path = path / file_name
    try:
        text = path.read_bytes() if isinstance(path, Path) else read_object(path)
    except (OSError, StoreError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ReportError(
            f"{path} cannot be read ({reason or error})", allowed=f"{named} in JSON", next_step=f"run `{made_by}` first"
        ) from error
    if text is None:
        raise ReportError(f"{path} does not exist", allowed=f"{named} in JSON", next_step=f"run `{made_by}` first")
    try:
        content = from_json(text)
        version = content.get(version_field) if isinstance(content, dict) else None
        if isinstance(version, int) and version > newest:
            raise ReportError(
                f"{path} is {named} of version {version}",
                allowed=f"{newest} or older",
                next_step="install a newer SplatSpace",
            )
        return kind.model_validate_json(text)
    except ValueError as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise ReportError(
            f"{path} is not {named} ({reason})",
            allowed=f"{named} of version {newest}",
            next_step=f"run `{made_by}` again",
        ) from error


def report_folder(store: Location) -> Location:
    """``NAME-report`` beside the store ``NAME.zarr``."""
    return store.with_name(store.stem + "-report")


def extra_module(name: str, *, extra: str, wanted_by: str, without: str) -> Any:
    """Imports a module of an optional package.

    Args:
        name: of the module.
        extra: of splatspace that installs it.
        wanted_by: what needs it, as the user said it.
        without: what can be done without it.

    Raises:
        JobError: it cannot be imported.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise JobError(
            f"{wanted_by} needs the package {name.partition('.')[0]}, which cannot be imported ({error})",
            allowed=without,
            next_step=f"pip install 'splatspace[{extra}]'",
        ) from error


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, ``NAME.lock`` beside it as with stores; a killed process releases it.

    Where the work fails before anything is written, a folder that was made for it goes again, and the lock with it.

    Args:
        folder: that is written; it need not be there yet.

    Raises:
        StoreLockedError: another process writes it; the message names that process.
        StoreError: the place beside it cannot be written, or a link that leads back to itself.
    """
    place = resolve_path(folder)  # "." has no name to put a lock beside
    with wrap_os_errors("create", place.parent):
        place.parent.mkdir(parents=True, exist_ok=True)
        there_before = place.exists()
    lock = WriterLock(place, next_step="wait for it to finish, or give another --out")
    try:
        yield
    except BaseException:
        if not there_before:
            # While it is held: whoever comes now is refused, and later ones make both again.
            with contextlib.suppress(OSError):  # a folder that is not empty stays, and its lock
                if place.exists():
                    place.rmdir()
                lock.path.unlink()
        raise
    finally:
        lock.release()
