"""Rows and images by name: the usual order without memory, every other order by hash."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_schemas.stores.open import open_store
from encoders.base import FitSettings
from pipeline.encode import plan as planning
from pipeline.encode import rows as row_matching
from pipeline.encode.rows import ContentIndex, NameIndex, match_rows
from tests.pipeline.encode.fakes import GAUSSIANS, ArrayImages, SamplingEncoder, pictures, run


class OneHash(str):
    """Text that shares its hash with every other."""

    def __hash__(self) -> int:
        return 7

    __eq__ = str.__eq__


def test_names_are_found_and_others_are_not() -> None:
    names = [f"n{i}" for i in range(1000)]
    index = NameIndex(names)
    assert [index.find(name) for name in ("n0", "n999", "n500", "absent")] == [0, 999, 500, -1]
    assert index.repeated() is None


def test_names_of_one_hash_are_told_apart() -> None:
    names = [OneHash(text) for text in ("a", "b", "c")]
    index = NameIndex(names)
    assert [index.find(OneHash(text)) for text in ("a", "c", "d")] == [0, 2, -1]
    assert index.repeated() is None
    assert NameIndex([*names, OneHash("b")]).repeated() == "b"


def test_a_repeated_name_is_found() -> None:
    assert NameIndex(["a", "b", "c", "b"]).repeated() == "b"


@pytest.fixture
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_matching, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(planning, "ROWS_PER_APPEND", 4)


@pytest.mark.usefixtures("small_portions")
class TestMatch:
    @pytest.fixture
    def store(self, tmp_path: Path) -> Path:
        run(tmp_path / "a.zarr", ArrayImages(pictures(10)))
        return tmp_path / "a.zarr"

    @pytest.mark.slow
    @pytest.mark.parametrize("images", [10, 14])
    def test_the_same_order_needs_no_table(self, store: Path, images: int) -> None:
        with open_store(store) as rows:
            match = match_rows(rows, ArrayImages(pictures(images)).identifiers())
        assert match.aligned
        assert match.of(2, 5).tolist() == [2, 3, 4]
        assert list(match.new(images)) == list(range(10, images))
        assert list(match.new(6)) == []
        assert match.removed() == 0

    @pytest.mark.slow
    @pytest.mark.parametrize("seed", range(5))
    def test_any_other_order_equals_a_dictionary(self, store: Path, seed: int) -> None:
        random = np.random.default_rng(seed)
        everything = [f"image-{i:04d}" for i in range(16)]
        names = [everything[i] for i in random.permutation(16)[:12]]
        with open_store(store) as rows:
            stored = rows.read(["source_id"])["source_id"].tolist()
            match = match_rows(rows, names)
        expected = [names.index(name) if name in names else -1 for name in stored]
        assert not match.aligned
        assert match.of(0, 10).tolist() == expected
        assert match.removed() == expected.count(-1)
        assert list(match.new(8)) == [i for i in range(8) if names[i] not in stored]
        of_job = np.concatenate([part for _, part in match.portions(8)])
        assert of_job.tolist() == [0 <= index < 8 for index in expected]

    @pytest.mark.slow
    def test_images_that_go_and_come_keep_their_rows(self, store: Path) -> None:
        source = ArrayImages(pictures(10))
        gone = source.pixels.pop("image-0004")
        source.pixels["late"], source.labels["late"] = gone[::-1].copy(), 0
        encoder = SamplingEncoder()
        summary = run(store, source, encoder)
        assert (summary.kept, summary.fitted, summary.removed, summary.rows) == (9, 1, 1, 11)
        assert encoder.fitted == 1
        with open_store(store) as rows:
            assert rows.read(["source_id"])["source_id"].tolist()[4] == "image-0004"
            assert rows.read(["source_id"])["source_id"].tolist()[10] == "late"


@pytest.mark.slow
def test_contents_are_found_by_part_of_their_hash(tmp_path: Path) -> None:
    source = ArrayImages(pictures(10))
    run(tmp_path / "a.zarr", source)
    with open_store(tmp_path / "a.zarr") as store:
        hashes = store.read(["content_hash"])["content_hash"]
        index = ContentIndex.of_store(store, store.header.block_rows)
    assert [index.candidates(digest.tobytes()) for digest in hashes] == [[row] for row in range(10)]
    assert index.candidates(bytes(16)) == []


@pytest.mark.slow
def test_an_index_forgets_the_oldest_and_the_run_fits_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.encode.rows.MOST_RECENT", 3)
    index = ContentIndex()
    for row in range(5):
        index.add(bytes([row] * 16), row)
    assert [len(index.candidates(bytes([row] * 16))) for row in range(5)] == [0, 0, 1, 1, 1]
    images = pictures(10)
    images[8:] = images[:2]  # the same content, a long way apart
    encoder = SamplingEncoder()
    summary = run(tmp_path / "a.zarr", ArrayImages(images), encoder)
    assert (summary.fitted, summary.reused) == (10, 0)
    monkeypatch.undo()
    again = run(tmp_path / "b.zarr", ArrayImages(images))
    assert (again.fitted, again.reused) == (8, 2)
    with open_store(tmp_path / "a.zarr") as one, open_store(tmp_path / "b.zarr") as other:
        names = ("splats", "psnr", "steps", "dead", "content_hash")
        for name in names:
            np.testing.assert_array_equal(one.read([name])[name], other.read([name])[name])


@pytest.mark.slow
def test_another_setting_makes_another_version(tmp_path: Path) -> None:
    source = ArrayImages(pictures(6))
    out = tmp_path / "a.zarr"

    def store_of(steps: int) -> str:
        return run(out, source, SamplingEncoder(FitSettings(GAUSSIANS, steps=steps)), versions=True).store.name

    assert [store_of(steps) for steps in (3, 5, 3, 7, 5)] == [
        "a.zarr", "a.v2.zarr", "a.zarr", "a.v3.zarr", "a.v2.zarr",
    ]  # fmt: skip
    for path, steps in ((out, 3), (tmp_path / "a.v2.zarr", 5), (tmp_path / "a.v3.zarr", 7)):
        with open_store(path) as store:
            assert store.header.settings["steps"] == steps
            assert len(store) == 6
