"""URLs of the hub, and stores that are read from its repositories."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from fsspec.registry import known_implementations
from upath import UPath

from data_schemas.errors import HubError, StoreError
from data_schemas.hub import HubPlace, is_hub_url, parse_hub_url
from data_schemas.locations import location
from data_schemas.objects import remove_objects, write_object, write_objects
from data_schemas.stores.open import create_store, open_store
from tests.data_schemas.stores.store_examples import assert_same, content_of, example_header, example_rows
from tests.hub_stand_in import show_files

REPOSITORY = "hf://datasets/user/name"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("hf://user/name", HubPlace("model", "user/name")),
        (Path("hf://user/name"), HubPlace("model", "user/name")),
        ("HF://datasets/user/name/", HubPlace("dataset", "user/name")),
        ("hf://datasets/user/na.me@v1/a/b.zarr", HubPlace("dataset", "user/na.me", "v1", "a/b.zarr")),
        ("hf://user/name@refs%2Fpr%2F3", HubPlace("model", "user/name", "refs/pr/3")),
    ],
)
def test_urls_are_read(url: str | Path, place: HubPlace) -> None:
    assert is_hub_url(url)
    assert parse_hub_url(url) == place


@pytest.mark.parametrize(
    "url",
    ["hf://", "hf://user", "hf://datasets/user", "hf://spaces/user/name", "hf://buckets/user/name", "hf://user/name@",
     "hf://user/../name", "hf://user/name/../x", "hf://us er/name", "hf://user/na--me", "hf://user/" + "n" * 97,
     "hf://user/name?token=1", "s3://user/name", "runs/name"],
)  # fmt: skip
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(HubError, match=r"Allowed: .*hf://"):
        parse_hub_url(url)


def test_a_password_in_a_url_is_not_repeated() -> None:
    with pytest.raises(HubError) as caught:
        parse_hub_url("hf://user:secret@datasets/name")
    assert "secret" not in str(caught.value)


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder behind a repository."""
    folder = tmp_path / "datasets" / "user" / "name"
    folder.mkdir(parents=True)
    show_files(monkeypatch, tmp_path)
    return folder


def fill(path: Path) -> None:
    header = example_header()
    with create_store(path, header) as store:
        rows = example_rows(header, 16, 0)
        store.append(list(rows.source_id))
        store.write_block(0, rows)


def test_the_one_store_of_a_repository_is_read(repository: Path) -> None:
    fill(repository / "sprites.zarr")
    (repository / "README.md").write_text("about it")
    with open_store(REPOSITORY) as store, open_store(repository / "sprites.zarr") as local:
        assert str(store.path) == f"{REPOSITORY}/sprites.zarr"
        assert_same(content_of(store), content_of(local))
    with open_store(f"{REPOSITORY}/sprites.zarr") as store:
        assert len(store) == 16


def test_of_several_stores_one_must_be_named(repository: Path) -> None:
    fill(repository / "a.zarr")
    shutil.copytree(repository / "a.zarr", repository / "b.zarr")
    with pytest.raises(StoreError, match=rf"holds 2 stores.*{REPOSITORY}/a.zarr, {REPOSITORY}/b.zarr"):
        open_store(REPOSITORY)


def test_a_repository_without_a_store_says_what_it_holds(repository: Path) -> None:
    with pytest.raises(StoreError, match=r"holds no store.*splatspace push"):
        open_store(REPOSITORY)
    (repository / "model.safetensors").touch()
    with pytest.raises(StoreError, match=r"holds no store.*splatspace sample"):
        open_store(REPOSITORY)
    (repository / "sprites.h5").touch()
    with pytest.raises(StoreError, match=r"HDF5 store.*Next: hf download user/name sprites.h5 --repo-type dataset"):
        open_store(REPOSITORY)


@pytest.mark.parametrize("url", ["hf://datasets/user/absent", "hf://datasets/user/absent/a.zarr"])
@pytest.mark.usefixtures("repository")
def test_an_absent_repository_may_be_a_private_one(url: str) -> None:
    with pytest.raises(StoreError, match=r"absent.* does not exist, or is private.*Next: .*hf auth login"):
        open_store(url)


def test_nothing_is_written_file_by_file(repository: Path) -> None:
    fill(repository / "a.zarr")
    before = sorted(repository.rglob("*"))
    url = f"{REPOSITORY}/a.zarr"
    place = location(url)
    assert isinstance(place, UPath)
    for write in (
        lambda: open_store(url, "a"),
        lambda: create_store(f"{REPOSITORY}/b.zarr", example_header()),
        lambda: remove_objects(place, ["zarr.json"]),
        lambda: write_objects(place, {"zarr.json": b""}, lambda key: (0, key)),
        lambda: write_object(place / "zarr.json", b""),
    ):
        with pytest.raises(StoreError, match="takes whole commits"):
            write()
    assert sorted(repository.rglob("*")) == before


def test_the_extra_is_named_where_its_library_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(known_implementations, "hf", {"class": "absent_library.HfFileSystem", "err": "install it"})
    with pytest.raises(StoreError, match=r'not installed.*Next: pip install "splatspace\[hub\]"'):
        open_store(f"{REPOSITORY}/a.zarr")
