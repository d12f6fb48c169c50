"""Plans, slow engines and Dask processes for the tests of where a run is computed."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from data_schemas.records import RowState
from data_schemas.stores.contract import ARRAYS
from data_schemas.stores.open import open_store
from encoders.base import FitResult, FitSettings
from pipeline.encode.compute import EncoderFactory, SourceFactory
from pipeline.encode.job import EncodeJob
from pipeline.encode.plan import survey
from pipeline.encode.records import EncodePlan
from pipeline.encode.run import encode
from tests.conftest import REPOSITORY
from tests.pipeline.encode.fakes import ArrayImages, SamplingEncoder, job_for, pictures

IMAGES = 96


class SlowEncoder(SamplingEncoder):
    """The sampling engine with a pause for each image, and a mark on the disk for each batch that is begun."""

    def __init__(self, pause: float = 0.0, marks: Path | None = None, deadly: bool = False) -> None:
        super().__init__()
        self.pause, self.marks, self.deadly = pause, marks, deadly

    def fit(self, images: NDArray[np.uint8], *, should_stop: Callable[[], bool] | None = None) -> FitResult:
        if self.marks is not None:
            (self.marks / f"{os.getpid()}-{time.time_ns()}").touch()
        if self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in images:
            if should_stop is not None and should_stop():
                raise InterruptedError
            time.sleep(self.pause)
        return super().fit(images, should_stop=should_stop)


class OtherEncoder(SamplingEncoder):
    """The sampling engine of another version."""

    def recipe(self) -> dict[str, Any]:
        return {"sigma": 0.3}


class BrokenSource(ArrayImages):
    """A data set that cannot be opened where it is read."""

    def __init__(self) -> None:
        from data_schemas.errors import SourceError

        raise SourceError("the disk of this machine is gone", allowed="a disk", next_step="buy one")


def source(count: int = IMAGES) -> ArrayImages:
    return ArrayImages(pictures(count))


def slow(pause: float = 0.0, marks: Path | None = None, *, deadly: bool = False) -> EncoderFactory:
    return partial(SlowEncoder, pause, marks, deadly)


def slow_in_small_batches(pause: float, marks: Path) -> SlowEncoder:
    """An engine that wants few images at once."""
    encoder = SlowEncoder(pause, marks)
    encoder.at_once = 16
    return encoder


def images(count: int = IMAGES) -> SourceFactory:
    return partial(source, count)


def plan_for(out: Path, compute: str, *, count: int = IMAGES, **options: Any) -> EncodePlan:
    job: EncodeJob = job_for(out, compute=compute, **options)
    return survey(job, source=source(count), encoder=SamplingEncoder(FitSettings(6, steps=3))).plan


def whole_run(out: Path) -> Path:
    """The store of a run that nothing disturbed: made once in this process, and copied."""
    return shutil.copytree(_undisturbed(), out)


@functools.cache
def _undisturbed() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="splatspace-whole-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    encode(job_for(folder / "whole.zarr"), source=source(), encoder=SamplingEncoder())
    return folder / "whole.zarr"


def rows_of(path: Path) -> dict[str, NDArray[Any]]:
    with open_store(path) as store:
        return store.read(ARRAYS)


def assert_same_store(left: Path, right: Path) -> None:
    """The same rows, and the same bytes of every file that holds any."""
    rows, others = rows_of(left), rows_of(right)
    for name in ARRAYS:
        np.testing.assert_array_equal(rows[name], others[name], err_msg=name)
    files = {path.relative_to(left) for path in left.rglob("*") if path.is_file()}
    assert files == {path.relative_to(right) for path in right.rglob("*") if path.is_file()}
    for file in files - {Path("zarr.json")}:  # the header has the times of the run
        assert (left / file).read_bytes() == (right / file).read_bytes(), file


def done(path: Path) -> int:
    return int((rows_of(path)["state"] == RowState.DONE).sum())


def listening(process: psutil.Process) -> set[str]:
    """Addresses on which a process and its children listen."""
    found: set[str] = set()
    for one in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            found |= {c.laddr.ip for c in one.net_connections("inet") if c.status == psutil.CONN_LISTEN}
    return found


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """Dask worker processes below a process."""
    return [
        child
        for child in process.children(recursive=True)
        if "spawn_main" in " ".join(child.cmdline()) and "resource_tracker" not in " ".join(child.cmdline())
    ]


@contextlib.contextmanager
def dask_process(*arguments: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """``dask ARGUMENTS`` in a process of its own, killed at the end with everything it started."""
    variables = {
        **os.environ,
        "PYTHONPATH": str(REPOSITORY),
        "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
        **(environment or {}),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "dask", *arguments],
        cwd=REPOSITORY,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
