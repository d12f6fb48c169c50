"""Free ports, and waiting for what another process does."""

from __future__ import annotations

import contextlib
import random
import socket
import time
from collections.abc import Callable

PORTS = range(12_000, 32_000)
"""Below those that systems give to whoever asks for any: such a one, of another test, might be given away twice."""


def free_port() -> int:
    """A port on the loopback address that nobody listens on, and that no other test is likely to be given."""
    for port in random.SystemRandom().sample(PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"of 100 ports between {PORTS.start} and {PORTS.stop} none is free")


PATIENCE = 5
"""Waits last so many times longer than a quiet machine needs: a busy one is slow, and not wrong."""


def wait_until(condition: Callable[[], object], seconds: float = 30, what: str = "what was waited for") -> None:
    """Returns as soon as the condition holds; a connection that fails meanwhile counts as "not yet".

    A condition that is costly to look at, here or in a server that is asked, is looked at less often, at most a tenth
    of the time: what is waited for needs the CPU itself.

    Args:
        condition: asked again and again.
        seconds: within which it holds on a quiet machine; ``PATIENCE`` times as long is waited.
        what: the condition, in words.

    Raises:
        AssertionError: it did not hold in time.
    """
    end = time.monotonic() + PATIENCE * seconds
    while (asked := time.monotonic()) < end:
        try:
            if condition():
                return
        except OSError:
            pass  # the server does not answer yet
        time.sleep(max(0.05, min(10 * (time.monotonic() - asked), 0.5)))
    raise AssertionError(f"{what} did not happen within {PATIENCE * seconds:.0f} s")
