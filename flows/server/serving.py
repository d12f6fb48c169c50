"""The deployments of the catalogue on a server: made, served until somebody says stop, paused and resumed."""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID

from filelock import FileLock, Timeout
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowRunFilter,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments.runner import RunnerDeployment
from prefect.runner import Runner

from data_schemas.errors import SplatSpaceError
from flows.catalogue import BY_NAME, DEPLOYMENTS
from flows.logs import WaitingOnce
from flows.server.deployments import bring_up_to_date, found_deployment

logger = logging.getLogger("splatspace.flows.serving")

HEARTBEAT_SECONDS = 30
"""Between two signs of life of a run; ``automations/zombie.yaml`` marks a run as crashed after three without one."""

SECONDS_BETWEEN_QUERIES = 2.0
"""Prefect's ten keep somebody who has typed a command waiting; a question costs the server some milliseconds."""

SECONDS_TO_STOP = 45.0
"""A run that is told to stop ends within some five seconds. One that does not is killed by Prefect after thirty, and
recorded as cancelled; what is left after these seconds is killed without a record."""


def refuse_those_of_workers(client: SyncPrefectClient) -> None:
    """Deployments belong to workers or to ``python -m flows``, never to both.

    Raises:
        SplatSpaceError: some were made for a work pool.
    """
    owned = {
        deployment.full_name: found.work_pool_name
        for deployment in DEPLOYMENTS
        if (found := found_deployment(client, deployment.full_name)) is not None and found.work_pool_name
    }
    if owned:
        pool = next(iter(owned.values()))
        raise SplatSpaceError(
            f"{len(owned)} deployments of this server belong to workers of the pool {pool!r}: {', '.join(owned)}",
            allowed="workers or `python -m flows`, not both",
            next_step=f"prefect worker start --pool {pool}; or, to serve them here, prefect deployment delete NAME for "
            "each of them; or another server: python -m flows --port 4201 with another PREFECT_HOME",
        )


def forget_missed(client: SyncPrefectClient, found: DeploymentResponse) -> int:
    """Deletes runs that a schedule has planned and that nobody was there to do; the newest of them is kept.

    Ten nights without power are one night's work: the store knows what is new.

    Returns:
        how many were deleted.
    """
    a_minute_ago = datetime.now(UTC) - timedelta(minutes=1)
    missed = client.read_flow_runs(
        deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[found.id])),
        flow_run_filter=FlowRunFilter(
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            next_scheduled_start_time=FlowRunFilterNextScheduledStartTime.model_validate({"before_": a_minute_ago}),
        ),
    )
    planned = sorted(
        (run for run in missed if run.auto_scheduled),
        key=lambda run: run.next_scheduled_start_time or a_minute_ago,
    )
    for run in planned[:-1]:
        client.delete_flow_run(run.id)
    return len(planned[:-1])


def set_schedules(name: str, *, active: bool, parameters: Mapping[str, Any] | None = None) -> list[str]:
    """Resumes or pauses all schedules of a deployment.

    Args:
        name: short or full.
        active: whether they run from now on.
        parameters: of the runs that they start, checked already; those not given stay as they are.

    Returns:
        what was changed, for people.

    Raises:
        SplatSpaceError: no such deployment on the server, or one without a schedule.
    """
    full_name = BY_NAME[name].full_name if name in BY_NAME else name
    with get_client(sync_client=True) as client:
        found = found_deployment(client, full_name) if full_name.count("/") == 1 else None
        if found is None:
            raise SplatSpaceError(
                f"The server has no deployment {name!r}",
                allowed=", ".join(BY_NAME),
                next_step="start `python -m flows` in another terminal, or see `prefect deployment ls`",
            )
        if not found.schedules:
            raise SplatSpaceError(
                f"{full_name} has no schedule",
                next_step=f'make one: prefect deployment schedule create {full_name} --cron "0 3 * * *"',
            )
        for schedule in found.schedules:
            changed = {**schedule.parameters, **parameters} if parameters else None
            client.update_deployment_schedule(found.id, schedule.id, active=active, parameters=changed)
    word = "resumed" if active else "paused"
    return [f"{full_name}: schedule {schedule.slug or schedule.id} {word}" for schedule in found.schedules]


