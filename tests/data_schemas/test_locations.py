"""Paths that lead nowhere: links to themselves and unknown homes are errors with words, wherever a path is given."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_schemas.errors import StoreError
from data_schemas.locations import resolve_path
from data_schemas.stores.open import create_store, open_store, require_outside_stores, store_exists
from tests.data_schemas.stores.store_examples import example_header


@pytest.fixture
def loop(tmp_path: Path) -> Path:
    """A link that points to itself, called like a store."""
    path = tmp_path / "loop.zarr"
    path.symlink_to(path.name)
    return path


def test_links_are_followed_and_dots_collapsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert resolve_path(tmp_path / "link" / "deep" / ".." / "x.zarr") == tmp_path / "real" / "x.zarr"
    assert resolve_path(Path("~/x")) == tmp_path / "x"


@pytest.mark.parametrize("below", ["", "deep/x.zarr"])
def test_a_link_to_itself_is_an_error_with_words(loop: Path, below: str) -> None:
    calls = (
        resolve_path,
        open_store,
        store_exists,
        require_outside_stores,
        lambda path: create_store(path, example_header()),
    )
    for call in calls:
        with pytest.raises(StoreError, match="leads back to itself"):
            call(loop / below if below else loop)
    assert loop.is_symlink()


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x.zarr", "x" * 300 + ".zarr", "a\0b.zarr"])
def test_other_dead_ends_are_errors_with_words(path: str) -> None:
    with pytest.raises(StoreError, match="leads nowhere"):
        open_store(path)
