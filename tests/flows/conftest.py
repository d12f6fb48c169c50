"""A temporary Prefect server for the tests of flows; it starts when the first test of a file asks for it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def prefect_server(prefect_database: Path) -> Iterator[None]:
    """A server with a database of its own; the user's server and profile are never touched.

    It ends with the file: an idle one takes two percent of a core, until the last test of all.
    """

    def folder_of_database() -> str:
        folder = tempfile.mkdtemp()
        shutil.copy(prefect_database, Path(folder, "prefect-test.db"))
        return folder

    # Here, so that tests without a server, collected by every worker, do not wait for its ten seconds of imports.
    from prefect.testing import utilities

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utilities, "mkdtemp", folder_of_database)
        with utilities.prefect_test_harness(server_startup_timeout=600):
            yield