@contextmanager
def serving_alone(api_url: str, home: Path) -> Iterator[None]:
    """Makes sure that no other process of this user serves the same server from this machine.

    Raises:
        SplatSpaceError: one does.
    """
    home.mkdir(parents=True, exist_ok=True)
    name = re.sub(r"[^A-Za-z0-9]+", "-", api_url.partition("://")[2])
    lock = FileLock(home / f"splatspace-serving-{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SplatSpaceError(
            f"Another `python -m flows` serves the deployments of {api_url} already",
            next_step="stop it, or use it: prefect deployment run encode/encode-demo --watch",
        ) from None
    with lock:
        yield


@dataclass(frozen=True)
class _Applied:
    """All that ``Runner.add_deployment`` asks of a deployment, of one that is on the server already."""

    identifier: UUID
    name: str
    storage: None = None

    async def aapply(self) -> UUID:
        return self.identifier


@contextmanager
def serve_deployments(ended: Callable[[], None]) -> Iterator[None]:
    """Makes the deployments and runs what is asked of them, one run at a time, until the block ends.

    At the end runs are cancelled (what they have encoded is kept) and the deployments are paused, so that nothing is
    planned while nobody is there.

    Args:
        ended: called where serving ends by itself, that is, by an error.

    Raises:
        SplatSpaceError: the deployments belong to workers.
        Exception: what ended serving by itself, at the end of the block.
    """
    # One run at a time: the engine uses every core.
    runner = Runner(
        name="splatspace", limit=1, pause_on_shutdown=True, heartbeat_seconds=HEARTBEAT_SECONDS,
        query_seconds=SECONDS_BETWEEN_QUERIES,
    )  # fmt: skip
    with get_client(sync_client=True) as client:
        refuse_those_of_workers(client)
        deployed = bring_up_to_date(client)
        for full_name, identifier in deployed.ids.items():
            found = client.read_deployment(identifier)
            if deleted := forget_missed(client, found):
                logger.info("%s: %d missed runs are left out", full_name, deleted)
            if found.paused:
                client.resume_deployment(identifier)
            runner.add_deployment(cast(RunnerDeployment, _Applied(identifier, full_name)))
    if deployed.changed:
        logger.info("%d of %d deployments made or changed", len(deployed.changed), len(deployed.ids))

    loop = asyncio.new_event_loop()
    task = loop.create_task(runner.start())
    failures: list[BaseException] = []

    def serve() -> None:
        # In a thread of its own Prefect leaves the signals alone, and they stay with the main thread.
        asyncio.set_event_loop(loop)
        # Runs inherit this: Ctrl-C reaches every process of a terminal, and a run shall end by being cancelled.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        try:
            loop.run_until_complete(task)
        except asyncio.CancelledError:
            pass  # asked for below
        except BaseException as error:  # whatever it is, the main thread raises it
            failures.append(error)
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            ended()

    thread = threading.Thread(target=serve, name="runner")
    once = WaitingOnce(5 * SECONDS_BETWEEN_QUERIES)
    logging.getLogger("prefect.runner").addFilter(once)
    thread.start()
    try:
        yield
    finally:
        logging.getLogger("prefect.runner").removeFilter(once)
        if thread.is_alive() and runner.started:
            stopping = asyncio.run_coroutine_threadsafe(runner.astop(), loop)
            thread.join(SECONDS_TO_STOP)
            stopping.cancel()
        if thread.is_alive():
            loop.call_soon_threadsafe(task.cancel)
            thread.join()
        loop.close()
    if failures:
        raise failures[0]
