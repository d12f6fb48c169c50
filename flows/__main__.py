"""``python -m flows``: serves every deployment; with ``--once`` it runs one and leaves."""

from __future__ import annotations

from splatspace import require_own_packages

# Before anything of the packages is imported: Python looks into the current folder first.
require_own_packages()

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from data_schemas.errors import JobError, SplatSpaceError
from data_schemas.printable import printable
from flows.catalogue import DEPLOYMENTS, prefect_yaml

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(soft_wrap=True, highlight=False)

ENVIRONMENT = {
    # Read when Prefect is imported, here and in every process of a run.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "splatspace",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DO_NOT_TRACK": "1",
}
"""What the user has not set himself."""

EXAMPLES = """\
python -m flows\n
python -m flows --once encode-demo -p limit=256 -p out=out/few.zarr\n
python -m flows --resume encode-folder -p dataset=/data/scans
"""


@app.command(epilog="Examples:\n\n" + EXAMPLES, context_settings={"help_option_names": ["--help", "-h"]})
def main(
    port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Port of the server, instead of the one in PREFECT_API_URL or 4200."),
    ] = None,
    once: Annotated[
        str | None, typer.Option(metavar="NAME", help="Run this deployment to its end and leave with its outcome.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--param", metavar="KEY=VALUE", help="With --once or --resume: one parameter of the runs."),
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the deployments and leave.")] = False,
    resume: Annotated[str | None, typer.Option(metavar="NAME", help="Resume the schedules of a deployment.")] = None,
    pause: Annotated[str | None, typer.Option(metavar="NAME", help="Pause the schedules of a deployment.")] = None,
    write_prefect_yaml: Annotated[
        bool, typer.Option("--write-prefect-yaml", help="Write prefect.yaml, which workers need, and leave.")
    ] = False,
) -> None:
    """Serves every deployment of SplatSpace: starts Prefect's server where none answers, and runs what is asked for.

    Honours PREFECT_API_URL, PREFECT_HOME and PREFECT_API_AUTH_STRING. Ctrl-C stops everything that it started.
    """
    asked = sum(bool(choice) for choice in (once, listed, resume, pause, write_prefect_yaml))
    try:
        if asked > 1:
            raise JobError("More than one of --once, --list, --resume, --pause, --write-prefect-yaml")
        if parameter and not (once or resume):
            raise JobError("-p without --once or --resume", next_step="python -m flows --once NAME -p key=value")
        if listed:
            console.print(_table())
        elif write_prefect_yaml:
            Path("prefect.yaml").write_text(prefect_yaml(), encoding="utf-8")
        elif resume or pause:
            _switch(resume or pause or "", parameter or [], active=bool(resume), port=port)
        elif once:
            raise typer.Exit(_once(once, parameter or [], port))
        else:
            _serve(port)
    except SplatSpaceError as error:
        Console(stderr=True, soft_wrap=True, highlight=False).print(str(error), style="bold red", markup=False)
        raise typer.Exit(error.exit_code) from None


def _table() -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("deployment", no_wrap=True)
    table.add_column("schedule", no_wrap=True)
    table.add_column("what it does")
    for deployment in DEPLOYMENTS:
        table.add_row(deployment.name, ", ".join(map(str, deployment.schedules)) or "-", deployment.description)
    return table


def _prepare(port: int | None) -> str:
    """Imports Prefect with the settings that it needs here.

    Returns:
        address of the API.

    Raises:
        JobError: ``port`` together with the address of another machine.
    """
    from flows.server.server import DEFAULT_PORT, is_loopback, loopback_url

    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    secret = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    if secret:
        os.environ.setdefault("PREFECT_API_AUTH_STRING", secret)
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    api_url = get_current_settings().api.url
    if port is not None:
        if api_url and not is_loopback(api_url):
            raise JobError(
                f"--port {port} while PREFECT_API_URL is {api_url}",
                allowed="--port, for a server on this machine, or PREFECT_API_URL",
                next_step=f"leave out --port, or set PREFECT_API_URL={loopback_url(port)}",
            )
        api_url = loopback_url(port)
    api_url = (api_url or loopback_url(DEFAULT_PORT)).rstrip("/")
    # In the environment too: the processes of the runs, and a server, find it there.
    os.environ["PREFECT_API_URL"] = api_url
    refresh_global_settings_context()
    return api_url


def _auth() -> str | None:
    from prefect.settings import get_current_settings

    secret = get_current_settings().api.auth_string
    return secret.get_secret_value() if secret else None


def _home() -> Path:
    from prefect.settings import get_current_settings

    return get_current_settings().home


