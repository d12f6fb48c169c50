"""One temporary Prefect server for all tests of flows; it starts when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from prefect.testing.utilities import prefect_test_harness


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A server with a database of its own; the user's server and profile are never touched."""
    with prefect_test_harness(server_startup_timeout=600):
        yield
