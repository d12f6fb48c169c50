"""A store or a run into a repository of the Hugging Face Hub: everything in one commit, or nothing."""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_schemas.errors import CheckpointError, HubError, JobError
from data_schemas.hub import HubPlace, RepositoryKind, is_hub_url, parse_hub_url
from data_schemas.locations import location, resolve_path
from data_schemas.stores.locks import WriterLock
from data_schemas.stores.open import BACKENDS, open_store
from pipeline.hub.cards import CARD_FILE, require_licence
from pipeline.hub.client import LOG_IN, hub_library, wrap_hub_errors
from pipeline.hub.parcel import Parcel

_HELD = "wait for it to finish, then push"
_MADE_BY_HUB = {".gitattributes"}


@dataclass(frozen=True)
class PushSummary:
    """What was pushed, or would be.

    Attributes:
        url: of the repository, ``hf://...``.
        kind: of the repository.
        files: bytes by path in the repository.
        removed: files of an earlier push that go with this one.
        card: text of ``README.md``.
        notes: what the user should know.
        commit: address of the commit; None for a dry run.
    """

    url: str
    kind: RepositoryKind
    files: dict[str, int]
    removed: tuple[str, ...]
    card: str
    notes: tuple[str, ...]
    commit: str | None = None

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(self.files.values())


def push(
    path: str | os.PathLike[str],
    url: str,
    *,
    private: bool = False,
    overwrite: bool = False,
    licence_ok: bool = False,
    dry_run: bool = False,
) -> PushSummary:
    """Pushes a store or a run with a card, in one commit: a reader sees all of it or nothing.

    The token is that of the library (``hf auth login``, or ``HF_TOKEN``).

    Args:
        path: a ``.zarr`` or ``.h5`` store, or the folder of a run, on this machine.
        url: ``hf://datasets/USER/NAME`` for a store, ``hf://USER/NAME`` for a run; it is made where it is missing.
        private: make a repository that only its owners see.
        overwrite: replace what an earlier push left there; its other files stay, and its history keeps everything.
        licence_ok: push although the source of the images states no licence.
        dry_run: check and collect everything, and send nothing; needs neither the library nor a token.

    Returns:
        What was sent.

    Raises:
        JobError: a source without a licence, or no library.
        HubError: no token or not its right, a repository of the wrong kind or with something in it, or no network.
        StoreError: the store cannot be read.
        StoreLockedError: somebody writes the store or the run.
        CheckpointError: the run cannot be read.
    """
    place = parse_hub_url(url)
    if place.path or place.revision:
        raise HubError(
            f"{url} names {'a place in' if place.path else 'a revision of'} a repository",
            allowed="a repository: hf://datasets/USER/NAME for a store, hf://USER/NAME for a run",
            next_step=f"push to {HubPlace(place.kind, place.repository).url}",
        )
    with _packed(path, place) as parcel:
        answered = require_licence(parcel.licence, parcel.source, accepted=licence_ok)
        notes = (*((answered,) if answered else ()), *parcel.notes)
        summary = PushSummary(place.url, place.kind, parcel.sizes, (), parcel.card, notes)
        if dry_run:
            return summary
        commit, removed = _send(parcel, place, private=private, overwrite=overwrite)
    return PushSummary(place.url, place.kind, summary.files, removed, summary.card, notes, commit)


@contextmanager
def _packed(given: str | os.PathLike[str], place: HubPlace) -> Iterator[Parcel]:
    """What is to be sent of a store or a run; nobody writes it meanwhile."""
    found = location(given) if not is_hub_url(given) else None
    if not isinstance(found, Path):
        raise JobError(
            f"{given} is not on this machine",
            allowed="a store or a run on this machine",
            next_step=f"copy it first: splatspace convert {given} store.zarr",
        )
    path = resolve_path(found)
    kind: RepositoryKind = "dataset" if path.suffix.lower() in BACKENDS else "model"
    if kind != place.kind:
        wanted = HubPlace(kind, place.repository).url
        raise HubError(
            f"{given} is a {'store' if kind == 'dataset' else 'run'}, and {place.url} a repository of another kind",
            allowed="hf://datasets/USER/NAME for a store, hf://USER/NAME for a run",
            next_step=f"push to {wanted}",
        )
    if kind == "dataset":
        from pipeline.hub.stores import pack_store

        # Opened as a writer does: what a killed run left is finished first, and nobody changes a byte while it is sent.
        with open_store(path, "a") as store:
            yield pack_store(store, place)
        return
    # With torch, which stores do without.
    from pipeline.hub.runs import pack_run
    from pipeline.train.state import MODEL_FILE, run_folder

    run = run_folder(path)
    if not (run / MODEL_FILE).is_file():
        raise CheckpointError(
            f"{given} is no store and no run",
            allowed="a .zarr or .h5 store, or a folder with a model.safetensors",
            next_step="check the path",
        )
    lock = WriterLock(run, next_step=_HELD)
    try:
        yield pack_run(run, place)
    finally:
        lock.release()


def _send(parcel: Parcel, place: HubPlace, *, private: bool, overwrite: bool) -> tuple[str, tuple[str, ...]]:
    """Makes the repository where it is missing, and one commit; answers its address and what it removed."""
    hub = hub_library(f"splatspace push to {place.url}")
    if hub.get_token() is None:
        raise HubError(
            f"No token for {place.url} was found", allowed="a token with the right to write", next_step=LOG_IN
        )
    api = hub.HfApi(library_name="splatspace", library_version=_version())
    with wrap_hub_errors("push to", place):
        # None leaves it to the organisation's own rule.
        api.create_repo(place.repository, repo_type=place.kind, private=private or None, exist_ok=True)
        info = api.repo_info(place.repository, repo_type=place.kind)
        present = api.list_repo_files(place.repository, repo_type=place.kind, revision=info.sha)
        if private and not info.private:
            raise HubError(
                f"{place.url} exists and is public",
                allowed="--private with a new repository, or one that is private",
                next_step="choose another name, or make it private on its page first",
            )
        found = sorted(set(present) - _MADE_BY_HUB)
        if found and not overwrite:
            raise HubError(
                f"{place.url} holds something already: {len(found):,} files, {found[0]} among them",
                allowed="a new repository, an empty one, or --overwrite",
                next_step="choose another name; --overwrite replaces what an earlier push left, and keeps other files",
            )
        stale = parcel.stale(present)
        # Not upload_folder: it may make several commits of a large folder, and readers would see a half.
        operations: list[Any] = [hub.CommitOperationDelete(path_in_repo=name, is_folder=False) for name in stale]
        operations += [
            hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
            for name, content in sorted(parcel.files.items(), key=lambda item: item[0] != CARD_FILE)
        ]
        commit = api.create_commit(
            place.repository,
            operations,
            commit_message=f"Push {parcel.title} with SplatSpace {_version()}",
            repo_type=place.kind,
            # Whoever changed it since is not run over.
            parent_commit=info.sha,
        )
    _forget_listings(hub)
    return str(commit.commit_url), tuple(stale)


def _forget_listings(hub: Any) -> None:
    """Its file system remembers what it has listed once, also that there was no repository."""
    hub.HfFileSystem.clear_instance_cache()


def _version() -> str:
    try:
        return importlib.metadata.version("splatspace")
    except importlib.metadata.PackageNotFoundError:
        return "of a checkout"
