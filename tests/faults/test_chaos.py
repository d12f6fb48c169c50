"""A hundred random kills over one encode of 2,000 images end with the bytes of a run that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.chaos import IMAGES
from tests.faults.phases import PHASES
from tests.faults.stores_alike import assert_alike

KILLS = 100


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_a_hundred_kills_change_no_byte(suffix: str, tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.chaos", str(tmp_path), suffix, "--kills", str(KILLS)]
    finished = subprocess.run(
        command, cwd=repository, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    print(finished.stdout)  # noqa: T201  where the kills fell
    assert told["faults"] == []
    assert told["kills"] == KILLS
    # The kills are spread over the work and over its phases; else the test would prove little.
    assert told["at_random"] >= 40
    assert {phase for phase in PHASES if told["by_phase"].get(phase)} >= {"planning", "fitting", "finishing"}
    assert_alike(tmp_path / f"killed.{suffix}", tmp_path / f"undisturbed.{suffix}", images=IMAGES)
