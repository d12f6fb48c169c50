"""Random kills over one encode, a hundred at most, end with the bytes of a run that was left alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.phases import PHASES
from tests.faults.stores_alike import assert_alike

FEW, MANY = (15, 400), (100, 2000)
"""Kills, and images of the encode that they fall into."""


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
@pytest.mark.parametrize(("kills", "images"), [FEW, pytest.param(*MANY, marks=pytest.mark.soak)])
def test_kills_change_no_byte(kills: int, images: int, suffix: str, tmp_path: Path, repository: Path) -> None:
    command = [sys.executable, "-m", "tests.faults.chaos", str(tmp_path), suffix]
    command += ["--kills", str(kills), "--images", str(images)]
    finished = subprocess.run(
        command, cwd=repository, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    print(finished.stdout)  # noqa: T201  where the kills fell
    assert told["faults"] == []
    assert told["kills"] == kills
    # The kills are spread over the work and over its phases; else the test would prove little.
    assert told["at_random"] >= 0.4 * kills
    met = {phase for phase in PHASES if told["by_phase"].get(phase)}
    assert met >= ({"planning", "fitting", "finishing"} if kills >= MANY[0] else {"fitting", "finishing"})
    assert_alike(tmp_path / f"killed.{suffix}", tmp_path / f"undisturbed.{suffix}", images=images)
