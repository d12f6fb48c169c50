"""The engine is handed as many images at once as it asks for, and is not kept waiting for what follows a fit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from encoders.base import FEWEST_PER_CALL, MOST_PER_CALL, FitResult, FitSettings, images_for_processor
from encoders.engines import create_encoder
from pipeline.encode.block import BlockEncoder
from pipeline.encode.compute.local import BLOCKS_ON_A_CARD, blocks_per_shard, shards
from pipeline.encode.plan import BLOCK_BYTES, survey
from pipeline.encode.records import EncodePlan
from pipeline.encode.run import encode
from tests.pipeline.encode.fakes import ArrayImages, SamplingEncoder, job_for, pictures
from tests.pipeline.encode.test_run import assert_same_rows


def asking_for(images: int) -> SamplingEncoder:
    encoder = SamplingEncoder()
    encoder.at_once = images
    return encoder


def planned(tmp_path: Path, images: int, at_once: int, **options: Any) -> EncodePlan:
    source = ArrayImages(np.zeros((images, 1, 1, 3), np.uint8))
    job = job_for(tmp_path / "a.zarr", block_rows=None, **options)
    return survey(job, source=source, encoder=asking_for(at_once), write=False).plan


@pytest.mark.slow
def test_the_engine_gets_as_many_images_as_it_asks_for(tmp_path: Path) -> None:
    encoder = asking_for(300)
    source = ArrayImages(pictures(700, side=4))
    seen: list[int] = []
    summary = encode(
        job_for(tmp_path / "a.zarr", block_rows=1024),
        source=source,
        encoder=encoder,
        progress=lambda state: seen.append(state.processed),
    )
    assert encoder.batches == [300, 300, 100]
    assert summary.fitted == 700
    assert seen[:3] == [300, 600, 700], "progress shows after each call"


@pytest.mark.parametrize(
    ("images", "at_once", "compute", "rows"),
    [
        (5000, 256, "local", 256),  # an engine on the CPU: small blocks
        (5000, 1000, "local", 1024),
        (5000, 100_000, "local", 1024),  # four blocks at least, so that reading and writing overlap
        (9000, 100_000, "local", 2048),
        (9000, 100_000, "dask", 1024),  # workers share them
        (300, 100_000, "local", 256),
    ],
)
def test_blocks_are_as_large_as_a_call(tmp_path: Path, images: int, at_once: int, compute: str, rows: int) -> None:
    assert planned(tmp_path, images, at_once, compute=compute).header.block_rows == rows


def test_memory_bounds_a_block_whatever_an_engine_asks_for(tmp_path: Path) -> None:
    source = ArrayImages(np.zeros((40, 1024, 1024, 3), np.uint8))
    job = job_for(tmp_path / "a.zarr", block_rows=None)
    rows = survey(job, source=source, encoder=asking_for(10**6), write=False).plan.header.block_rows
    assert rows * 1024 * 1024 * 3 <= BLOCK_BYTES < 2 * rows * 1024 * 1024 * 3


@pytest.mark.slow
def test_the_size_of_blocks_is_the_stores_once_there_is_one(tmp_path: Path) -> None:
    source = ArrayImages(pictures(20, side=4))
    encode(job_for(tmp_path / "a.zarr", block_rows=8), source=source, encoder=asking_for(4))
    later = asking_for(100)
    source.pixels["new"] = pictures(1, side=4, seed=1)[0]
    source.labels["new"] = 0
    summary = encode(job_for(tmp_path / "a.zarr", block_rows=None), source=source, encoder=later)
    assert (summary.kept, summary.fitted, later.batches) == (20, 1, [1])


class WaitingEncoder(SamplingEncoder):
    """Its second call goes on only once the result of the first is being measured."""

    def __init__(self) -> None:
        super().__init__()
        self.at_once = 4
        self.measured = threading.Event()

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        if self.batches:
            assert self.measured.wait(120), "the result of the first call is measured after the second"
        return super().fit(images, should_stop=should_stop)


def test_what_was_fitted_is_measured_while_the_next_images_are_fitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = WaitingEncoder()
    original = BlockEncoder._store

    def store(self: BlockEncoder, *arguments: Any) -> list[str]:
        encoder.measured.set()
        return original(self, *arguments)

    monkeypatch.setattr(BlockEncoder, "_store", store)
    source = ArrayImages(pictures(8, side=4))
    assert encode(job_for(tmp_path / "a.zarr", block_rows=8), source=source, encoder=encoder).fitted == 8


def test_what_goes_wrong_while_it_is_measured_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def store(*_: Any) -> list[str]:
        raise ArithmeticError("measured wrongly")

    monkeypatch.setattr(BlockEncoder, "_store", store)
    source = ArrayImages(pictures(8, side=4))
    with pytest.raises(ArithmeticError, match="measured wrongly"):
        encode(job_for(tmp_path / "a.zarr", block_rows=8), source=source, encoder=asking_for(4))


@pytest.mark.slow
def test_rows_do_not_depend_on_how_many_threads_measure(tmp_path: Path) -> None:
    source = ArrayImages(pictures(75, side=8))
    for workers in (1, 4):
        encoder = asking_for(70)
        encode(job_for(tmp_path / f"{workers}.zarr", block_rows=128, workers=workers), source=source, encoder=encoder)
        assert encoder.batches == [70, 5]
    assert_same_rows(tmp_path / "1.zarr", tmp_path / "4.zarr")


@pytest.mark.parametrize("engine", ["cpu", "reference"])
def test_an_engine_on_the_processor_asks_for_a_second_of_work(engine: str) -> None:
    assert create_encoder(engine, FitSettings(gaussians=200)).images_per_call(32, 32, 3) == 195
    assert images_for_processor(1, 4, 4) == MOST_PER_CALL
    assert images_for_processor(20_000, 1024, 1024) == FEWEST_PER_CALL


@pytest.mark.parametrize(
    ("engine", "compute", "blocks", "fewest"),
    [
        ("cpu", "local", 1000, 1),
        ("reference", "dask", 1000, 1),
        ("cuda", "local", 1000, BLOCKS_ON_A_CARD),
        ("gsplat", "local", 5, 2),
        ("cuda", "local", 1, 1),
        ("cuda", "dask", 32, 2),
        ("cuda", "tcp://127.0.0.1:1", 7, 1),
    ],
)
def test_a_card_gets_several_blocks_in_a_row(engine: str, compute: str, blocks: int, fewest: int) -> None:
    found = blocks_per_shard(engine, compute, blocks)
    assert found == fewest
    groups = shards(range(blocks), 8192, blocks_per_shard=found, most=blocks)
    assert [block for group in groups for block in group] == list(range(blocks))
    assert all(len(group) == found for group in groups[:-1])
