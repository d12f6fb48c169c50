"""The deployments of the catalogue on a server: the one way in which they are made and brought up to date.

``python -m flows`` serves them from this process, ``python -m flows.init`` hands them to the workers of a pool; what is
sent is the same but for the pool. A deployment that is there already as it should be is left alone. What people have
changed about schedules is kept, and so are the schedules themselves with their ids: only missing ones are added.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, VersionInfo
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import construct_schedule
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.runner.storage import LocalStorage
from prefect.types.entrypoint import EntrypointType

from data_schemas.errors import SplatSpaceError
from flows.catalogue import CONCURRENCY, DEPLOYMENTS, Deployment, Schedule


def flow_of(deployment: Deployment) -> Flow[..., Any]:
    """The flow of a deployment."""
    return load_flow_from_entrypoint(deployment.entrypoint, use_placeholder_flow=False)


def found_deployment(client: SyncPrefectClient, full_name: str) -> DeploymentResponse | None:
    """The deployment of that name on the server, or None."""
    try:
        return client.read_deployment_by_name(full_name)
    except ObjectNotFound:
        return None


def planned_schedule(schedule: Schedule) -> DeploymentScheduleCreate:
    """A schedule of the catalogue in Prefect's form."""
    return DeploymentScheduleCreate(
        slug=schedule.slug,
        active=schedule.active,
        schedule=construct_schedule(cron=schedule.cron, interval=schedule.interval, timezone=schedule.timezone),
    )


def missing_schedules(deployment: Deployment, found: DeploymentResponse | None) -> list[DeploymentScheduleCreate]:
    """Schedules of the catalogue whose slugs the server does not have.

    Args:
        deployment: of the catalogue.
        found: the same on the server; None where there is none.
    """
    known = {schedule.slug for schedule in found.schedules} if found else set()
    return [planned_schedule(schedule) for schedule in deployment.schedules if schedule.slug not in known]


def planned_deployment(
    deployment: Deployment, *, pool: str | None = None, directory: Path | None = None
) -> RunnerDeployment:
    """A deployment of the catalogue in Prefect's form, without its schedules.

    Args:
        deployment: of the catalogue.
        pool: whose workers run it; None where this process serves it.
        directory: the folder in which workers run it; relative paths in its parameters are relative to it.

    Returns:
        what is sent. Its version follows from all that is in it, the form of the flow's parameters included.
    """
    flow = flow_of(deployment)
    made = flow.to_deployment(
        name=deployment.name,
        description=deployment.description,
        tags=deployment.tags,
        parameters=dict(deployment.parameters),
        paused=False,
        concurrency_limit=ConcurrencyLimitConfig.model_validate(CONCURRENCY),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(made, RunnerDeployment)  # to_deployment is a coroutine in an event loop only
    made.work_pool_name = pool
    if directory is not None:
        made.storage = LocalStorage(str(directory))
    content = json.dumps(
        [made.model_dump(mode="json", exclude={"storage", "version", "schedules"}), str(directory), CONCURRENCY,
         flow.parameters.model_dump()],
        sort_keys=True, default=str,
    )  # fmt: skip
    digest = hashlib.blake2b(content.encode(), digest_size=6).hexdigest()
    made.version = f"{importlib.metadata.version('splatspace')}+{digest}"
    # Prefect replaces the schedules of a deployment that is there by those that are sent, under new ids.
    made.schedules = None
    made.model_fields_set.discard("schedules")
    return made


@dataclass(frozen=True)
class Deployed:
    """The deployments of the catalogue on a server.

    Attributes:
        ids: of all of them, by full name.
        changed: full names of those that were made or changed.
    """

    ids: dict[str, UUID]
    changed: list[str]


def bring_up_to_date(client: SyncPrefectClient, *, pool: str | None = None, directory: Path | None = None) -> Deployed:
    """Makes the deployments that are missing, and brings those of another version up to date.

    Args:
        client: of the server.
        pool: see ``planned_deployment``.
        directory: see ``planned_deployment``.

    Raises:
        SplatSpaceError: the server refuses one; those before it are made.
    """
    ids: dict[str, UUID] = {}
    changed: list[str] = []
    for deployment in DEPLOYMENTS:
        found = found_deployment(client, deployment.full_name)
        planned = planned_deployment(deployment, pool=pool, directory=directory)
        missing = missing_schedules(deployment, found)
        if found is not None and (found.version, found.work_pool_name) == (planned.version, pool):
            identifier = found.id
        else:
            if found is not None and found.work_pool_name is not None:
                planned.paused = found.paused  # by people; one that was served was paused when serving stopped
            identifier = _applied(planned)
            changed.append(deployment.full_name)
        if missing:
            client.create_deployment_schedules(identifier, missing)
        ids[deployment.full_name] = identifier
    return Deployed(ids, changed)


def _applied(planned: RunnerDeployment) -> UUID:
    # Named, so that Prefect does not ask git and others for one.
    version = VersionInfo(type="prefect:simple", version=planned.version or "")
    try:
        identifier = planned.apply(version_info=version)
    except (DeploymentApplyError, PrefectHTTPStatusError) as error:
        raise SplatSpaceError(
            f"The server refuses the deployment {planned.full_name}: {error}",
            next_step="fix what it names and run the same command again: what is done is kept",
        ) from error
    assert isinstance(identifier, UUID)  # a coroutine in an event loop only
    return identifier
