"""The pieces that other programs call one by one: plan, block, finish; and writers side by side."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_schemas.errors import SourceError, StoreLockedError
from data_schemas.stores.open import open_store
from pipeline.encode import inputs as job_encoder
from pipeline.encode import inputs as job_source
from pipeline.encode.compute import open_compute
from pipeline.encode.plan import plan_encode
from pipeline.encode.records import BlockSummary, EncodePlan, FailedImage, list_outcomes
from pipeline.encode.session import EncodeSession, encode_in_order
from tests.pipeline.encode.fakes import ArrayImages, SamplingEncoder, job_for, pictures, run


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> ArrayImages:
    """A data set that every process opens by its name, and an engine that is made by its name."""
    images = ArrayImages(pictures(10))

    def open_source(*_args: Any, **_options: Any) -> ArrayImages:
        return images

    def create_encoder(_engine: str, settings: Any, *, workers: int | None = None) -> SamplingEncoder:
        assert workers == 1
        return SamplingEncoder(settings)

    monkeypatch.setattr(job_source, "open_source", open_source)
    monkeypatch.setattr(job_encoder, "create_encoder", create_encoder)
    return images


def test_what_became_of_images_names_what_there_is() -> None:
    failed = FailedImage(row=3, source_id="c", reason="cut short")
    summary = BlockSummary(images=1200, fitted=1100, kept=99, failed=(failed,))
    assert list_outcomes(summary) == "1,100 fitted, 99 kept, 1 failed"
    assert list_outcomes(BlockSummary(images=2, reused=2)) == "2 copied from identical images"


def splats_of(path: Path) -> Any:
    with open_store(path) as store:
        return store.read(["splats", "psnr", "label", "source_id"])


def assert_equal(first: Path, second: Path) -> None:
    left, right = splats_of(first), splats_of(second)
    for name, values in left.items():
        np.testing.assert_array_equal(values, right[name])


def test_a_dry_plan_writes_nothing(source: ArrayImages, tmp_path: Path) -> None:
    plan = plan_encode(job_for(tmp_path / "folder" / "a.zarr"), write=False)
    assert (plan.images, plan.new, plan.done, plan.blocks, plan.exists) == (10, 10, 0, (0, 1, 2), False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_plan_blocks_finish_equals_encode(source: ArrayImages, tmp_path: Path) -> None:
    job = job_for(tmp_path / "pieces.zarr")
    plan: EncodePlan = pickle.loads(pickle.dumps(plan_encode(job)))
    assert EncodePlan.model_validate_json(plan.model_dump_json()) == plan
    with open_compute(plan) as compute:
        summaries = [pickle.loads(pickle.dumps(compute.encode([block]))) for block in reversed(plan.blocks)]
        summary = compute.finish(summaries)
    assert (summary.fitted, summary.rows_done, summary.failed) == (10, 10, ())
    run(tmp_path / "whole.zarr", source, SamplingEncoder(job.fit_settings(8, 8)))
    assert_equal(tmp_path / "pieces.zarr", tmp_path / "whole.zarr")
    with open_store(tmp_path / "pieces.zarr") as store:
        assert [record.images for record in store.header.runs] == [10]


@pytest.mark.slow
def test_a_block_may_be_repeated(source: ArrayImages, tmp_path: Path) -> None:
    plan = plan_encode(job_for(tmp_path / "a.h5"))
    with open_compute(plan) as compute:
        assert compute.encode([1]).fitted == 4
    with open_compute(plan) as compute:
        again = compute.encode([1])
    assert (again.fitted, again.kept, again.written) == (0, 4, False)
    assert plan_encode(job_for(tmp_path / "a.h5")).done == 4


@pytest.mark.slow
def test_blocks_share_a_session(source: ArrayImages, tmp_path: Path) -> None:
    plan = plan_encode(job_for(tmp_path / "a.zarr"))
    with EncodeSession(plan) as session:
        first = encode_in_order(session, [0])
        rest = encode_in_order(session, plan.blocks[1:])
    assert [part.fitted for part in (*first, *rest)] == [4, 4, 2]


@pytest.mark.slow
def test_parallel_writers_of_one_zarr_store(source: ArrayImages, tmp_path: Path) -> None:
    plan = plan_encode(job_for(tmp_path / "a.zarr", block_rows=2))
    groups = [plan.blocks[start::3] for start in range(3)]

    def write(group: Sequence[int]) -> list[BlockSummary]:
        with EncodeSession(plan, exclusive=False) as session:
            return encode_in_order(session, group)

    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(write, groups))
    with open_compute(plan) as compute:
        summary = compute.finish([block for part in parts for block in part])
    assert (summary.fitted, summary.rows_done) == (10, 10)
    run(tmp_path / "whole.zarr", source, SamplingEncoder(plan.job.fit_settings(8, 8)))
    assert_equal(tmp_path / "a.zarr", tmp_path / "whole.zarr")


def test_a_second_run_at_the_same_time_is_refused(source: ArrayImages, tmp_path: Path) -> None:
    plan = plan_encode(job_for(tmp_path / "a.zarr"))
    with EncodeSession(plan), pytest.raises(StoreLockedError):
        plan_encode(job_for(tmp_path / "a.zarr"))


def test_a_source_that_shrinks_after_the_plan_is_an_error(source: ArrayImages, tmp_path: Path) -> None:
    plan = plan_encode(job_for(tmp_path / "a.zarr"))
    del source.pixels["image-0001"]
    with pytest.raises(SourceError, match="9 of the 10 images"), open_compute(plan) as compute:
        compute.encode([0])
    with open_store(tmp_path / "a.zarr", "a") as store:  # the lock was let go
        assert len(store) == 10
