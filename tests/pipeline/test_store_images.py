"""Rows without a content hash are told apart by their splats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_schemas.errors import StoreMismatchError
from data_schemas.records import RowBlock, content_hash
from data_schemas.stores.open import open_store
from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from pipeline.store_images import content_identities
from pipeline.train.rows import TrainingRows
from pipeline.train.state import continue_job
from pipeline.train.train import train
from tests.pipeline.changed_rows import change_rows
from tests.pipeline.encode.fakes import ArrayImages, pictures, run
from tests.pipeline.training_runs import job_of, make_store, trained

pytestmark = pytest.mark.usefixtures("brief_previews")


def without_hashes(first: int, rows: RowBlock) -> None:
    """As a published layout is converted without its images; row 9 repeats row 8."""
    rows.content_hash[:] = 0
    if first == 8:
        rows.splats[1] = rows.splats[0]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return change_rows(
        make_store(tmp_path_factory.mktemp("plain") / "a.zarr", images=False, block_rows=8), without_hashes
    )


@pytest.mark.slow
def test_repeats_are_found_and_nothing_else(store: Path, tmp_path: Path) -> None:
    with open_store(store) as opened:
        contents = content_identities(opened, np.arange(24))
        assert len({content.tobytes() for content in contents}) == 23
        assert contents.any(axis=1).all()
        np.testing.assert_array_equal(contents[8], contents[9])
        np.testing.assert_array_equal(content_identities(opened, [9, 3]), contents[[9, 3]])
        rows = TrainingRows(opened, job_of(store, tmp_path / "run", distinct=True))
        assert rows.split.repeats.tolist() == [9]
        assert len(rows) == 23


def test_some_are_kept_apart(store: Path, tmp_path: Path) -> None:
    with open_store(store) as opened:
        split = TrainingRows(opened, job_of(store, tmp_path / "run", held_out=0.5)).split
    assert 4 <= len(split.held_out) <= 20
    assert sorted([*split.held_out, *split.training]) == list(range(24))


@pytest.mark.slow
def test_a_training_does_not_go_on_with_other_splats(store: Path, tmp_path: Path) -> None:
    trained(store, tmp_path / "run", steps=1, every=1)

    def other(first: int, rows: RowBlock) -> None:
        without_hashes(first, rows)
        if not first:
            rows.splats[2, 0, 3] = 0.25

    changed = change_rows(make_store(tmp_path / "b.zarr", images=False, block_rows=8), other)
    with pytest.raises(StoreMismatchError, match="not what this training began with"):
        train(continue_job(tmp_path / "run", {"store": changed, "steps": 2}), resume=True)


@pytest.mark.slow
def test_hashes_that_are_there_are_taken(tmp_path: Path) -> None:
    images = pictures(6)
    path = tmp_path / "a.zarr"
    run(path, ArrayImages(images))

    def third(first: int, rows: RowBlock) -> None:
        if not first:
            rows.content_hash[2] = 0

    change_rows(path, third)
    with open_store(path) as opened:
        contents = content_identities(opened, range(6))
    expected = np.stack([content_hash(image) for image in images])
    np.testing.assert_array_equal(np.delete(contents, 2, axis=0), np.delete(expected, 2, axis=0))
    assert contents[2].any()
    assert not (contents[2] == expected).all(axis=1).any()


@pytest.mark.slow
def test_stores_of_images_only_are_told_apart_by_pixels(tmp_path: Path) -> None:
    images = pictures(5)
    path = tmp_path / "a.zarr"
    encode(resolve_job("arrays", path, gaussians=0, workers=1, block_rows=4), source=ArrayImages(images))
    change_rows(path, lambda _first, rows: rows.content_hash.fill(0))
    with open_store(path) as opened:
        np.testing.assert_array_equal(
            content_identities(opened, range(5)), np.stack([content_hash(image) for image in images])
        )
