"""Prefect's server for ``python -m flows``: the one that answers, or one that is started for as long as it is needed.

A server that is started here listens on the loopback address only, answers no web page but its own (CORS), wants a
token for every change (CSRF), reports nothing to anybody, and ends with the process that started it: this module run as
``python -m flows.server.server --port N`` watches its standard input, whose other end the starter holds. However the
starter ends, the pipe closes and the server stops.
"""

from __future__ import annotations

import argparse
import http.client
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import urlsplit

from data_schemas.errors import SplatSpaceError

logger = logging.getLogger("splatspace.flows.server")


HOST = "127.0.0.1"

RECORD = "splatspace-server.json"
"""In Prefect's home folder: address of the server that was started there, for the commands of other terminals."""

DEFAULT_PORT = 4200
SECONDS_TO_START = 180.0
SECONDS_TO_STOP = 10.0
# Where the server is on this machine, no proxy may come between.
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


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
    parser = argparse.ArgumentParser(prog="python -m flows.server.server")
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


class ServerError(SplatSpaceError):
    """No server of Prefect, or one that cannot be used."""


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        api_url: address of its API, ending in ``/api``.
        started: whether it was started here and ends with this process.
        log: where it writes, or None where it was there before.
    """

    api_url: str
    started: bool
    log: Path | None = None

    @property
    def page(self) -> str:
        """Address of its web page."""
        return self.api_url.removesuffix("/api")


def loopback_url(port: int) -> str:
    """Address of the API of a server on this machine."""
    return f"http://{HOST}:{port}/api"


def is_loopback(api_url: str) -> bool:
    """Whether the address is one of this machine that nobody else reaches."""
    host = urlsplit(api_url).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def answers(api_url: str, seconds: float = 5.0) -> bool:
    """Whether a healthy server of Prefect answers there.

    Raises:
        ServerError: something else answers.
    """
    try:
        with _opener.open(f"{api_url}/health", timeout=seconds) as answer:
            if json.load(answer) is True:
                return True
        found = "no server of Prefect"
    except urllib.error.HTTPError as error:
        if error.code in (502, 503, 504):
            return False  # a proxy before a server that is down
        found = f"status {error.code}"
    except (http.client.HTTPException, json.JSONDecodeError, UnicodeDecodeError):
        found = "no server of Prefect"
    except (OSError, ValueError):
        return False
    raise ServerError(
        f"{api_url} answers, but not as a healthy server of Prefect: {found}",
        next_step="take another port with --port, or set PREFECT_API_URL to the API's address, which ends in /api",
    )


def check_access(api_url: str, auth: str | None) -> None:
    """Checks the password, which the health page does not ask for.

    Args:
        api_url: address of the API.
        auth: ``NAME:PASSWORD``, or None.

    Raises:
        ServerError: the server wants another one.
    """
    from base64 import b64encode

    request = urllib.request.Request(f"{api_url}/admin/version")
    if auth:
        request.add_header("Authorization", "Basic " + b64encode(auth.encode()).decode())
    try:
        with _opener.open(request, timeout=30):
            pass
    except urllib.error.HTTPError as error:
        if error.code != 401:
            return  # another kind of server; the client will say what it lacks
        raise ServerError(
            f"The server at {api_url} wants {'another' if auth else 'a'} password",
            next_step="set PREFECT_API_AUTH_STRING to NAME:PASSWORD",
        ) from None


def lets_others_in(api_url: str) -> bool:
    """Whether any web page may use this server through the browser of its user."""
    request = urllib.request.Request(f"{api_url}/health", headers={"Origin": "http://somewhere.invalid"})
    with _opener.open(request, timeout=30) as answer:
        return answer.headers.get("Access-Control-Allow-Origin") in ("*", "http://somewhere.invalid")


def environment_of(api_url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What a server is started with; a setting that the user has made stays.

    Args:
        api_url: address that it will have.
        environment: of this process.
    """
    port = urlsplit(api_url).port or DEFAULT_PORT
    return {
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port},http://localhost:{port}",
        "PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "DO_NOT_TRACK": "1",
        # `prefect deployment run NAME --watch` shows the lines of the run's log as well as its states.
        "PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED": "true",
        "PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED": "true",
        **environment,
        # The page asks for its data at this address.
        "PREFECT_API_URL": api_url,
    }


@contextmanager
def server_at(api_url: str, *, home: Path) -> Iterator[Server]:
    """The server at an address: the one that answers, or a new one, which is stopped at the end.

    Args:
        api_url: address of the API, ending in ``/api``.
        home: Prefect's home folder, for the log and the record of a new server.

    Raises:
        ServerError: something else answers there, the address is of another machine, or the server does not start.
    """
    if answers(api_url):
        yield Server(api_url, started=False)
        return
    if not is_loopback(api_url):
        raise ServerError(
            f"No server answers at {api_url}",
            next_step="start it there, or unset PREFECT_API_URL to have one started on this machine",
        )
    home.mkdir(parents=True, exist_ok=True)
    port = urlsplit(api_url).port or 80
    log = home / f"splatspace-server-{port}.log"
    if log.exists():
        log.replace(log.with_suffix(".previous.log"))
    with log.open("xb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.server.server", "--port", str(port)],
            env=environment_of(api_url, os.environ), stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT,
            # Ctrl-C in this terminal ends the runs first, and the server that they report to after them.
            start_new_session=True,
        )  # fmt: skip
    record = home / RECORD
    try:
        _wait_until_healthy(api_url, process, log)
        record.write_text(json.dumps({"api_url": api_url, "process": os.getpid()}))
        yield Server(api_url, started=True, log=log)
    finally:
        _forget(record, api_url)
        _stop(process)


def _wait_until_healthy(api_url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = monotonic() + SECONDS_TO_START
    while monotonic() < end:
        if process.poll() is not None:
            what = f"The server ended with exit code {process.returncode} before it answered"
            break
        if answers(api_url):
            return
        sleep(0.2)
    else:
        what = f"The server did not answer within {SECONDS_TO_START:.0f} s"
    lines = log.read_text(errors="replace").strip().splitlines()[-15:]
    raise ServerError("\n".join([f"{what}. The end of its log:", *lines]), next_step=f"read {log}")


def _forget(record: Path, api_url: str) -> None:
    try:
        if json.loads(record.read_text())["api_url"] == api_url:
            record.unlink()
    except (OSError, ValueError, KeyError, TypeError):
        pass  # of another server, or gone already


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.terminate()
    try:
        process.wait(SECONDS_TO_STOP)
    except subprocess.TimeoutExpired:
        logger.warning("the server did not stop within %.0f s and was killed", SECONDS_TO_STOP)
        process.kill()
        process.wait()
