"""``python -m flows.server_process --port N``: Prefect's server, which ends with the process that started it.

The starter holds the other end of this process' standard input. When it ends, however it ends, the pipe closes and
the server stops: a kill leaves no server behind that nobody knows of.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Sequence

HOST = "127.0.0.1"

RECORD = "splatspace-server.json"
"""In Prefect's home folder: address of the server that was started there, for the commands of other terminals."""


def stop_with_the_starter(pipe: int) -> None:
    """Stops this process, in an orderly way, as soon as ``pipe`` is closed at its other end.

    Args:
        pipe: a file descriptor to read from; nothing is ever written to it.
    """

    def wait() -> None:
        while os.read(pipe, 1024):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="stop-with-the-starter", daemon=True).start()


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs ``prefect server start`` in this process, on the loopback address."""
    parser = argparse.ArgumentParser(prog="python -m flows.server_process")
    parser.add_argument("--port", type=int, required=True)
    port: int = parser.parse_args(arguments).port
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    stop_with_the_starter(pipe)

    from prefect.cli import app

    sys.argv[:] = ["prefect", "server", "start", "--host", HOST, "--port", str(port)]
    app()


if __name__ == "__main__":
    main()
