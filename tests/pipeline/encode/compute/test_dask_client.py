"""A plan carried out by worker processes of this machine: the same bytes, whatever happens to the workers."""

from __future__ import annotations

import logging
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import cast

import psutil
import pytest
from distributed import Client, SpecCluster, WorkerPlugin

from data_schemas.errors import ComputeError, SourceError, StoreLockedError
from pipeline.encode.compute import dask_cluster, encode_shards, open_compute
from pipeline.encode.compute.local import shards
from pipeline.encode.job import resolve_job
from pipeline.encode.records import BlockSummary
from pipeline.encode.run import encode
from tests.pipeline.encode.compute.runs import (
    IMAGES,
    BrokenSource,
    OtherEncoder,
    assert_same_store,
    done,
    images,
    listening,
    plan_for,
    slow,
    slow_in_small_batches,
    source,
    whole_run,
    workers_of,
)
from tests.pipeline.encode.fakes import SamplingEncoder, job_for
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

ME = psutil.Process()


def test_the_command_line_gives_the_bytes_of_one_process(tmp_path: Path) -> None:
    options = {"limit": 96, "steps": 5, "gaussians": 6, "block_rows": 16}
    job = resolve_job("demo", tmp_path / "dask.zarr", compute="dask", workers=2, **options)
    seen: list[int] = []
    addresses: set[str] = set()

    def progress(state) -> None:
        seen.append(state.processed)
        addresses.update(listening(ME))

    summary = encode(job, progress=progress)
    alone = encode(resolve_job("demo", tmp_path / "local.zarr", workers=1, **options))
    assert (summary.fitted, summary.rows_done, summary.psnr) == (alone.fitted, alone.rows_done, alone.psnr)
    assert seen == sorted(seen)
    assert seen[-1] == 96
    assert_same_store(tmp_path / "dask.zarr", tmp_path / "local.zarr")
    assert addresses == {"127.0.0.1"}, "something listens where other machines reach it"
    assert not workers_of(ME)
    again = encode(job)
    assert (again.kept, again.fitted) == (96, 0)


def test_stopping_reaches_the_workers_and_keeps_what_is_fitted(tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "a.zarr", "dask", workers=2, block_rows=64, count=160)
    asked = threading.Event()
    marks = tmp_path / "marks"
    marks.mkdir()
    engine = partial(slow_in_small_batches, 0.05, marks)
    with (
        open_compute(plan, should_stop=asked.is_set, source_factory=images(160), encoder_factory=engine) as compute,
        ThreadPoolExecutor(1) as pool,
    ):
        running = pool.submit(encode_shards, compute, [(block,) for block in plan.blocks])
        wait_until(lambda: len(list(marks.iterdir())) >= 6)  # a worker is in its third batch of four
        asked.set()
        summaries = running.result()  # that it did not go on to the end is counted below
        assert compute.encode(plan.blocks[:1]) == BlockSummary(stopped=True)
        total = BlockSummary.merge(summaries)
        assert total.stopped
        assert compute.finish(summaries).rows_done == total.fitted
    assert total.fitted == done(tmp_path / "a.zarr")
    assert 64 <= total.fitted < 128, "batches that were fitted are lost"
    again = encode(job_for(tmp_path / "a.zarr", block_rows=64), source=source(160), encoder=SamplingEncoder())
    assert (again.kept, again.fitted) == (total.fitted, 160 - total.fitted)
    encode(job_for(tmp_path / "b.zarr", block_rows=64), source=source(160), encoder=SamplingEncoder())
    assert_same_store(tmp_path / "a.zarr", tmp_path / "b.zarr")


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "a.zarr", "dask", workers=2)
    marks = tmp_path / "marks"
    marks.mkdir()
    killed: list[int] = []

    def kill() -> None:
        for number in (6, 12):
            wait_until(lambda number=number: len(list(marks.iterdir())) >= number)
            victim = int(max(marks.iterdir(), key=lambda mark: mark.name.split("-")[1]).name.split("-")[0])
            os.kill(victim, 9)
            killed.append(victim)

    with open_compute(plan, source_factory=images(), encoder_factory=slow(0.02, marks)) as compute:
        assert compute.slots == 4
        thread = threading.Thread(target=kill)
        thread.start()
        summaries = encode_shards(compute, shards(plan.blocks, 4, 8))
        thread.join()
        summary = compute.finish(summaries)
    assert len(killed) == 2
    assert summary.rows_done == summary.fitted + summary.kept == IMAGES
    assert_same_store(tmp_path / "a.zarr", whole_run(tmp_path / "b.zarr"))


