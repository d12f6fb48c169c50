"""Kills while new images are appended, while changed ones are encoded again, and while a store is replaced."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.chaos_of_changes import ALL, STAGES
from tests.faults.stores_alike import assert_alike, left_beside

FEW, MANY = 4, 12
"""Kills in each stage."""


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize("kills", [FEW, pytest.param(MANY, marks=pytest.mark.soak)])
def test_a_store_that_is_being_changed_survives_every_kill(
    kills: int, suffix: str, tmp_path: Path, repository: Path
) -> None:
    command = [sys.executable, "-m", "tests.faults.chaos_of_changes", str(tmp_path), suffix, "--kills", str(kills)]
    finished = subprocess.run(
        command, cwd=repository, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    print(finished.stdout)  # noqa: T201  where the kills fell
    assert told["faults"] == []
    for stage in STAGES:
        assert told[stage]["kills"] >= kills // 2
        assert_alike(tmp_path / f"killed-{stage}.{suffix}", tmp_path / f"undisturbed-{stage}.{suffix}", images=ALL)
    assert left_beside(tmp_path / f"killed.{suffix}") == []
