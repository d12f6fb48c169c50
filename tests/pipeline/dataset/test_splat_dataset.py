from __future__ import annotations

import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from data_schemas.errors import JobError, StoreCorruptError, StoreError, StoreMismatchError
from data_schemas.records import RowBlock, RowState
from data_schemas.splats import LAYOUTS
from data_schemas.stores.open import create_store, open_store
from models.features.splats import SplatRepresentation
from pipeline.dataset import splat_dataset, stored_rows
from pipeline.dataset.shard_shuffle import ShardBatch, ShardShuffleSampler
from pipeline.dataset.splat_dataset import SplatDataset, SplatItem
from tests.data_schemas.stores.store_examples import example_header
from tests.pipeline.dataset.stores import make_store

DONE = [row for row in range(48) if row not in (5, 20)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RowBlock]:
    path = tmp_path_factory.mktemp("stores") / "small.zarr"
    return path, make_store(path)


def flat(batches: Iterable[list[int]]) -> list[int]:
    return [position for batch in batches for position in batch]


def assert_item(item: Any, rows: RowBlock, row: int) -> None:
    assert item["row"] == row
    assert item["label"] == rows.label[row]
    assert item["splats"].dtype == torch.float32
    np.testing.assert_array_equal(item["splats"].numpy(), rows.splats[row].astype(np.float32))
    assert rows.image is not None
    assert item["image"].dtype == torch.float32
    np.testing.assert_allclose(item["image"].numpy(), rows.image[row].transpose(2, 0, 1) / 255, atol=1e-7)


@pytest.mark.parametrize("memory", [0, 2048])
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_every_finished_row_is_an_item(tmp_path: Path, suffix: str, memory: int) -> None:
    rows = make_store(tmp_path / f"small.{suffix}")
    with SplatDataset(tmp_path / f"small.{suffix}", memory=memory) as dataset:
        assert dataset.in_memory == bool(memory)
        assert len(dataset) == len(DONE)
        assert dataset.rows.tolist() == DONE
        assert dataset.labels.tolist() == rows.label[DONE].tolist()
        assert dataset.unfinished.count == 2
        assert dataset.unfinished.named == ("image 5", "image 20")
        for position in (0, 5, 19, -1):
            assert_item(dataset[position], rows, DONE[position])
        for row, item in zip(DONE, dataset, strict=True):
            assert_item(item, rows, row)
        batch = dataset[[7, 3, 3, -1]]
        assert batch["row"].tolist() == [DONE[7], DONE[3], DONE[3], DONE[-1]]
        assert batch["splats"].shape == (4, 3, 8)
        assert_item({name: values[2] for name, values in batch.items()}, rows, DONE[3])
        assert dataset[40:]["row"].tolist() == DONE[40:]
        assert dataset[9:9]["image"].shape == (0, 3, 6, 5)
        for beyond in (len(DONE), -len(DONE) - 1):
            with pytest.raises(IndexError, match="0 to 45"):
                dataset[beyond]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_features_of_every_layout_are_normalised_and_lead_back(tmp_path: Path, layout: str) -> None:
    rows = make_store(
        tmp_path / "s.zarr", layout=layout, channels=LAYOUTS[layout].channels, dtype="float32", images=False,
        codec="over/1" if "alpha" in layout else "additive/1",
    )  # fmt: skip
    dataset = SplatDataset(tmp_path / "s.zarr", features=True)
    item = dataset[3]
    assert set(item) == {"splats", "features", "label", "row"}
    batch = dataset[:]
    assert batch["features"].shape == (len(DONE), 3, 5 + LAYOUTS[layout].channels + LAYOUTS[layout].has_alpha)
    assert batch["features"].mean(dim=0).abs().max() < 0.1
    assert torch.equal(item["features"], batch["features"][3])
    assert dataset.representation is not None
    back = dataset.representation.decode(batch["features"])
    np.testing.assert_allclose(back.numpy(), rows.splats[DONE], atol=2e-4)


def test_features_are_those_that_a_generator_learns_from(tmp_path: Path) -> None:
    from pipeline.train.rows import TrainingRows
    from tests.pipeline.training_runs import job_of

    make_store(tmp_path / "s.zarr")
    with open_store(tmp_path / "s.zarr") as store:
        learned = TrainingRows(store, job_of(tmp_path / "s.zarr", tmp_path / "run")).fitted_representation()
        assert isinstance(learned, SplatRepresentation)
    for memory in (0, 64):
        own = SplatDataset(tmp_path / "s.zarr", features=True, memory=memory).representation
        assert own is not None
        assert own.config() == learned.config()
        for name, values in learned.tensors().items():
            torch.testing.assert_close(own.tensors()[name], values)
    given = SplatDataset(tmp_path / "s.zarr", features=learned)
    assert given.representation is learned
    assert torch.equal(given[4]["features"], learned.encode(given[4:5]["splats"])[0])


