"""Paths that are given to flows stay inside the roots."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_schemas.errors import JobError
from flows.guards import ROOTS_VARIABLE, read_roots, require_inside_roots


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that flows may use; the current folder is inside it."""
    folder = tmp_path / "data"
    (folder / "sets").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (folder / "inside").symlink_to(folder / "sets")
    (folder / "outside").symlink_to(tmp_path / "secret")
    monkeypatch.setenv(ROOTS_VARIABLE, f"{folder}:s3://bucket/sets")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "path",
    [
        "{root}", "{root}/new/demo.zarr", "{root}/sets/../demo.zarr", "{root}/inside/demo.zarr", "demo.zarr",
        "sets/../demo.zarr", "s3://bucket/sets", "s3://bucket/sets/demo.zarr", "s3:/bucket/sets/demo.zarr",
        "S3://bucket/sets/demo.zarr", "file://{root}/demo.zarr",
    ],
)  # fmt: skip
def test_what_lies_inside_is_allowed(root: Path, path: str) -> None:
    require_inside_roots(out=path.format(root=root))


@pytest.mark.parametrize(
    "path",
    [
        "/etc", "{root}/../secret/demo.zarr", "../secret", "{root}-more/demo.zarr", "{root}/outside/demo.zarr",
        "outside", "~/demo.zarr", "~root/demo.zarr", "file:/etc/passwd", "file://{root}/../secret", "local:///etc",
        "s3://bucket/other", "s3://bucket/sets-more/x.zarr", "s3://bucket/sets/../other/x.zarr", "s3://bucket",
        "s3://bucket/sets/%2e%2e/other", "s3://bucket/sets/x.zip::file:/etc", "gs://bucket/sets/x.zarr",
        "memory://sets/x.zarr",
    ],
)  # fmt: skip
@pytest.mark.parametrize("parameter", ["out", "dataset", "data_dir", "store"])
def test_what_lies_outside_is_refused_by_name(root: Path, path: str, parameter: str) -> None:
    given = path.format(root=root)
    with pytest.raises(JobError) as caught:
        require_inside_roots(**{parameter: given})
    assert caught.value.got.startswith(f"{parameter} {given!r} lies outside")
    assert caught.value.allowed == f"{root}, s3://bucket/sets"


def test_the_name_of_a_data_set_is_no_path(root: Path) -> None:
    require_inside_roots(dataset="mnist", out=root / "mnist.zarr", data_dir=None)
    with pytest.raises(JobError):
        require_inside_roots(dataset="/mnist")


def test_without_the_variable_everything_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ROOTS_VARIABLE, raising=False)
    assert read_roots() is None
    require_inside_roots(dataset="/etc", out="s3://any/x.zarr", store=None)


def test_set_to_nothing_it_allows_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(ROOTS_VARIABLE, "")
    with pytest.raises(JobError, match=ROOTS_VARIABLE):
        require_inside_roots(out=tmp_path / "demo.zarr")


def test_roots_are_separated_as_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOTS_VARIABLE, "/data: /images :s3://bucket/a:gs://other:")
    assert read_roots() == ("/data", "/images", "s3://bucket/a", "gs://other")


def test_a_link_to_itself_is_refused_with_words(root: Path) -> None:
    (root / "loop").symlink_to("loop")
    with pytest.raises(JobError, match=r"out: .*leads back to itself"):
        require_inside_roots(out=root / "loop" / "demo.zarr")