def test_a_second_run_is_told_who_writes_and_a_lost_lock_is_noticed(tmp_path: Path) -> None:
    out = tmp_path / "a.zarr"
    plan = plan_for(out, "dask", workers=1)
    with open_compute(plan, source_factory=images(), encoder_factory=slow(0.01)) as compute:
        with (
            pytest.raises(StoreLockedError, match=f"process {os.getpid()}"),
            open_compute(plan, source_factory=images(), encoder_factory=slow()),
        ):
            pass
        assert compute.encode(plan.blocks[:2]).fitted == 8
        (tmp_path / "a.zarr.lock").write_text('{"pid": 1, "host": "elsewhere", "since": "now"}')
        with pytest.raises(StoreLockedError, match="taken over by another run"):
            compute.encode(plan.blocks[2:4])
    assert done(out) == 8


def test_what_goes_wrong_in_a_worker_is_said_here(tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "a.zarr", "dask", workers=1)
    with open_compute(plan, source_factory=BrokenSource, encoder_factory=SamplingEncoder) as compute:
        with pytest.raises(SourceError, match="the disk of this machine is gone") as caught:
            compute.encode(plan.blocks[:1])
        assert caught.value.next_step == "buy one"
    with (
        open_compute(plan, source_factory=images(), encoder_factory=OtherEncoder) as compute,
        pytest.raises(ComputeError, match="other settings"),
    ):
        compute.encode(plan.blocks[:1])


def test_a_shard_that_kills_its_workers_is_an_error_and_others_go_on(tmp_path: Path) -> None:
    plan = plan_for(tmp_path / "a.zarr", "dask", workers=2)
    with (
        open_compute(plan, source_factory=images(), encoder_factory=slow(deadly=True)) as compute,
        pytest.raises(ComputeError, match="Blocks 0 to 1: every worker that tried them was killed"),
    ):
        compute.encode(plan.blocks[:2])
    assert done(tmp_path / "a.zarr") == 0


class FailedHeartbeat(WorkerPlugin):
    """What a worker on a busy machine logs while it is closed."""

    def teardown(self, worker: object) -> None:
        logging.getLogger("distributed.worker").error("nobody hears the heartbeat of %s", worker)


def test_workers_leave_in_silence(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with dask_cluster.local_workers(plan_for(tmp_path / "a.zarr", "dask", workers=1)) as client:
        client.register_plugin(FailedHeartbeat())
        client.run(logging.getLogger("distributed.worker").error, "heard while it works")
    said = capfd.readouterr().err
    assert "heard while it works" in said
    assert "nobody hears the heartbeat" not in said


def test_each_worker_sees_one_graphics_card(monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(dask_cluster.worker_specs(3)) == 3
    specs = dask_cluster.worker_specs(7, ["0", "GPU-5f"])
    with SpecCluster(workers=specs, scheduler=dask_cluster.scheduler_spec()) as cluster, Client(cluster) as client:
        client.wait_for_workers(2, timeout=150)
        seen = cast(dict[str, str], client.run(os.getenv, "CUDA_VISIBLE_DEVICES"))
        assert sorted(seen.values()) == ["0", "GPU-5f"]
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert dask_cluster.graphics_cards("cpu") == []
    monkeypatch.setattr(dask_cluster, "GPU_ENGINES", frozenset({"cpu"}))
    assert dask_cluster.graphics_cards("cpu") == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, 6,7")
    assert dask_cluster.graphics_cards("cpu") == ["4", "6", "7"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert dask_cluster.graphics_cards("cpu") == []