def test_an_order_by_anchors_and_none(tmp_path: Path) -> None:
    anchors = ((-0.8, -0.8), (0.0, 0.0), (0.8, 0.8))
    rows = make_store(tmp_path / "s.zarr", anchors=anchors, dtype="float32")
    with open_store(tmp_path / "s.zarr", "a") as store:
        block = store.read_block(0)
        # The Gaussians of row 1 sit on the anchors, in reverse.
        block.splats[1, :, 6:] = np.array(anchors)[::-1]
        store.write_block(0, block)
    stored = SplatDataset(tmp_path / "s.zarr", features=True)
    ordered = SplatDataset(tmp_path / "s.zarr", order="anchors", features=True)
    assert torch.equal(ordered[1]["splats"], stored[1]["splats"].flip(0))
    np.testing.assert_allclose(ordered[1]["splats"][:, 6:].numpy(), np.array(anchors), atol=1e-6)
    assert stored.representation is not None
    assert stored.representation.mean.shape == (3, 8)
    unordered = SplatDataset(tmp_path / "s.zarr", order="none", features=True)
    assert unordered.representation is not None
    assert unordered.representation.mean.shape == (1, 8)
    assert_item(unordered[9], rows, DONE[9])


def row_only(item: SplatItem) -> dict[str, Any]:
    return {"row": item["row"], "dark": item["image"] / 2}


def test_a_transform_makes_the_item(made: tuple[Path, RowBlock]) -> None:
    path, rows = made
    dataset = SplatDataset(path, transform=row_only)
    assert set(dataset[2]) == {"row", "dark"}
    assert rows.image is not None
    np.testing.assert_allclose(dataset[2]["dark"].numpy(), rows.image[2].transpose(2, 0, 1) / 510, atol=1e-7)
    assert dataset[:3]["dark"].shape == (3, 3, 6, 5)
    (batch,) = DataLoader(dataset, batch_size=len(dataset))
    assert batch["row"].tolist() == DONE


def in_a_process_of_its_own(call: str) -> None:
    """Runs a function of this module where no flow has run: what is forked off after one dies as it ends."""
    code = f"from tests.pipeline.dataset import test_splat_dataset as tests; tests.{call}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr


def check_forked_workers(folder: str) -> None:
    for number, (suffix, memory) in enumerate([("zarr", 0), ("h5", 0), ("zarr", 64)]):
        path = Path(folder) / f"{number}.{suffix}"
        make_store(path)
        dataset = SplatDataset(path, memory=memory, features=True)
        whole = dataset[:]  # opened here, before the fork
        sampler = ShardShuffleSampler(dataset, 8, num_workers=2)
        loaded = list(DataLoader(dataset, batch_sampler=sampler, num_workers=2, multiprocessing_context="fork"))
        order = torch.cat([batch["row"] for batch in loaded])
        assert sorted(order.tolist()) == DONE
        positions = torch.searchsorted(whole["row"], order)
        for name in ("splats", "image", "features", "label"):
            assert torch.equal(torch.cat([batch[name] for batch in loaded]), whole[name][positions]), (path, name)


def test_forked_workers_give_what_this_process_gives(tmp_path: Path) -> None:
    in_a_process_of_its_own(f"check_forked_workers({str(tmp_path)!r})")


@pytest.mark.parametrize("memory", [0, 64])
def test_a_pickled_one_reads_for_itself(made: tuple[Path, RowBlock], memory: int) -> None:
    path, _ = made
    dataset = SplatDataset(path, memory=memory, transform=row_only)
    _ = dataset[0]
    content = pickle.dumps(dataset)
    assert len(content) < 20_000
    sent = pickle.loads(content)
    assert sent[4]["row"] == DONE[4]
    assert torch.equal(sent[4]["dark"], dataset[4]["dark"])


@pytest.mark.slow
def test_a_store_on_object_storage(s3_bucket: str) -> None:
    from upath import UPath

    rows = make_store(UPath(f"{s3_bucket}/dataset/small.zarr"), blocks=2)
    dataset = SplatDataset(f"{s3_bucket}/dataset/small.zarr", memory=0)
    assert_item(dataset[6], rows, DONE[6])
    in_a_process_of_its_own(f"check_forked_workers_of_a_url({s3_bucket!r})")


def check_forked_workers_of_a_url(bucket: str) -> None:
    dataset = SplatDataset(f"{bucket}/dataset/small.zarr", memory=0)
    _ = dataset[6]
    sampler = ShardShuffleSampler(dataset, 8, num_workers=2)
    loader = DataLoader(dataset, batch_sampler=sampler, num_workers=2, multiprocessing_context="fork")
    assert sorted(torch.cat([batch["row"] for batch in loader]).tolist()) == DONE[:30]


