"""Repositories of the Hugging Face Hub: what a URL ``hf://...`` names, and the store in a repository.

``hf://datasets/USER/NAME`` is a repository of data, ``hf://USER/NAME`` one of a model; ``@REVISION`` and the path of a
file may follow. docs/hub.md says how stores and runs get there. Light: options of the command line ask for it.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote

from data_schemas.errors import HubError, StoreError
from data_schemas.locations import HUB_SCHEME, hide_secrets

if TYPE_CHECKING:
    from upath import UPath

RepositoryKind = Literal["dataset", "model"]

_URL = re.compile(r"hf:/+(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
# https://huggingface.co/docs/hub/repositories-getting-started: letters, digits, "-", "_" and ".", at most 96 of them.
_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_]([A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_OTHER_KINDS = ("buckets", "kernels", "models", "spaces")
_FORMS = "hf://datasets/USER/NAME for data, hf://USER/NAME for a model"


@dataclass(frozen=True)
class HubPlace:
    """What a URL of the hub names.

    Attributes:
        kind: of the repository.
        repository: ``USER/NAME``.
        revision: branch, tag or commit; "" for the newest.
        path: of a file or a folder in the repository; "" for all of it.
    """

    kind: RepositoryKind
    repository: str
    revision: str = ""
    path: str = ""

    @property
    def url(self) -> str:
        """Of the repository."""
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{'datasets/' if self.kind == 'dataset' else ''}{self.repository}{revision}"

    @property
    def name(self) -> str:
        """Of the repository, without its owner."""
        return self.repository.partition("/")[2]


def is_hub_url(given: str | os.PathLike[str]) -> bool:
    """Whether something names a place of the hub; also where ``pathlib`` took a slash from the URL."""
    return _URL.match(os.fspath(given)) is not None


def parse_hub_url(given: str | os.PathLike[str]) -> HubPlace:
    """Reads a URL of the hub.

    Args:
        given: the URL; ``pathlib`` may have taken a slash from it.

    Raises:
        HubError: it is none, or names no repository of data or of a model.
    """
    text = hide_secrets(os.fspath(given))
    found = _URL.fullmatch(os.fspath(given))
    parts = found["rest"].strip("/").split("/") if found is not None else []
    kind: RepositoryKind = "model"
    if parts and parts[0] == "datasets":
        kind, parts = "dataset", parts[1:]
    if len(parts) < 2 or parts[0] in _OTHER_KINDS:
        raise HubError(f"{text} names no repository of data or of a model", allowed=_FORMS, next_step="check the URL")
    user, (name, at, revision), path = parts[0], parts[1].partition("@"), parts[2:]
    if _NAME.fullmatch(user) is None or _NAME.fullmatch(name) is None:
        raise HubError(
            f"{text} has something else where the names of a user and of a repository stand",
            allowed=f"letters, digits, '-', '_' and '.', at most 96; {_FORMS}",
            next_step="check the URL",
        )
    if (at and not revision) or any(part in ("", ".", "..") for part in path) or set(text) & set("?#*"):
        raise HubError(f"{text} names no place in a repository", allowed=f"{_FORMS}, both with @REVISION and /PATH")
    return HubPlace(kind, f"{user}/{name}", unquote(revision), "/".join(path))


def find_store(place: UPath) -> UPath:
    """The store that is meant: of a repository of the hub the one zarr store in it; else ``place`` itself.

    Args:
        place: of a store, or of a repository.

    Raises:
        HubError: the URL names no repository.
        StoreError: the repository cannot be read, or does not hold exactly one zarr store.
    """
    if place.protocol != HUB_SCHEME:
        return place
    from data_schemas.objects import wrap_remote_errors

    url = str(place)
    parsed = parse_hub_url(url)
    if parsed.path:
        return place
    with wrap_remote_errors("list", place):
        try:
            entries: list[str] = place.fs.ls(place.path, detail=False)
        except FileNotFoundError as error:
            raise absent_on_hub(url) from error
    names = sorted(Path(entry).name for entry in entries)
    stores = [name for name in names if name.lower().endswith(".zarr")]
    if len(stores) == 1:
        return place / stores[0]
    if "zarr.json" in names:  # a store whose files are the repository
        return place
    files = [name for name in names if name.lower().endswith((".h5", ".hdf5"))]
    if stores:
        raise StoreError(
            f"{url} holds {len(stores)} stores",
            allowed=", ".join(f"{url}/{name}" for name in stores),
            next_step="name one of them",
        )
    if files:
        raise StoreError(
            f"{url} holds an HDF5 store ({', '.join(files)}), which is read from a disk",
            allowed="a repository with a .zarr store, or a file on this machine",
            next_step=f"hf download {parsed.repository} {files[0]} --repo-type {parsed.kind} --local-dir .",
        )
    raise StoreError(
        f"{url} holds no store",
        allowed="a repository that 'splatspace push STORE' made, or the URL of a .zarr in it",
        next_step="a run is read by 'splatspace sample'" if "model.safetensors" in names else "check the URL",
    )


def absent_on_hub(url: str) -> StoreError:
    """What is said where a repository, or a store in it, is not there for this user."""
    return StoreError(
        f"{url} does not exist, or is private and you are not logged in",
        allowed="a public repository, or a private one that your token may read",
        next_step="check the names in the URL; for a private one run `hf auth login`, or set HF_TOKEN",
    )
