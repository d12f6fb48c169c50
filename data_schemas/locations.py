"""Where a store is: a local path, or a URL of an object store (``s3://``, ``gs://``, any that fsspec knows).

A URL never becomes a ``pathlib.Path``, which would turn ``s3://b/x`` into ``s3:/b/x`` in the current folder; it is a
``UPath``, which has the same methods. Its library takes a second to import and comes with the first URL.
"""

from __future__ import annotations

import errno
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from data_schemas.errors import StoreError

if TYPE_CHECKING:
    from upath import UPath

    Location = Path | UPath
    """A place where a store or a file beside it is kept."""

__all__ = ["HUB_SCHEME", "Location", "LocationField", "hide_secrets", "location", "resolve_path"]

_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/(?P<second>/?)(?P<rest>.*)", re.DOTALL)
_LOCAL = ("file", "local")
_WITHOUT_BUCKET = ("memory",)
HUB_SCHEME = "hf"
"""Of the Hugging Face Hub (``data_schemas.hub``)."""

_EXTRAS = {"s3": "remote", "s3a": "remote", "gs": "remote", "gcs": "remote", HUB_SCHEME: "hub"}
"""Schemes whose libraries an extra installs."""


def __getattr__(name: str) -> Any:
    if name != "Location":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from upath import UPath

    return Path | UPath


def location(given: str | os.PathLike[str] | UPath) -> Location:
    """The place that a user, a job or a program means.

    Args:
        given: a path, or a URL; also one that went through ``pathlib`` and lost a slash (``s3:/bucket/x.zarr``), or a
            ``UPath``, whose options (an endpoint, for example) are kept.

    Returns:
        A ``Path`` as it was given (neither resolved nor expanded), or a ``UPath`` for a URL.

    Raises:
        StoreError: a URL with a password, a query or ``..``, without a bucket, of an unknown scheme, or one whose
            library is not installed.
    """
    # A UPath of an object store is no os.PathLike.
    text = os.fspath(given) if isinstance(given, str | os.PathLike) else str(given)
    match = _URL.fullmatch(text)
    if match is None:
        if "://" in text:
            raise StoreError(
                f"{hide_secrets(text)} is neither a path nor a URL",
                allowed="a path, or s3://BUCKET/NAME.zarr and the like",
            )
        return Path(text)
    scheme = match["scheme"].lower()
    if scheme in _LOCAL:
        return Path("/" + match["rest"].lstrip("/"))
    from fsspec.registry import known_implementations, registry

    if scheme not in known_implementations and scheme not in registry:
        if not match["second"]:
            return Path(text)  # a local folder whose name ends in a colon
        raise StoreError(
            f"{hide_secrets(text)}: no file system {scheme!r} is known",
            allowed="a path, s3://BUCKET/NAME.zarr, gs://BUCKET/NAME.zarr, or another URL of fsspec",
            next_step="check the URL",
        )
    options = {} if isinstance(given, str | os.PathLike) else dict(given.storage_options)
    return _remote(scheme, match["rest"].strip("/"), options)


def resolve_path(path: Path) -> Path:
    """The real path: ``~`` expanded, ``..`` collapsed, links followed. What is not there may be missing.

    Raises:
        StoreError: a link that leads back to itself, a name that is too long for the disk, or a home that this system
            does not know.
    """
    try:
        expanded = path.expanduser()
        for part in (expanded, *expanded.parents):
            _require_reachable(part)
        return expanded.resolve()
    except (RuntimeError, OSError, ValueError) as error:
        raise StoreError(
            f"{path} leads nowhere ({_reason(error)})",
            allowed="a path that exists or can be made",
            next_step="remove that link, or give another path",
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return "a link that leads back to itself" if error.errno == errno.ELOOP else str(error.strerror)
    return str(error).rstrip(".")


def _require_reachable(path: Path) -> None:
    # Newer versions of Python return a loop as a path of its own, older ones end with RuntimeError.
    try:
        path.stat()
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
            raise


def hide_secrets(text: str) -> str:
    """A URL as it may appear in messages: what stands before ``@`` and after ``?`` is hidden."""
    hidden = re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*:/+)[^/]*@", r"\1***@", text)
    return re.sub(r"[?#].*", "?***", hidden, flags=re.DOTALL) if "://" in hidden else hidden


def _remote(scheme: str, rest: str, options: dict[str, Any]) -> UPath:
    import fsspec
    from upath import UPath

    url = f"{scheme}://{rest}"
    user, at, _ = rest.partition("/")[0].rpartition("@")
    if (at and ":" in user) or "?" in rest or "#" in rest:
        raise StoreError(
            f"{hide_secrets(url)} carries a password, a key or a query",
            allowed="a URL without credentials",
            next_step="give them in the environment or the configuration of the provider (docs/scaling.md)",
        )
    if "::" in rest or set(rest) & set("*[]") or any(part in ("", ".", "..") for part in rest.split("/")):
        raise StoreError(
            f"{url} is not the name of one object",
            allowed="scheme://BUCKET/FOLDER/NAME, without .., //, ::, * and brackets",
        )
    if scheme not in _WITHOUT_BUCKET and "/" not in rest:
        raise StoreError(f"{url} names no object in a bucket", allowed=f"{scheme}://BUCKET/NAME")
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        raise StoreError(
            f"{url}: the library for {scheme}:// is not installed ({error})",
            allowed=f'the extra "{extra}"' if extra else "the library that fsspec names",
            next_step=f'pip install "splatspace[{extra}]"' if extra else "install it",
        ) from error
    # Other processes change what is there, so nothing that was listed once may be believed.
    return UPath(url, **{**options, "use_listings_cache": False})


def _field(given: object) -> Location:
    if not isinstance(given, str | os.PathLike):
        from upath import UPath

        if not isinstance(given, UPath):
            raise ValueError("Input should be a path or a URL")
    return location(given)


if TYPE_CHECKING:
    LocationField = Location
else:
    LocationField = Annotated[
        Any,
        PlainValidator(_field),
        PlainSerializer(str, return_type=str, when_used="json"),
        WithJsonSchema({"type": "string", "format": "path"}),
    ]
"""A place as a field of a pydantic model: text in JSON."""
