"""Free ports, and waiting for what another process does."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable


def free_port() -> int:
    """A port on the loopback address that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition: Callable[[], object], seconds: float = 30, what: str = "what was waited for") -> None:
    """Returns as soon as the condition holds; a connection that fails meanwhile counts as "not yet".

    Raises:
        AssertionError: it did not hold in time.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            if condition():
                return
        except OSError:
            pass  # the server does not answer yet
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen within {seconds:.0f} s")
