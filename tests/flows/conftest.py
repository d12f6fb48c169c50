"""One temporary Prefect server for all tests of flows; it starts when the first test asks for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """A server with a database of its own; the user's server and profile are never touched."""
    # Here, so that tests without a server, collected by every worker, do not wait for its ten seconds of imports.
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=600):
        yield
