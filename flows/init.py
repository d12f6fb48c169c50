"""``python -m flows.init``: prepares a Prefect server for workers, once or as often as one likes.

Waits for the server, makes the work pool, the deployments of the catalogue and the automations in
``flows/automations``, and says what it did. A second run finds everything as it should be and changes nothing, so a
container may run it at every start. What people have changed on the page is theirs: a paused or resumed schedule, a
schedule of their own, a paused deployment, an automation that was switched off.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from data_schemas.errors import SplatSpaceError
from flows.catalogue import WORK_POOL
from flows.server.deployments import bring_up_to_date
from flows.server.server import ServerError, answers, check_access

logger = logging.getLogger("splatspace.flows.init")

AUTOMATIONS = Path(__file__).parent / "automations"
SECONDS_TO_WAIT = 120.0
SECONDS_BETWEEN_TRIES = 1.0
_OF_THE_SERVER = {"id", "created", "updated", "owner_resource", "enabled"}
"""Fields of a stored automation that no file holds; whether it is switched on is the user's choice."""


def wait_for_server(api_url: str, seconds: float) -> None:
    """Returns as soon as the server is healthy and accepts the password of this environment.

    Args:
        api_url: address of the API, ending in ``/api``.
        seconds: how long to wait.

    Raises:
        ServerError: the server did not answer in time, wants another password, or is none of Prefect's.
    """
    end = monotonic() + seconds
    while not answers(api_url):
        if monotonic() > end:
            raise ServerError(
                f"No server of Prefect answered at {api_url} within {seconds:g} s",
                next_step="start it, or set PREFECT_API_URL to its address, which ends in /api",
            )
        sleep(SECONDS_BETWEEN_TRIES)
    secret = get_current_settings().api.auth_string
    check_access(api_url, secret.get_secret_value() if secret else None)


def make_work_pool(client: SyncPrefectClient, name: str) -> bool:
    """Makes a pool of process workers where there is none of this name.

    Returns:
        whether it was made.
    """
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        return True
    return False


def make_automations(client: SyncPrefectClient, folder: Path = AUTOMATIONS) -> list[str]:
    """Makes the automations of a folder that are missing and brings changed ones up to date; they are told by name.

    Args:
        client: of the server.
        folder: of YAML files, one automation each, in the form that ``prefect automation create`` takes.

    Returns:
        names of those that were made or changed.
    """
    changed: list[str] = []
    for path in sorted(folder.glob("*.yaml")):
        wanted = AutomationCore.model_validate(yaml.safe_load(path.read_text()))
        found = client.read_automations_by_name(wanted.name)
        if not found:
            client.create_automation(wanted)
        elif found[0].model_dump(exclude=_OF_THE_SERVER) != wanted.model_dump(exclude=_OF_THE_SERVER):
            client.update_automation(found[0].id, wanted.model_copy(update={"enabled": found[0].enabled}))
        else:
            continue
        changed.append(wanted.name)
    return changed


def prepare(api_url: str, *, directory: Path, pool: str = WORK_POOL, seconds: float = SECONDS_TO_WAIT) -> None:
    """Everything that ``python -m flows.init`` does; what was done is logged, line by line.

    Args:
        api_url: address of the API, ending in ``/api``.
        directory: the folder in which flows run.
        pool: the work pool.
        seconds: how long to wait for the server.

    Raises:
        SplatSpaceError: no server, a wrong password, or a deployment that cannot be made.
    """
    wait_for_server(api_url, seconds)
    with get_client(sync_client=True) as client:
        made = make_work_pool(client, pool)
        logger.info("work pool %s: %s", pool, "made" if made else "is there")
        deployed = bring_up_to_date(client, pool=pool, directory=directory)
        logger.info("deployments: %s", ", ".join(deployed.changed) or f"all {len(deployed.ids)} are up to date")
        automations = make_automations(client)
        logger.info("automations: %s", ", ".join(automations) or "all are up to date")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m flows.init", description="Prepares a Prefect server for workers.")
    parser.add_argument("--pool", default=WORK_POOL, help="work pool of the workers (default: %(default)s)")
    parser.add_argument(
        "--directory", type=Path, default=Path.cwd(), help="folder in which flows run (default: the current one)"
    )
    parser.add_argument(
        "--timeout", type=float, default=SECONDS_TO_WAIT, help="seconds to wait for the server (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    logger.setLevel(logging.INFO)
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.propagate = False  # Prefect's own handler would print every line a second time
    try:
        api_url = get_current_settings().api.url
        if not api_url:
            raise SplatSpaceError(
                "PREFECT_API_URL is not set", next_step="set it to the server's address, http://HOST:4200/api"
            )
        prepare(api_url, directory=options.directory.absolute(), pool=options.pool, seconds=options.timeout)
    except SplatSpaceError as error:
        logger.error("%s", error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
