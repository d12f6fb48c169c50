"""A plan carried out in this process: one session for all shards, stopping, the lock."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from data_schemas.errors import JobError, StoppedError, StoreCorruptError, StoreLockedError
from pipeline.encode.compute import check_compute, encode_shards, open_compute
from pipeline.encode.compute.local import shards
from pipeline.encode.job import resolve_job
from pipeline.encode.records import BlockSummary
from pipeline.encode.run import encode
from tests.pipeline.encode.compute.runs import IMAGES, assert_same_store, done, plan_for, slow, source, whole_run
from tests.pipeline.encode.fakes import SamplingEncoder, job_for


@pytest.mark.parametrize("word", ["local", "dask", "tcp://10.0.0.7:8786", "tls://head.cluster:8786", "tcp://[::1]:1"])
def test_what_may_be_asked_for(word: str) -> None:
    assert check_compute(word, "x.zarr") == word
    assert check_compute(word, Path("x.ZARR")) == word


@pytest.mark.parametrize(
    "word", ["Dask", "threads", "", "tcp://", "tcp://host", "tcp://host:0", "tcp://h:99999", "x:1"]
)
def test_an_unknown_place_is_an_error_with_the_known_ones(word: str) -> None:
    with pytest.raises(JobError, match=r"local, dask, or tcp://HOST:PORT"):
        check_compute(word, "x.zarr")
    with pytest.raises(JobError):
        resolve_job("demo", "x.zarr", compute=word)


def test_hdf5_has_one_writer() -> None:
    assert check_compute("local", "x.h5") == "local"
    with pytest.raises(JobError, match="one writer") as caught:
        resolve_job("demo", "x.h5", compute="dask")
    assert ".zarr" in caught.value.next_step


def test_shards_hold_every_block_once_and_are_bounded() -> None:
    for count, rows, images in ((1, 256, 4096), (17, 256, 1024), (9766, 1024, 4096), (1221, 8192, 1)):
        groups = shards(range(count), rows, images)
        assert [block for group in groups for block in group] == list(range(count))
        assert len(groups) <= 200
        assert all(len(group) * rows >= images for group in groups[:-1])
    assert shards([], 256) == []
    assert shards([3, 7], 4096) == [(3,), (7,)]


@pytest.mark.slow
def test_shards_share_one_session_and_equal_one_run(tmp_path: Path) -> None:
    opened = []

    def open_once():
        opened.append(source())
        return opened[-1]

    plan = plan_for(tmp_path / "a.zarr", "local")
    with open_compute(plan, source_factory=open_once, encoder_factory=SamplingEncoder) as compute:
        assert compute.slots == 1
        summaries = [compute.encode(shard) for shard in shards(plan.blocks, 4, 16)]
        summary = compute.finish(summaries)
    assert len(opened) == 1
    assert len(summaries) == 6
    assert (summary.fitted, summary.rows_done, summary.engine) == (IMAGES, IMAGES, "sampling")
    assert_same_store(tmp_path / "a.zarr", whole_run(tmp_path / "b.zarr"))


@pytest.mark.slow
def test_a_second_run_is_told_who_writes(tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "a.zarr", "local")
    with (
        open_compute(plan, source_factory=source, encoder_factory=SamplingEncoder),
        pytest.raises(StoreLockedError, match="process"),
        open_compute(plan, source_factory=source, encoder_factory=SamplingEncoder),
    ):
        pass


@pytest.mark.slow
def test_stopped_inside_a_shard(tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "a.zarr", "local")
    asked: list[bool] = []

    class Watcher:
        def within_block(self, summary: BlockSummary) -> None:
            pass

        def block_done(self, summary: BlockSummary) -> None:
            asked.append(True)

    def should_stop() -> bool:
        return len(asked) >= 3

    with open_compute(plan, should_stop=should_stop, source_factory=source, encoder_factory=SamplingEncoder) as compute:
        summaries = encode_shards(compute, [plan.blocks[:12], plan.blocks[12:]], Watcher())
        assert [summary.stopped for summary in summaries] == [True]
        assert summaries[0].fitted == done(tmp_path / "a.zarr") == 12
        assert compute.finish(summaries).fitted == 12
    encode(job_for(tmp_path / "a.zarr"), source=source(), encoder=SamplingEncoder())
    assert_same_store(tmp_path / "a.zarr", whole_run(tmp_path / "b.zarr"))


@pytest.mark.slow
def test_stopped_before_it_began(tmp_path: Path) -> None:
    with pytest.raises(StoppedError, match="0 of 96"):
        encode(job_for(tmp_path / "a.zarr"), source=source(), encoder=slow()(), should_stop=lambda: True)


def test_errors_travel_between_processes() -> None:
    error = pickle.loads(pickle.dumps(StoreCorruptError("torn", rows=(3, 4), allowed="whole", next_step="fix it")))
    assert isinstance(error, StoreCorruptError)
    assert (error.got, error.rows, error.allowed, error.next_step) == ("torn", (3, 4), "whole", "fix it")
    assert str(error) == "torn. Allowed: whole. Next: fix it."


def test_no_more_shards_are_taken_than_there_are_slots() -> None:
    taken = finished = most = 0

    class Counting:
        slots = 3

        def encode(self, blocks, *, watcher=None) -> BlockSummary:
            nonlocal finished
            finished += 1
            return BlockSummary(images=len(blocks))

        def finish(self, summaries):
            raise AssertionError

    def every():
        nonlocal taken, most
        for number in range(50):
            taken += 1
            most = max(most, taken - finished)
            yield (number,)

    assert BlockSummary.merge(encode_shards(Counting(), every())).images == 50
    assert most <= 4
