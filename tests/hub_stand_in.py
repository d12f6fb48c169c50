"""A stand-in for the Hugging Face Hub and its library: repositories are folders, commits happen at once or not.

Only what SplatSpace calls is here; ``tests/pipeline/hub/test_library.py`` compares the calls with the library itself,
where it is installed.
"""

from __future__ import annotations

import shutil
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fsspec
import pytest


class HubFiles(fsspec.AbstractFileSystem):
    """A hub of data sets as fsspec shows it: synchronous; each file that is written is a commit of its own."""

    protocol = "hf"
    root = Path()

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        place = self.root / str(self._strip_protocol(path))
        status = place.stat()
        return {"name": place.relative_to(self.root).as_posix(), "size": status.st_size,
                "type": "directory" if place.is_dir() else "file"}  # fmt: skip

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:
        found = [self.info(str(place.relative_to(self.root))) for place in (self.root / path).iterdir()]
        return found if detail else [entry["name"] for entry in found]

    def _open(self, path: str, mode: str = "rb", *_: Any, **__: Any) -> Any:
        return (self.root / path).open(mode)


def show_files(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """Lets fsspec find the folders below ``root`` as ``hf://``."""
    monkeypatch.setattr(HubFiles, "root", root)
    monkeypatch.setitem(sys.modules["fsspec.registry"]._registry, "hf", HubFiles)


def _errors() -> Any:
    """The classes of errors, related to each other as those of the library are."""
    module: Any = types.ModuleType("huggingface_hub.errors")

    class HfHubHTTPError(OSError):
        def __init__(self, message: str, status: int = 404) -> None:
            super().__init__(message)
            self.response = types.SimpleNamespace(status_code=status)

    class EntryNotFoundError(Exception): ...

    class RepositoryNotFoundError(HfHubHTTPError): ...

    module.HfHubHTTPError = HfHubHTTPError
    module.EntryNotFoundError = EntryNotFoundError
    module.RepositoryNotFoundError = RepositoryNotFoundError
    module.GatedRepoError = type("GatedRepoError", (RepositoryNotFoundError,), {})
    module.RevisionNotFoundError = type("RevisionNotFoundError", (HfHubHTTPError,), {})
    module.RemoteEntryNotFoundError = type("RemoteEntryNotFoundError", (HfHubHTTPError, EntryNotFoundError), {})
    module.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (FileNotFoundError, EntryNotFoundError), {})
    module.OfflineModeIsEnabled = type("OfflineModeIsEnabled", (ConnectionError,), {})
    module.LocalTokenNotFoundError = type("LocalTokenNotFoundError", (EnvironmentError,), {})
    module.HFValidationError = type("HFValidationError", (ValueError,), {})
    return module


@dataclass
class CommitOperationAdd:
    """A file of a commit."""

    path_in_repo: str
    path_or_fileobj: Path | bytes


@dataclass
class CommitOperationDelete:
    """A file that goes."""

    path_in_repo: str
    is_folder: bool


@dataclass
class HubStandIn:
    """Repositories below a folder.

    Attributes:
        root: ``USER/NAME`` and ``datasets/USER/NAME`` below it.
        token: of the user; None for nobody.
        failing: what the next commit or download raises.
        private: repositories that are.
        commits: messages, by repository.
    """

    root: Path
    token: str | None = "hf_token"
    failing: Exception | None = None
    private: set[Path] = field(default_factory=set)
    commits: dict[Path, list[str]] = field(default_factory=dict)
    errors: Any = field(default_factory=_errors)

    def folder(self, repo_id: str, repo_type: str | None = None) -> Path:
        """Of a repository, there or not."""
        return self.root / ("datasets" if repo_type == "dataset" else "") / repo_id

    def files(self, repo_id: str, repo_type: str | None = None) -> dict[str, bytes]:
        """What is in a repository."""
        folder = self.folder(repo_id, repo_type)
        return {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != ".gitattributes"
        }

    def existing(self, repo_id: str, repo_type: str | None = None) -> Path:
        """The folder of a repository that is there."""
        folder = self.folder(repo_id, repo_type)
        if folder not in self.commits:
            raise self.errors.RepositoryNotFoundError("404 Client Error.\n\nRepository Not Found", 404)
        return folder

    def create_repo(self, repo_id: str, *, repo_type: str, private: bool | None, exist_ok: bool) -> None:
        folder = self.folder(repo_id, repo_type)
        if folder in self.commits:
            assert exist_ok
            return
        folder.mkdir(parents=True)
        (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
        self.commits[folder] = ["initial commit"]
        if private:
            self.private.add(folder)

    def repo_info(self, repo_id: str, *, repo_type: str) -> Any:
        folder = self.existing(repo_id, repo_type)
        return types.SimpleNamespace(sha=str(len(self.commits[folder])), private=folder in self.private)

    def list_repo_files(self, repo_id: str, *, repo_type: str, revision: str) -> list[str]:
        self.existing(repo_id, repo_type)
        return [".gitattributes", *self.files(repo_id, repo_type)]

    def create_commit(
        self, repo_id: str, operations: list[Any], *, commit_message: str, repo_type: str, parent_commit: str
    ) -> Any:
        folder = self.existing(repo_id, repo_type)
        if self.failing is not None:
            raise self.failing
        if parent_commit != str(len(self.commits[folder])):
            raise self.errors.HfHubHTTPError("412 Client Error: the branch has moved", 412)
        for operation in operations:
            place = folder / operation.path_in_repo
            if isinstance(operation, CommitOperationDelete):
                place.unlink()
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(operation.path_or_fileobj, bytes):
                place.write_bytes(operation.path_or_fileobj)
            else:
                shutil.copyfile(operation.path_or_fileobj, place)
        self.commits[folder].append(commit_message)
        return types.SimpleNamespace(commit_url=f"https://hub.example/{repo_id}/commit/{len(self.commits[folder])}")

    def hf_hub_download(self, repo_id: str, filename: str, *, revision: str | None, local_dir: Path) -> str:
        if self.failing is not None:
            raise self.failing
        file = self.existing(repo_id) / filename
        if revision is not None:
            raise self.errors.RevisionNotFoundError("404 Client Error.\n\nRevision Not Found", 404)
        if not file.is_file():
            raise self.errors.RemoteEntryNotFoundError("404 Client Error.\n\nEntry Not Found", 404)
        local_dir.mkdir(parents=True, exist_ok=True)
        return str(shutil.copyfile(file, local_dir / filename))


def install_stand_in(monkeypatch: pytest.MonkeyPatch, root: Path) -> HubStandIn:
    """Puts the stand-in in the place of the library."""
    hub = HubStandIn(root)
    library: Any = types.ModuleType("huggingface_hub")
    library.errors = hub.errors
    library.HfApi = lambda library_name, library_version: hub
    library.get_token = lambda: hub.token
    library.hf_hub_download = hub.hf_hub_download
    library.CommitOperationAdd, library.CommitOperationDelete = CommitOperationAdd, CommitOperationDelete
    library.HfFileSystem = HubFiles
    monkeypatch.setitem(sys.modules, "huggingface_hub", library)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", hub.errors)
    show_files(monkeypatch, root)
    return hub
