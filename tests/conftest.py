"""What every test may use: where the real data is, and an environment that never touches the user's own.

The environment is set when this file is imported, before any test can import Prefect or matplotlib.
"""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock
from hypothesis import settings

# An example that takes long on a busy machine is no fault.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED_DATA_VARIABLE = "SPLATSPACE_SHARED_DATA"

COSTS = {"slow": 1, "prefect": 10, "long": 30}
"""About the seconds of a test with such a mark: only the order of the files follows from them."""

# A shell gives its background jobs an ignored interrupt, which every process below them inherits: Ctrl-C, and those who
# stop by it, would be tested deaf.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Compiled once: else every worker rewrites every test file again, and each process that a test starts compiles all of
# the packages, which takes longer than most tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

_HOME = tempfile.mkdtemp(prefix="splatspace-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]
os.environ.update(
    PREFECT_HOME=str(Path(_HOME, "prefect")),
    PREFECT_PROFILES_PATH=str(Path(_HOME, "prefect", "profiles.toml")),
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW="ignore",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="600",
    DO_NOT_TRACK="1",
    MPLBACKEND="Agg",
    NO_COLOR="1",
    # As many processes as cores run tests: more threads in each would only wait for each other.
    OMP_NUM_THREADS=os.environ.get("OMP_NUM_THREADS", "1"),
    OPENBLAS_NUM_THREADS=os.environ.get("OPENBLAS_NUM_THREADS", "1"),
)


def shared_data_folder() -> Path | None:
    """The folder of the real data sets, or None where this machine has none.

    ``SPLATSPACE_SHARED_DATA`` names it; without the variable it is ``../shared/data`` beside the checkout.
    """
    named = os.environ.get(SHARED_DATA_VARIABLE)
    folder = Path(named) if named else REPOSITORY.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="module")
def brief_features() -> Iterator[None]:
    """Features of few training steps: how well they learn is the matter of ``test_features``."""
    from pipeline.evaluate import feature_training  # with torch, which most tests do without

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(feature_training, "_STEPS", 20)
        yield


@pytest.fixture(scope="session")
def brief_previews() -> Iterator[None]:
    """Grids of samples of two evaluations: in trainings of a few steps they would cost more than all steps together."""
    from pipeline.train import card as preview  # with torch, which most tests do without

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preview, "MOST_EVALUATIONS", 2)
        yield


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of the real data sets; the test is skipped where it is absent."""
    folder = shared_data_folder()
    if folder is None:
        pytest.skip(f"no real data: set {SHARED_DATA_VARIABLE} or place it at ../shared/data")
    return folder


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def s3_bucket() -> Iterator[str]:
    """URL of an empty bucket of a server on loopback that stands in for S3."""
    from tests.object_storage import s3_server

    with s3_server() as bucket:
        yield bucket


@pytest.fixture(scope="session")
def prefect_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of Prefect's server: a copy of it, as ``prefect.db`` in a home, spares a server its migrations.

    They take longer than everything else of a first start; ``test_main`` begins with a home that has nothing. It is
    made once for all the processes of tests.
    """
    folder = tmp_path_factory.getbasetemp()
    home = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "prefect-database"
    home.mkdir(exist_ok=True)
    made, database = home / "made", home / "prefect.db"
    with FileLock(home / "lock"):
        if not made.exists():
            subprocess.run(
                [sys.executable, "-m", "prefect", "server", "database", "upgrade", "-y"],
                env={**os.environ, "PREFECT_HOME": str(home)}, cwd=home, stdin=subprocess.DEVNULL, check=True,
                capture_output=True,
            )  # fmt: skip
            connection = sqlite3.connect(database)
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            connection.close()
            made.touch()
    return database


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out what only ``-m soak`` asks for, and puts the files that take longest first.

    Workers take whole files: the long ones at once, so that none is left alone with one at the end.
    """
    if "soak" not in config.option.markexpr:
        left_out = [item for item in items if item.get_closest_marker("soak") is not None]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item.get_closest_marker("soak") is None]
    costs: dict[Path, int] = {}
    for item in items:
        cost = sum(cost for mark, cost in COSTS.items() if item.get_closest_marker(mark) is not None)
        costs[item.path] = costs.get(item.path, 0) + cost
    items.sort(key=lambda item: -costs[item.path])


def pytest_collection_finish() -> None:
    """Modules and tests live as long as the process: no later search for garbage looks at them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """One more than there are cores where servers and runs are waited for: a worker that waits needs none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return None if cores is None or "not prefect" in config.option.markexpr else cores + 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests of a GPU where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
