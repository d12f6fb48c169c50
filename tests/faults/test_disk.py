"""A full disk, a limit on files, a folder that may no longer be written: nothing is lost, and the next run goes on."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.encode.job import EncodeJob, resolve_job
from pipeline.encode.run import encode
from tests.faults.full_disk import IMAGES, SIZES, source
from tests.faults.servers import REPOSITORY, done_rows
from tests.faults.stores_alike import assert_alike
from tests.pipeline.encode.fakes import run
from tests.waiting import wait_until

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}


def namespace(folder: Path) -> list[str]:
    """How a command gets mounts of its own; the test is skipped where that may not be."""
    for options in (["--mount"], ["--user", "--map-root-user", "--mount"]):
        command = ["unshare", *options]
        try:
            tried = subprocess.run([*command, "mount", "-t", "tmpfs", "tmpfs", str(folder)], capture_output=True)
        except FileNotFoundError:
            break
        if tried.returncode == 0:
            return command
    pytest.skip("a small disk cannot be mounted here: neither root nor user namespaces")


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_a_disk_that_is_full_again_and_again(suffix: str, tmp_path: Path) -> None:
    command = [*namespace(tmp_path), sys.executable, "-m", "tests.faults.full_disk", str(tmp_path), suffix]
    finished = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    told = json.loads(finished.stdout)
    *failed, last = told["tries"]
    assert len(failed) == len(SIZES[suffix])
    for entry in failed:
        assert "No space left on device" in entry["error"]
        assert "free some space and run the same command again" in entry["error"]
    rows = [entry["done"] for entry in told["tries"]]
    assert rows == sorted(rows), "rows were lost"
    assert len({count for count in rows if 0 < count < IMAGES}) >= 2, "the disk was never full in the middle"
    assert last["error"] == ""
    assert last["fitted"] == IMAGES - rows[-2], "rows were fitted twice"
    assert told["left"] == [f"a.{suffix}", f"a.{suffix}.lock"]
    expected = tmp_path / f"expected.{suffix}"
    run(expected, source())
    assert_alike(tmp_path / f"filled.{suffix}", expected, images=IMAGES)


LIMITED = """
import resource, sys
from pathlib import Path
from data_schemas.errors import StoreError
from tests.faults.full_disk import source
from tests.pipeline.encode.fakes import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    run(Path(sys.argv[1]), source(), block_rows=int(sys.argv[3]))
except StoreError as error:
    sys.exit(str(error))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "limit", "done"), [("zarr", 30_000, 0), ("h5", 120_000, IMAGES)])
def test_a_file_that_may_not_grow(suffix: str, limit: int, done: int, tmp_path: Path) -> None:
    # zarr: the first block's pixels are too large. HDF5: each block fits, the whole file does not.
    out, rows = tmp_path / f"a.{suffix}", 20
    command = [sys.executable, "-c", LIMITED, str(out), str(limit), str(rows)]
    finished = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True)
    assert finished.returncode == 1
    assert "File too large" in finished.stderr
    assert "what was there before is still there" in finished.stderr
    assert done_rows(out) == done
    assert run(out, source(), block_rows=rows).kept == done
    expected = tmp_path / f"expected.{suffix}"
    run(expected, source(), block_rows=rows)
    assert_alike(out, expected, images=IMAGES)


RUN = """
import sys
from pathlib import Path
from data_schemas.errors import StoreError
from pipeline.encode.run import encode
from pipeline.encode.job import EncodeJob
try:
    encode(EncodeJob.model_validate_json(sys.argv[1]))
except StoreError as error:
    sys.exit(str(error))
"""


def without_privilege() -> list[str]:
    """How root becomes somebody whom the permissions of a file bind; the test is skipped where that is impossible."""
    if os.geteuid():
        return []
    command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    try:
        tried = subprocess.run([*command, "true"], capture_output=True)
    except FileNotFoundError:
        tried = None
    if tried is None or tried.returncode:
        pytest.skip("root cannot give up its right to write everywhere here")
    return command


def job_of(folder: Path, suffix: str, images: Path) -> EncodeJob:
    return resolve_job(str(images), folder / f"a.{suffix}", gaussians=24, steps=1500, workers=1, block_rows=25)


def allow(folder: Path, mode: int) -> None:
    """Sets the permissions of a folder and of all below it, as far as they stay there meanwhile."""
    folder.chmod(mode)
    for inner, folders, _ in os.walk(folder):
        for name in folders:
            with contextlib.suppress(FileNotFoundError):
                Path(inner, name).chmod(mode)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["zarr", "h5"])
def test_permission_lost_in_the_middle(suffix: str, tmp_path: Path) -> None:
    images, folder, expected = tmp_path / "images.npz", tmp_path / "disturbed", tmp_path / "expected"
    count = 300
    coarse = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3), np.uint8)
    np.savez(images, images=coarse.repeat(4, 1).repeat(4, 2))
    folder.mkdir()
    job = job_of(folder, suffix, images)
    out = Path(str(job.out))
    command = [*without_privilege(), sys.executable, "-c", RUN, job.model_dump_json()]
    running = subprocess.Popen(command, cwd=REPOSITORY, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: done_rows(out) or running.poll() is not None, 120, "the first block")
        assert running.poll() is None
        allow(folder, 0o555)
        _, said = running.communicate(timeout=600)
    finally:
        running.kill()
        allow(folder, 0o755)
    assert running.returncode == 1
    assert "read-only" in said
    assert "permissions" in said
    kept = done_rows(out)
    assert 0 < kept < count
    summary = encode(job)
    assert (summary.kept, summary.fitted) == (kept, count - kept)
    encode(job_of(expected, suffix, images))
    assert_alike(out, expected / out.name, images=count)


@pytest.mark.slow
def test_a_folder_that_was_never_writable(tmp_path: Path) -> None:
    images, folder = tmp_path / "images.npz", tmp_path / "locked"
    np.savez(images, images=np.zeros((3, 8, 8, 3), np.uint8))
    folder.mkdir()
    folder.chmod(0o555)
    command = [*without_privilege(), sys.executable, "-c", RUN, job_of(folder, "zarr", images).model_dump_json()]
    finished = subprocess.run(command, cwd=REPOSITORY, env=ENVIRONMENT, capture_output=True, text=True)
    assert finished.returncode == 1
    assert "the place is read-only" in finished.stderr
    assert list(folder.iterdir()) == []
    folder.chmod(0o755)
    shutil.rmtree(folder)
