"""A plugin of Prefect: its commands take the short names of deployments, and find the server that is running here.

    prefect deployment run encode-sprites --watch
    prefect deployment resume encode-sprites

Prefect calls ``setup_environment`` when it is imported, before its command line reads ``sys.argv``: there
``encode-sprites`` becomes ``encode/encode-sprites``. Commands for schedules want the identifier of a schedule, which
nobody knows by heart; without one they go to ``python -m flows``. Anything else stays as it was typed.

It is called in every process that imports Prefect, where ``[tool.prefect.plugins]`` or ``PREFECT_PLUGINS_ENABLED``
allows it. So it imports little and raises nothing.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from prefect.plugins import register_hook

from flows.catalogue import BY_NAME
from flows.server.server import RECORD

NAMING = ("run", "inspect", "delete")
"""Commands of ``prefect deployment`` whose argument is a name."""

NAMING_SCHEDULE = ("create", "ls", "delete", "clear", "pause", "resume")
"""Commands of ``prefect deployment schedule`` whose first argument is a name."""

SWITCHES = ("pause", "resume")
"""Prefect knows them for one schedule of a deployment; here they are for all of its schedules too."""

FLAGS = (
    "--watch", "--all", "--active", "--no-active", "--replace", "--no-replace", "--accept-yes", "--no-accept-yes", "-y",
    "--day_or", "--no-day_or", "--prompt", "--no-prompt", "--help", "-h",
)  # fmt: skip
"""Options of these commands that no value follows."""


class UnknownName(Exception):
    """A short name that is not in the catalogue; the message lists those that are."""


def expand(arguments: Sequence[str]) -> list[str]:
    """The command line with full names.

    Args:
        arguments: ``sys.argv``.

    Returns:
        the same, or the same with the full name of a deployment, or arguments for Python that begin with ``-m flows``
        where Prefect has no such command.

    Raises:
        UnknownName: the command wants a name and got one without a slash that is not in the catalogue.
    """
    unchanged = list(arguments)
    words = _words(arguments)
    # While it is imported for `python -m prefect`, Prefect finds "-m" in the place of its own name.
    if not arguments or Path(arguments[0]).name not in ("prefect", "prefect.exe", "-m") or len(words) < 3:
        return unchanged
    group, command, *rest = (arguments[place] for place in words)
    if group not in ("deployment", "deployments"):
        return unchanged
    place, switch = words[2], command in SWITCHES
    if command == "schedule" and len(rest) > 1:
        command, place = rest[0], words[3]
        if command not in NAMING_SCHEDULE:
            return unchanged
        switch = command in SWITCHES and len(rest) == 2
    elif not switch and command not in NAMING:
        return unchanged
    name = arguments[place]
    if switch:
        return ["-m", "flows", f"--{command}", name]
    if "/" in name:
        return unchanged
    if name not in BY_NAME:
        raise UnknownName(
            f"There is no deployment {name!r}. Known here: {', '.join(BY_NAME)}. Another one needs its full name, "
            "FLOW/DEPLOYMENT, as `prefect deployment ls` shows it."
        )
    return [*arguments[:place], BY_NAME[name].full_name, *arguments[place + 1 :]]


def _words(arguments: Sequence[str]) -> list[int]:
    """Places of what is neither an option nor the value of one."""
    places: list[int] = []
    value_follows = False
    for place, argument in enumerate(arguments[1:], 1):
        if value_follows:
            value_follows = False
        elif argument.startswith("-"):
            value_follows = argument not in FLAGS and "=" not in argument
        else:
            places.append(place)
    return places


def read_recorded_server(home: Path) -> str | None:
    """Address of the server that ``python -m flows`` has started and that still listens, or None."""
    try:
        api_url = str(json.loads((home / RECORD).read_text())["api_url"])
        parts = urlsplit(api_url)
        if not parts.hostname or not parts.port:
            return None
        with socket.create_connection((parts.hostname, parts.port), timeout=1):
            return api_url
    except (OSError, ValueError, KeyError, TypeError):
        return None


@register_hook
def setup_environment(*, ctx: Any) -> None:
    """Called by Prefect.

    Args:
        ctx: its ``api_url`` is the server's address, or None where the user has set none.
    """
    try:
        arguments = expand(sys.argv)
    except UnknownName as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        # Prefect catches what a plugin raises and would go on to its own traceback.
        os._exit(1)
    if ctx.api_url is None:
        from prefect.settings import get_current_settings

        api_url = read_recorded_server(get_current_settings().home)
        if api_url is not None:
            os.environ["PREFECT_API_URL"] = api_url
    if arguments == sys.argv:
        return
    if arguments[:2] == ["-m", "flows"]:
        os.execv(sys.executable, [sys.executable, *arguments])
    sys.argv[:] = arguments
