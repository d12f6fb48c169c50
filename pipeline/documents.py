"""JSON documents with the version of their form, the default folder of a report, and packages of extras.

Cheap to import.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from data_schemas.errors import JobError, ReportError, StoreError
from data_schemas.locations import Location
from data_schemas.objects import read_object

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
