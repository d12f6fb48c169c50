"""Which server of Prefect ``python -m flows`` uses, and the settings with which Prefect is imported there.

Prefect reads its settings when it is imported: so it is imported inside of these functions.
"""

from __future__ import annotations

import os
from pathlib import Path

from data_schemas.errors import JobError
from flows.server.server import DEFAULT_PORT, ServerError, answers, check_access, is_loopback, loopback_url

ENVIRONMENT = {
    # Read when Prefect is imported, here and in every process of a run.
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_LOGGING_EXTRA_LOGGERS": "splatspace",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "DO_NOT_TRACK": "1",
}
"""What the user has not set himself."""


def prepare(port: int | None, *, running: bool = False) -> str:
    """Imports Prefect with the settings that it needs here.

    Args:
        port: of a server on this machine; None for the one that is set.
        running: where none is set, take the one that `python -m flows` has started.

    Returns:
        address of the API.

    Raises:
        JobError: ``port`` together with the address of another machine.
    """
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    secret = os.environ.get("PREFECT_SERVER_API_AUTH_STRING")
    if secret:
        os.environ.setdefault("PREFECT_API_AUTH_STRING", secret)
    from prefect.context import refresh_global_settings_context
    from prefect.settings import get_current_settings

    from flows.server.short_names import read_recorded_server

    api_url = get_current_settings().api.url
    if port is not None:
        if api_url and not is_loopback(api_url):
            raise JobError(
                f"--port {port} while PREFECT_API_URL is {api_url}",
                allowed="--port, for a server on this machine, or PREFECT_API_URL",
                next_step=f"leave out --port, or set PREFECT_API_URL={loopback_url(port)}",
            )
        api_url = loopback_url(port)
    if api_url is None and running:
        api_url = read_recorded_server(get_current_settings().home)
    api_url = (api_url or loopback_url(DEFAULT_PORT)).rstrip("/")
    # In the environment too: the processes of the runs, and a server, find it there.
    os.environ["PREFECT_API_URL"] = api_url
    refresh_global_settings_context()
    from flows.logs import follow_prefect

    follow_prefect()
    return api_url


def auth() -> str | None:
    """``NAME:PASSWORD`` for the server, or None."""
    from prefect.settings import get_current_settings

    secret = get_current_settings().api.auth_string
    return secret.get_secret_value() if secret else None


def home() -> Path:
    """Prefect's home folder."""
    from prefect.settings import get_current_settings

    return get_current_settings().home


def require_server(port: int | None) -> None:
    """Prepares to use the server that is running.

    Raises:
        ServerError: none answers, or one that wants another password.
    """
    api_url = prepare(port, running=True)
    if not answers(api_url):
        raise ServerError(f"No server answers at {api_url}", next_step="start it: python -m flows")
    check_access(api_url, auth())
