"""What is asked of a training, as a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_schemas.errors import JobError
from pipeline.train.request import resolve_request


def test_settings_of_a_preset_are_numbers_where_they_look_like_them(tmp_path: Path) -> None:
    settings = ("entries=64", "gram=0.5", "activation=softmax")
    job = resolve_request("cats", tmp_path / "a.zarr", tmp_path, head="lut", settings=settings)
    assert job.changes == {"entries": 64, "gram": 0.5, "activation": "softmax"}
    assert resolve_request("splats", tmp_path / "a.zarr", tmp_path, model="splatdit", pack=2).changes == {"pack": 2}
    with pytest.raises(JobError, match="--set entries"):
        resolve_request("cats", tmp_path / "a.zarr", tmp_path, head="lut", settings=["entries"])
