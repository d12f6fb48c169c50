"""``python -m flows``: serves every deployment; with ``--once`` it runs one and leaves."""

from __future__ import annotations

from splatspace import require_own_packages

# Before anything of the packages is imported: Python looks into the current folder first.
require_own_packages()

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
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
from flows.server.settings import auth, home, prepare, require_server

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(soft_wrap=True, highlight=False)

_STARTING = "Starting Prefect's server at {}: some ten seconds on a quiet machine ..."

EXAMPLES = """\
python -m flows\n
python -m flows --once encode-demo -p limit=256 -p out=out/few.zarr\n
python -m flows --resume encode-folder -p dataset=/data/scans\n
python -m flows --history demo
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
    history: Annotated[
        str | None, typer.Option(metavar="SET", help="Print the PSNR of a set from report to report and leave.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="With --history: print JSON instead of the table.")] = False,
    write_prefect_yaml: Annotated[
        bool, typer.Option("--write-prefect-yaml", help="Write prefect.yaml, which workers need, and leave.")
    ] = False,
) -> None:
    """Serves every deployment of SplatSpace: starts Prefect's server where none answers, and runs what is asked for.

    Honours PREFECT_API_URL, PREFECT_HOME and PREFECT_API_AUTH_STRING. Ctrl-C stops everything that it started.
    """
    asked = sum(bool(choice) for choice in (once, listed, resume, pause, history, write_prefect_yaml))
    try:
        if asked > 1:
            raise JobError("More than one of --once, --list, --resume, --pause, --history, --write-prefect-yaml")
        if parameter and not (once or resume):
            raise JobError("-p without --once or --resume", next_step="python -m flows --once NAME -p key=value")
        if as_json and not history:
            raise JobError("--json without --history", next_step="python -m flows --history demo --json")
        if listed:
            console.print(_table())
        elif write_prefect_yaml:
            Path("prefect.yaml").write_text(prefect_yaml(), encoding="utf-8")
        elif resume or pause:
            _switch(resume or pause or "", parameter or [], active=bool(resume), port=port)
        elif history:
            _history(history, as_json=as_json, port=port)
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


@contextmanager
def _telling(what: str) -> Iterator[None]:
    """Shows what takes some seconds: with a spinner on a terminal, else in a line."""
    if console.is_terminal:
        with console.status(what):
            yield
    else:
        console.print(what, markup=False)
        yield


def _history(name: str, *, as_json: bool, port: int | None) -> None:
    require_server(port)
    from prefect.client.orchestration import get_client

    from flows.artifacts.history import history_table, read_history
    from flows.artifacts.report import artifact_key

    with get_client(sync_client=True) as client:
        entries = read_history(client, artifact_key(name))
    if as_json:
        content = {"set": name, "reports": [entry.json() for entry in entries]}
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        console.print(history_table(entries))


def _switch(name: str, texts: list[str], *, active: bool, port: int | None) -> None:
    require_server(port)
    from flows.server.deployments import flow_of
    from flows.server.once import check_parameters, deployment_named, parse_parameters
    from flows.server.serving import set_schedules

    parameters = parse_parameters(texts)
    if parameters:
        deployment = deployment_named(name)
        check_parameters(flow_of(deployment), {**deployment.parameters, **parameters})
    for line in set_schedules(name, active=active, parameters=parameters):
        console.print(line, markup=False)


def _stop_on_signals(react: Callable[[], None]) -> None:
    def handle(_number: int, _frame: FrameType | None) -> None:
        react()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handle)


def _once(name: str, texts: list[str], port: int | None) -> int:
    from flows.server.server import answers, check_access, is_loopback

    api_url = prepare(port)
    from flows.server.deployments import flow_of
    from flows.server.once import check_parameters, deployment_named, parse_parameters, report_of, run_once

    deployment = deployment_named(name)
    flow = flow_of(deployment)
    parameters = check_parameters(flow, {**deployment.parameters, **parse_parameters(texts)})
    if not answers(api_url) and is_loopback(api_url):
        return _once_with_a_server(name, texts, port)
    check_access(api_url, auth())
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
    with ExitStack() as stack:
        with _telling(_STARTING.format(loopback_url(own_port))):
            server = stack.enter_context(server_at(loopback_url(own_port), home=home()))
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
    from flows.server.server import answers, check_access, lets_others_in, server_at

    asked_to_stop = threading.Event()
    ended = threading.Event()

    def react() -> None:
        asked_to_stop.set()
        ended.set()

    _stop_on_signals(react)
    api_url = prepare(port)
    from prefect.client.orchestration import get_client
    from prefect.settings import get_current_settings

    from flows.init import make_automations
    from flows.server.serving import serve_deployments, serving_alone

    with ExitStack() as stack:
        is_there = answers(api_url)
        what = f"Using Prefect's server at {api_url} ..." if is_there else _STARTING.format(api_url)
        with _telling(what):
            server = stack.enter_context(server_at(api_url, home=home()))
            check_access(api_url, auth())
        if asked_to_stop.is_set():
            return
        stack.enter_context(serving_alone(api_url, home()))
        with _telling(f"Looking after the {len(DEPLOYMENTS)} deployments ..."):
            with get_client(sync_client=True) as client:
                make_automations(client)
            stack.enter_context(serve_deployments(ended.set))
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
    sys.exit(app())
