"""``python -m flows.init``: prepares a Prefect server for workers, once or as often as one likes.

Waits for the server, makes the work pool, the deployments of the catalogue and the automations in
``flows/automations``, and says what it did. A second run finds everything as it should be and changes nothing, so a
container may run it at every start. What people have changed on the page is theirs: a paused or resumed schedule, a
schedule of their own, a paused deployment, an automation that was switched off.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import logging
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import yaml
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings
from prefect.utilities.processutils import get_sys_executable

from data_schemas.errors import SplatSpaceError
from flows.catalogue import BY_NAME, WORK_POOL, prefect_yaml
from flows.server.server import ServerError, answers, check_access
from flows.server.serving import flow_of, planned_schedule

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


def configuration(directory: Path, pool: str) -> dict[str, Any]:
    """What ``prefect deploy`` is given: the catalogue, for flows that are installed and not in a checkout.

    Args:
        directory: the folder in which flows run; relative paths in their parameters are relative to it.
        pool: the work pool.

    Returns:
        the contents of a ``prefect.yaml``. Every deployment has a version that follows from all that is in it, the
        form of its flow's parameters included.
    """
    file: dict[str, Any] = yaml.safe_load(prefect_yaml())
    file["build"] = None
    file["pull"] = [{"prefect.deployments.steps.set_working_directory": {"directory": str(directory)}}]
    for deployment in file["deployments"]:
        deployment["work_pool"]["name"] = pool
        form = flow_of(BY_NAME[deployment["name"]]).parameters.model_dump()
        content = json.dumps([deployment, file["pull"], form], sort_keys=True, default=str)
        digest = hashlib.blake2b(content.encode(), digest_size=6).hexdigest()
        deployment["version"] = f"{importlib.metadata.version('splatspace')}+{digest}"
    return file


def _read(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def deploy(client: SyncPrefectClient, file: dict[str, Any]) -> list[str]:
    """Makes the deployments that are missing and brings those of another version up to date.

    Args:
        client: of the server.
        file: what ``configuration`` returned.

    Returns:
        full names of the deployments that were made or changed.

    Raises:
        SplatSpaceError: ``prefect deploy`` failed, with what it printed.
    """
    stale = [
        deployment
        for deployment in file["deployments"]
        if (before := _read(client, BY_NAME[deployment["name"]].full_name)) is None
        or (before.version, before.work_pool_name) != (deployment["version"], deployment["work_pool"]["name"])
    ]
    if not stale:
        return []
    # Without schedules: `prefect deploy` would undo what people paused or resumed, and drop schedules of their own.
    plain = {**file, "deployments": [{**deployment, "schedules": []} for deployment in stale]}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "prefect.yaml")
        path.write_text(yaml.safe_dump(plain, sort_keys=False))
        finished = subprocess.run(
            [get_sys_executable(), "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
    if finished.returncode:
        raise SplatSpaceError(
            f"`prefect deploy` failed with exit code {finished.returncode}: {finished.stdout.strip()[-2000:]}",
            next_step="mend what it names and run `python -m flows.init` again: what is done is kept",
        )
    for deployment in stale:
        _add_schedules(client, deployment["name"])
    return [BY_NAME[deployment["name"]].full_name for deployment in stale]


def _add_schedules(client: SyncPrefectClient, name: str) -> None:
    """Adds the schedules whose slugs the server does not have yet."""
    stored = client.read_deployment_by_name(BY_NAME[name].full_name)
    known = {schedule.slug for schedule in stored.schedules}
    missing = [planned_schedule(schedule) for schedule in BY_NAME[name].schedules if schedule.slug not in known]
    if missing:
        client.create_deployment_schedules(stored.id, missing)


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
    file = configuration(directory, pool)
    with get_client(sync_client=True) as client:
        made = make_work_pool(client, pool)
        logger.info("work pool %s: %s", pool, "made" if made else "is there")
        deployed = deploy(client, file)
        logger.info("deployments: %s", ", ".join(deployed) or f"all {len(file['deployments'])} are up to date")
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
