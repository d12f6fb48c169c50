"""Numbers of any length, and seeds that are looked at before the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from data_schemas.errors import JobError
from pipeline.encode.job import resolve_job
from pipeline.evaluate.job import EvaluateJob
from pipeline.options import LARGEST_SEED, whole_number
from pipeline.sample.job import SampleJob
from pipeline.train.job import resolve_train_job
from pipeline.train.request import resolve_request

LONG = "9" * 5000
"""Python refuses to read more than 4,300 digits as a number."""


def test_whole_numbers() -> None:
    assert [whole_number(text) for text in ("0", "-17", "9" * 18)] == [0, -17, 10**18 - 1]
    assert [whole_number(text) for text in ("", "-", "1.5", "x", "--1", "9" * 19, LONG)] == [None] * 7


@pytest.mark.parametrize("seed", [-1, LARGEST_SEED + 1, 2**70, 10**4000])
def test_every_job_refuses_a_seed_that_cannot_be_kept(seed: int, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--seed"):
        SampleJob(tmp_path, seed=seed)
    with pytest.raises(JobError, match="--seed"):
        EvaluateJob(run=tmp_path, store="a.zarr", out=tmp_path, seed=seed)
    with pytest.raises(JobError, match="--seed"):
        resolve_train_job("splats", tmp_path / "a.zarr", tmp_path, seed=seed)
    with pytest.raises(JobError, match="--seed"):
        resolve_job("demo", tmp_path / "a.zarr", seed=seed)


def test_the_largest_seed_is_taken_by_all(tmp_path: Path) -> None:
    assert SampleJob(tmp_path, seed=LARGEST_SEED).seed == LARGEST_SEED
    assert resolve_train_job("splats", tmp_path / "a.zarr", tmp_path, seed=LARGEST_SEED).seed == LARGEST_SEED
    assert resolve_job("demo", tmp_path / "a.zarr", seed=LARGEST_SEED).seed == LARGEST_SEED


@pytest.mark.parametrize("evaluations", [0, 100_001, 10**4000])
def test_evaluations_are_looked_at_before_the_work(evaluations: int, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="evaluations"):
        SampleJob(tmp_path, evaluations=evaluations)
    job = EvaluateJob(run=tmp_path, store="a.zarr", out=tmp_path)
    with pytest.raises(JobError):
        replace(job, evaluations=evaluations)
    with pytest.raises(JobError):
        replace(job, sweep=(1, evaluations))


@pytest.mark.parametrize("guidance", [-1.0, float("nan"), float("inf")])
def test_guidance_is_a_number_from_zero(guidance: float, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="--guidance"):
        SampleJob(tmp_path, guidance=guidance)
    with pytest.raises(JobError, match="--guidance"):
        EvaluateJob(run=tmp_path, store="a.zarr", out=tmp_path, guidance=guidance)


def test_a_setting_of_many_digits_stays_a_text_that_is_refused_by_name(tmp_path: Path) -> None:
    job = resolve_request("cats", tmp_path / "a.zarr", tmp_path, head="lut", settings=[f"entries={LONG}", "gram=inf"])
    assert job.changes == {"entries": LONG, "gram": "inf"}
