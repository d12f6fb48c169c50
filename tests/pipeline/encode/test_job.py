"""Presets and options become a job, or an error that says what to type."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_schemas.errors import JobError
from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.presets import PRESETS, gaussians_for


@pytest.mark.parametrize(
    ("name", "gaussians", "side", "channels"),
    [
        ("mnist", 70, 28, 1),
        ("sprites", 150, 32, 3),
        ("sprites64", 500, 64, 3),
        ("cifar10", 200, 32, 3),
        ("cats", 256, 64, 3),
        ("demo", 150, 32, 3),
    ],
)
def test_presets(name: str, gaussians: int, side: int, channels: int) -> None:
    preset = PRESETS[name]
    assert (preset.gaussians, preset.height, preset.width, preset.channels) == (gaussians, side, side, channels)
    job = resolve_job(name, "a.zarr")
    assert (job.gaussians, job.steps, job.codec, job.start) == (gaussians, 400, "additive/1", "transport")
    assert job.workers >= 1


def test_options_win_over_the_preset_and_none_means_the_preset() -> None:
    job = resolve_job(
        "mnist", Path("a.h5"), gaussians=12, steps=None, codec="normalised", split="test", dtype="float16"
    )
    assert (job.gaussians, job.steps, job.codec, job.split, job.dtype) == (12, 400, "normalised/1", "test", "float16")
    assert EncodeJob.model_validate_json(job.model_dump_json()) == job


def test_a_path_gets_its_gaussians_from_the_image_size() -> None:
    job = resolve_job("photos", "a.zarr")
    assert job.gaussians is None
    assert job.fit_settings(32, 32).gaussians == 128
    assert gaussians_for(1, 1) == 16
    assert gaussians_for(10_000, 10_000) == 4096


@pytest.mark.parametrize("out", ["a.png", "a", "folder/", ".zarr", "a.zarr.zip"])
def test_a_store_has_a_suffix(out: str) -> None:
    with pytest.raises(JobError, match=r"\.zarr") as caught:
        resolve_job("mnist", out)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"gaussians": -1}, "--gaussians -1"),
        ({"gaussians": 10**6}, "--gaussians 1000000"),
        ({"steps": -1}, "--steps -1"),
        ({"target_psnr": -3.0}, "--target-psnr -3.0"),
        ({"target_psnr": float("nan")}, "--target-psnr nan"),
        ({"rounds": 0}, "--rounds 0"),
        ({"rounds": 3}, "give --target-psnr"),
        ({"limit": 0}, "--limit 0"),
        ({"workers": 0}, "--workers 0"),
        ({"seed": -1}, "--seed -1"),
        ({"dtype": "int8"}, "--dtype 'int8'"),
        ({"codec": "under"}, "Codec 'under'"),
        ({"start": "middle"}, "--start 'middle'"),
        ({"split": "validation"}, "--split 'validation'"),
        ({"engine": "gpu"}, "--engine 'gpu'"),
        ({"colour": "bounded"}, "--colour"),
        ({"size": 100_000}, "--size 100000"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(JobError) as caught:
        resolve_job("mnist", "a.zarr", **options)
    assert named in str(caught.value)


def test_options_that_exclude_each_other() -> None:
    with pytest.raises(JobError, match="--data-dir together with the path"):
        resolve_job("photos", "a.zarr", data_dir=Path("data"))


def test_a_word_that_is_a_data_set_and_a_folder_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("cats").mkdir()
    assert resolve_job("cats", "a.zarr").gaussians == PRESETS["cats"].gaussians
    assert "for the folder of that name that is here give ./cats" in caplog.text
    caplog.clear()
    resolve_job("./cats", "a.zarr")
    resolve_job("cats", "a.zarr", data_dir="cats")
    resolve_job("demo", "a.zarr")
    assert not caplog.records