def _switch(name: str, texts: list[str], *, active: bool, port: int | None) -> None:
    from flows.server.server import ServerError, answers, check_access

    api_url = _prepare(port)
    if not answers(api_url):
        raise ServerError(f"No server answers at {api_url}", next_step="start it: python -m flows")
    check_access(api_url, _auth())
    from flows.server.once import checked, deployment_named, parsed
    from flows.server.serving import flow_of, set_schedules

    parameters = parsed(texts)
    if parameters:
        deployment = deployment_named(name)
        checked(flow_of(deployment), {**deployment.parameters, **parameters})
    for line in set_schedules(name, active=active, parameters=parameters):
        console.print(line, markup=False)


def _stop_on_signals(react: Callable[[], None]) -> None:
    def handle(_number: int, _frame: FrameType | None) -> None:
        react()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def _once(name: str, texts: list[str], port: int | None) -> int:
    from flows.server.server import answers, check_access, is_loopback

    api_url = _prepare(port)
    from flows.server.once import checked, deployment_named, parsed, report_of, run_once
    from flows.server.serving import flow_of

    deployment = deployment_named(name)
    flow = flow_of(deployment)
    parameters = checked(flow, {**deployment.parameters, **parsed(texts)})
    if not answers(api_url) and is_loopback(api_url):
        return _once_with_a_server(name, texts, port)
    check_access(api_url, _auth())
    state = run_once(deployment, flow, parameters)
    if not state.is_completed():
        Console(stderr=True, soft_wrap=True).print(
            printable(f"{state.name}: {state.message}", keep="\n"), style="bold red", markup=False
        )
        return 1
    console.print(f"{state.name}: {report_of(state.result()) or 'no report'}", markup=False)
    return 0


def _free_port() -> int:
    # For the time of one run only, so one that nobody else may want.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _once_with_a_server(name: str, texts: list[str], port: int | None) -> int:
    """Starts a server for one run, which a process of its own carries out.

    Until it ends that process has things to tell the server; so the server ends after it.
    """
    from flows.server.server import loopback_url, server_at

    own_port = _free_port() if port is None else port
    process: subprocess.Popen[bytes] | None = None
    asked_to_stop = threading.Event()

    def react() -> None:
        asked_to_stop.set()
        if process is not None and process.poll() is None:
            process.terminate()

    _stop_on_signals(react)
    with server_at(loopback_url(own_port), home=_home()) as server:
        if asked_to_stop.is_set():
            return 1
        command = [sys.executable, "-m", "flows", "--once", name, *(word for text in texts for word in ("-p", text))]
        # In a session of its own: Ctrl-C comes to it from here, once, and not from the terminal too.
        process = subprocess.Popen(
            command, env={**os.environ, "PREFECT_API_URL": server.api_url}, start_new_session=True
        )
        code = process.wait()
    return code if code >= 0 else 128 - code


def _serve(port: int | None) -> None:
    from flows.server.server import check_access, lets_others_in, server_at

    asked_to_stop = threading.Event()
    ended = threading.Event()

    def react() -> None:
        asked_to_stop.set()
        ended.set()

    _stop_on_signals(react)
    api_url = _prepare(port)
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    from flows.init import make_automations
    from flows.server.serving import served, serving_alone

    with ExitStack() as stack:
        with console.status("Looking for Prefect's server ..."):
            server = stack.enter_context(server_at(api_url, home=_home()))
            check_access(api_url, _auth())
        if asked_to_stop.is_set():
            return
        stack.enter_context(serving_alone(api_url, _home()))
        with get_client(sync_client=True) as client:
            make_automations(client)
        stack.enter_context(served(ended.set))
        _welcome(server, short=get_current_settings().plugins.enabled)
        if lets_others_in(api_url):
            console.print("This server answers every web page: docs/operations.md.", style="yellow")
        ended.wait()
        console.print("Stopping ...")
    console.print("Stopped.")


def _welcome(server: Any, *, short: bool) -> None:
    log = f"  (log: {server.log})" if server.log else "  (was running already)"
    name = "encode-demo" if short else "encode/encode-demo"
    names = ", ".join(deployment.name for deployment in DEPLOYMENTS)
    rows = [
        ("Served", f"{names}  (what each does: python -m flows --list)"),
        ("Page", f"{server.page}{log}"),
        *([] if short else [("First", f"export PREFECT_API_URL={server.api_url}  in another terminal, and there:")]),
        ("Run", f"prefect deployment run {name} --watch" + ("  in another terminal" if short else "")),
        ("Schedule", "python -m flows --resume encode-sprites  (--pause pauses it again)"),
        ("Stop", "Ctrl-C"),
    ]
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in rows:
        table.add_row(*map(Text, row))
    console.print(table)


if __name__ == "__main__":
    logging.getLogger("splatspace").setLevel(logging.INFO)
    sys.exit(app())