class TestShuffle:
    @pytest.fixture
    def large(self, made: tuple[Path, RowBlock], monkeypatch: pytest.MonkeyPatch) -> SplatDataset:
        """As if two shards fitted into memory."""
        dataset = SplatDataset(made[0], memory=0)
        monkeypatch.setattr(dataset, "_most_bytes", int(dataset._stored.row_bytes * 16 * 2 / 0.75) + 16)
        return dataset

    def test_every_row_comes_once_in_an_order_of_seed_and_epoch(self, large: SplatDataset) -> None:
        sampler = ShardShuffleSampler(large, 8, seed=3)
        first = list(sampler)
        assert [len(batch) for batch in first] == [8, 8, 8, 8, 8, 6]
        assert len(sampler) == 6
        assert sorted(flat(first)) == list(range(len(large)))
        assert list(sampler) == first
        sampler.set_epoch(1)
        assert list(sampler) != first
        assert list(ShardShuffleSampler(large, 8, seed=4)) != first
        shorter = ShardShuffleSampler(large, 8, seed=3, drop_last=True)
        assert list(shorter) == first[:5]
        assert len(shorter) == 5

    def test_rows_are_mixed_within_as_many_shards_as_fit(self, large: SplatDataset) -> None:
        order = np.array(flat(ShardShuffleSampler(large, 1)))
        shards = large.rows[order] // 16
        ends = len(np.unique(shards[:30])), len(np.unique(shards[-15:]))
        assert ends == (2, 1), "two shards at once, then the third"
        assert (np.diff(shards[:28]) != 0).sum() > 5
        assert (np.diff(order) == 1).sum() < 10

    def test_each_shard_is_read_once(self, large: SplatDataset, monkeypatch: pytest.MonkeyPatch) -> None:
        read: list[tuple[int, int]] = []
        whole = stored_rows.StoredRows.read
        monkeypatch.setattr(
            stored_rows.StoredRows, "read",
            lambda self, start, stop: (read.append((start, stop)), whole(self, start, stop))[1],
        )  # fmt: skip
        for batch in DataLoader(large, batch_sampler=ShardShuffleSampler(large, 8)):
            assert len(batch["row"]) in (8, 6)
        assert sorted(read) == [(0, 16), (16, 32), (32, 48)]

    def test_each_worker_has_shards_of_its_own(self, large: SplatDataset) -> None:
        batches = list(ShardShuffleSampler(large, 4, num_workers=2))
        assert all(isinstance(batch, ShardBatch) for batch in batches)
        whole = [{int(shard) for shard in large.rows[batch] // 16} for batch in batches[:6]]
        assert not set.union(*whole[::2]) & set.union(*whole[1::2])
        assert sorted(flat(batches)) == list(range(len(large)))

    def test_what_fits_into_memory_is_shuffled_as_a_whole(self, made: tuple[Path, RowBlock]) -> None:
        dataset = SplatDataset(made[0])
        order = np.array(flat(ShardShuffleSampler(dataset, 8, num_workers=2)))
        assert len(np.unique(dataset.rows[order[:16]] // 16)) == 3

    @pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"num_workers": -1}, {"seed": 1.5}, {"batch_size": True}])
    def test_wrong_numbers_are_refused(self, large: SplatDataset, wrong: dict[str, Any]) -> None:
        with pytest.raises(JobError, match=next(iter(wrong))):
            ShardShuffleSampler(large, **{"batch_size": 4, **wrong})


class TestBadInput:
    @pytest.mark.parametrize(
        ("wrong", "said"),
        [
            ({"gaussians": 4}, "has gaussians 3. Allowed: gaussians 4"),
            ({"layout": "grey"}, "has layout rgb. Allowed: layout grey"),
            ({"order": "random"}, "stored, anchors, none"),
            ({"memory": -1}, "MiB"),
            ({"features": SplatRepresentation(layout="grey", gaussians=3)}, "layout rgb and 3 Gaussians"),
        ],
    )
    def test_what_was_promised_or_asked_for_wrongly(
        self, made: tuple[Path, RowBlock], wrong: dict[str, Any], said: str
    ) -> None:
        with pytest.raises((StoreMismatchError, JobError), match=said):
            SplatDataset(made[0], **wrong)
        assert len(SplatDataset(made[0], gaussians=3, layout="rgb")) == 46

    def test_an_order_that_would_change_the_pictures(self, tmp_path: Path) -> None:
        make_store(tmp_path / "s.zarr", layout="rgb_alpha", codec="over/1")
        with pytest.raises(JobError, match="what lies in front"):
            SplatDataset(tmp_path / "s.zarr", order="anchors")

    def test_stores_without_splats_images_or_finished_rows(self, tmp_path: Path) -> None:
        with create_store(tmp_path / "only.zarr", example_header(gaussians=0, anchors=None, start=None)):
            pass
        with pytest.raises(StoreMismatchError, match="images only"):
            SplatDataset(tmp_path / "only.zarr")
        make_store(tmp_path / "bare.zarr", images=False)
        assert "image" not in SplatDataset(tmp_path / "bare.zarr")[0]
        with pytest.raises(StoreMismatchError, match="no source images"):
            SplatDataset(tmp_path / "bare.zarr", image=True)
        assert "image" not in SplatDataset(tmp_path / "bare.zarr", image=False)[0]
        with create_store(tmp_path / "empty.zarr", example_header()) as store:
            store.append(["one", "two"])
        with pytest.raises(StoreError, match="no finished row; not done: one, two"):
            SplatDataset(tmp_path / "empty.zarr")
        with pytest.raises(StoreError, match="does not exist"):
            SplatDataset(tmp_path / "missing.zarr")

    def test_rows_that_are_finished_later_need_another_opening(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        path = tmp_path / "s.zarr"
        make_store(path, blocks=2, unfinished=tuple(range(16, 32)))
        dataset = SplatDataset(path, memory=0)
        assert "16 rows are not done and not used: image 16, " in caplog.text
        with open_store(path, "a") as store:
            block = store.read_block(1)
            block.state[:], block.splats[:] = RowState.DONE, 0.5
            store.write_block(1, block)
            assert dataset.rows.tolist() == list(range(16))
            assert len(dataset[:]["row"]) == 16
            assert len(SplatDataset(path)) == 32

    @pytest.mark.parametrize("workers", [0, 1])
    def test_a_deleted_shard_is_named(self, tmp_path: Path, workers: int) -> None:
        make_store(tmp_path / "s.zarr")
        dataset = SplatDataset(tmp_path / "s.zarr", memory=0)
        (tmp_path / "s.zarr/splats/c/1/0/0").unlink()
        assert dataset[0]["row"] == 0
        loader = DataLoader(
            dataset, batch_size=8, num_workers=workers, multiprocessing_context="fork" if workers else None
        )
        with pytest.raises(StoreCorruptError, match="shard splats/c/1/0/0 is missing"):
            list(loader)
        with pytest.raises(StoreCorruptError, match="shard splats/c/1/0/0 is missing"):
            SplatDataset(tmp_path / "s.zarr")

    def test_a_store_that_was_deleted_replaced_or_taken_back(self, tmp_path: Path) -> None:
        path = tmp_path / "s.zarr"
        make_store(path)
        taken, replaced, deleted = (SplatDataset(path, memory=0) for _ in range(3))
        with open_store(path, "a") as store:
            block = store.read_block(0)
            block.state[2] = RowState.EMPTY
            store.write_block(0, block)
        with pytest.raises(StoreError, match="rows 2 were finished"):
            taken[0]
        shutil.rmtree(path)
        with pytest.raises(StoreError, match="does not exist"):
            deleted[0]
        make_store(path)
        with pytest.raises(StoreMismatchError, match="replaced"):
            replaced[0]

    def test_splats_that_are_not_finite_are_named(self, tmp_path: Path) -> None:
        path = tmp_path / "s.zarr"
        make_store(path)
        dataset = SplatDataset(path, memory=0)
        with open_store(path, "a") as store, pytest.MonkeyPatch.context() as patch:
            patch.setattr("data_schemas.stores.contract.check_block", lambda rows, *_: rows)
            block = store.read_block(0)
            block.splats[6, 1, 2] = np.nan
            store.write_block(0, block)
        with pytest.raises(StoreCorruptError, match=r"row 6 \(image 6\)"):
            dataset[0]

    def test_nothing_is_read_from_a_closed_one(self, made: tuple[Path, RowBlock]) -> None:
        dataset = SplatDataset(made[0])
        dataset.close()
        dataset.close()
        with pytest.raises(StoreError, match="closed"):
            dataset[0]


def test_memory_stays_within_what_was_asked_for(made: tuple[Path, RowBlock], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splat_dataset, "MEBIBYTE", 1)
    dataset = SplatDataset(made[0], memory=16 * 234)
    assert dataset._stored.row_bytes == 3 * 8 * 2 + 3 * 6 * 5
    for batch in DataLoader(dataset, batch_sampler=ShardShuffleSampler(dataset, 4)):
        held = dataset._held()
        assert isinstance(held, stored_rows.RecentRows)
        assert held._bytes == sum(portion.nbytes for portion in held._held.values()) <= 16 * 234
        assert len(batch["row"]) in (4, 2)
