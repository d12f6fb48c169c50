"""One slow job, its undisturbed store, and a server for the tests of flows under faults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pipeline.encode.job import resolve_job
from pipeline.encode.run import encode
from tests.faults.servers import FLOW_IMAGES, FLOW_SETTINGS, Server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, prefect_database: Path) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("home"), prefect_database)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "images.npz"
    coarse = np.random.default_rng(0).integers(0, 256, (FLOW_IMAGES, 4, 4, 3), np.uint8)
    np.savez(path, images=coarse.repeat(4, 1).repeat(4, 2))
    return path


@pytest.fixture(scope="module")
def undisturbed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    encode(resolve_job(str(source), path, **FLOW_SETTINGS))
    return path
