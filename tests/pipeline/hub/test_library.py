"""The stand-in of the hub's library against the library itself, where it is installed."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest

from data_schemas.hub import parse_hub_url
from tests.hub_stand_in import CommitOperationAdd, CommitOperationDelete, HubStandIn

hub: Any = pytest.importorskip("huggingface_hub", reason="the extra hub is not installed")


@pytest.mark.parametrize("name", ["create_repo", "repo_info", "list_repo_files", "create_commit", "hf_hub_download"])
def test_every_argument_is_known(name: str) -> None:
    known = inspect.signature(getattr(hub.HfApi, name)).parameters
    for argument in inspect.signature(getattr(HubStandIn, name)).parameters.values():
        assert argument.name in known
        assert known[argument.name].kind in (argument.kind, argument.POSITIONAL_OR_KEYWORD)


def test_functions_and_operations_take_what_they_are_given() -> None:
    assert hub.HfApi(library_name="splatspace", library_version="1").library_name == "splatspace"
    inspect.signature(hub.hf_hub_download).bind("user/name", "a", revision=None, local_dir=Path("a"))
    inspect.signature(hub.get_token).bind()
    for ours, theirs in (
        (CommitOperationAdd("a/b", b""), hub.CommitOperationAdd(path_in_repo="a/b", path_or_fileobj=b"")),
        (CommitOperationDelete("a/b", False), hub.CommitOperationDelete(path_in_repo="a/b", is_folder=False)),
    ):
        assert theirs.path_in_repo == ours.path_in_repo
    hub.HfFileSystem.clear_instance_cache()


def test_errors_are_related_as_those_of_the_stand_in(tmp_path: Path) -> None:
    ours = {name: kind for name, kind in vars(HubStandIn(tmp_path).errors).items() if isinstance(kind, type)}
    theirs = {name: getattr(hub.errors, name) for name in ours}
    for name, kind in ours.items():
        for other, parent in ours.items():
            assert issubclass(theirs[name], theirs[other]) == issubclass(kind, parent), (name, other)


@pytest.mark.parametrize(
    "url", ["hf://user/name", "hf://datasets/user/na.me@v1/a/b.zarr", "hf://user/name@refs%2Fpr%2F3"]
)
def test_urls_mean_the_same(url: str) -> None:
    utils: Any = hub.utils
    if not hasattr(utils, "parse_hf_uri"):
        pytest.skip("this version of the library shows no parser of URLs")
    ours, theirs = parse_hub_url(url), utils.parse_hf_uri(url)
    assert (ours.kind, ours.repository, ours.revision or None, ours.path) == (
        theirs.type, theirs.id, theirs.revision, theirs.path_in_repo,
    )  # fmt: skip
