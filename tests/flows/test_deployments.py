"""Every deployment without a server: its flow loads, its parameters and schedules are valid, by both ways to serve."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.deployments.runner import RunnerDeployment
from prefect.exceptions import ObjectNotFound, ParameterTypeError
from prefect.server.schemas.schedules import SCHEDULE_TYPES
from pydantic import TypeAdapter

from flows.ablate import ablate
from flows.catalogue import BY_NAME, CONCURRENCY, DEPLOYMENTS, Deployment
from flows.encode import encode
from flows.evaluate import evaluate
from flows.report import report
from flows.server import deployments as deployments_module
from flows.server.deployments import (
    Deployed,
    bring_up_to_date,
    flow_of,
    missing_schedules,
    planned_deployment,
    planned_schedule,
)
from flows.train import train

each = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment.name)


@each
def test_its_flow_loads_and_takes_its_parameters(deployment: Deployment) -> None:
    flow = flow_of(deployment)
    assert flow.name == deployment.flow
    flow.validate_parameters(dict(deployment.parameters))


@each
def test_it_is_served_with_all_that_the_catalogue_says(deployment: Deployment) -> None:
    made = planned_deployment(deployment)
    assert made.full_name == deployment.full_name
    assert made.parameters == dict(deployment.parameters)
    assert made.entrypoint == deployment.entrypoint
    assert (made.description, made.tags) == (deployment.description, deployment.tags)
    assert made.concurrency_limit == CONCURRENCY["limit"]
    assert made.concurrency_options is not None
    assert made.concurrency_options.collision_strategy == CONCURRENCY["collision_strategy"]
    assert made.work_pool_name is None
    assert made.paused is False
    missing = missing_schedules(deployment, None)
    assert [(schedule.slug, schedule.active) for schedule in missing] == [
        (plan.slug, False) for plan in deployment.schedules
    ]


@pytest.mark.parametrize("name", ["encode-folder", "encode-cats"])
def test_a_schedule_gives_times(name: str) -> None:
    (planned,) = BY_NAME[name].schedules
    sent = planned_schedule(planned).schedule.model_dump(mode="json")
    schedule = TypeAdapter(SCHEDULE_TYPES).validate_python(sent)  # as the server understands it
    first, second = asyncio.run(schedule.get_dates(2, start=datetime(2026, 1, 1, 12, tzinfo=UTC)))
    assert (second - first).total_seconds() == (planned.interval or 24 * 3600)


class Server:
    """Keeps deployments by full name, and what was asked of it."""

    def __init__(self, *present: tuple[str, DeploymentResponse]) -> None:
        self.present = dict(present)
        self.applied: list[RunnerDeployment] = []
        self.added: dict[UUID, list[str | None]] = {}

    def read_deployment_by_name(self, name: str) -> DeploymentResponse:
        if name not in self.present:
            raise ObjectNotFound(Exception(name))
        return self.present[name]

    def create_deployment_schedules(self, identifier: UUID, schedules: list[DeploymentScheduleCreate]) -> None:
        self.added[identifier] = [schedule.slug for schedule in schedules]

    def brought_up_to_date(self, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Deployed:
        def apply(planned: RunnerDeployment, **_: Any) -> UUID:
            self.applied.append(planned)
            found = self.present.get(planned.full_name)
            return uuid4() if found is None else found.id

        monkeypatch.setattr(RunnerDeployment, "apply", apply)
        monkeypatch.setattr(deployments_module, "DEPLOYMENTS", (BY_NAME["encode-cats"], BY_NAME["encode-demo"]))
        return bring_up_to_date(cast(SyncPrefectClient, self), **options)


def _present(name: str, *schedules: DeploymentSchedule, **changes: Any) -> tuple[str, DeploymentResponse]:
    fields = {"name": name, "flow_id": uuid4(), "labels": {}, "version": planned_deployment(BY_NAME[name]).version}
    return BY_NAME[name].full_name, DeploymentResponse(**{**fields, "schedules": list(schedules), **changes})


RESUMED = DeploymentSchedule(schedule=CronSchedule(cron="30 5 * * *"), active=True, slug="nightly")
OWN = DeploymentSchedule(schedule=CronSchedule(cron="0 12 * * 1"), active=True, parameters={"limit": 9})


def test_what_is_up_to_date_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(_present("encode-cats", RESUMED, OWN), _present("encode-demo"))
    found = server.brought_up_to_date(monkeypatch)
    assert (server.applied, server.added, found.changed) == ([], {}, [])
    assert found.ids == {name: response.id for name, response in server.present.items()}


@pytest.mark.parametrize("changes", [{"version": "0.1.0+old"}, {"work_pool_name": "splatspace"}])
def test_what_has_changed_is_sent_without_schedules_so_that_they_keep_their_ids(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    server = Server(_present("encode-cats", RESUMED, OWN, **changes), _present("encode-demo"))
    found = server.brought_up_to_date(monkeypatch)
    assert found.changed == ["encode/encode-cats"]
    (sent,) = server.applied
    assert "schedules" not in sent.model_dump(exclude_unset=True)
    assert server.added == {}


def test_a_schedule_that_is_missing_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(_present("encode-cats", OWN))
    found = server.brought_up_to_date(monkeypatch)
    assert found.changed == ["encode/encode-demo"]
    assert server.added == {found.ids["encode/encode-cats"]: ["nightly"]}


def test_workers_get_the_same_with_their_pool_and_folder_and_what_people_have_paused_stays_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(
        _present("encode-cats", RESUMED, paused=True, work_pool_name="splatspace", version="0.1.0+old"),
        # Paused by `python -m flows` when it stopped, and now given to workers.
        _present("encode-demo", paused=True),
    )
    server.brought_up_to_date(monkeypatch, pool="splatspace", directory=Path("/data"))
    for sent, paused in zip(server.applied, (True, False), strict=True):
        here = planned_deployment(BY_NAME[sent.name])
        alike = {"name", "entrypoint", "parameters", "tags", "description", "concurrency_limit"}
        assert sent.model_dump(include=alike) == here.model_dump(include=alike)
        assert (sent.work_pool_name, sent.paused, here.work_pool_name) == ("splatspace", paused, None)
        assert sent.storage is not None
        step = {"prefect.deployments.steps.set_working_directory": {"directory": "/data"}}
        assert sent.storage.to_pull_step() == step
        assert sent.version != here.version


def test_a_version_follows_from_what_is_deployed() -> None:
    plan = BY_NAME["encode-cats"]
    version = planned_deployment(plan).version
    assert version == planned_deployment(plan).version
    assert version != planned_deployment(replace(plan, parameters={**plan.parameters, "limit": 5})).version
    assert version != planned_deployment(plan, pool="a").version
    assert planned_deployment(plan, pool="a").version != planned_deployment(plan, pool="b").version
    folders = [planned_deployment(plan, pool="a", directory=Path(name)).version for name in ("/a", "/b")]
    assert len(set(folders)) == 2


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"steps": -1}, {"colours": "loud"}, {"engine": "magic"}, {"target_psnr": 1000}, {"nope": 1}]
)
def test_wrong_parameters_are_refused_before_the_run(wrong: dict[str, Any]) -> None:
    with pytest.raises((ParameterTypeError, TypeError)):
        encode.validate_parameters({"dataset": "demo", "out": "demo.zarr", **wrong})


@pytest.mark.parametrize(
    ("flow", "wrong"),
    [
        (train, {"preset": "huge"}),
        (train, {"steps": 0}),
        (train, {"kind": "sounds"}),
        (train, {"learning_rate": 0}),
        (evaluate, {"sweep": "5,x"}),
        (evaluate, {"features": "magic"}),
        (evaluate, {"max_fid": 0}),
        (evaluate, {"min_recall": 2}),
        (ablate, {"seeds": 0}),
    ],
    ids=lambda value: str(getattr(value, "name", value)),
)
def test_wrong_parameters_of_a_generator_are_refused_before_the_run(flow: Any, wrong: dict[str, Any]) -> None:
    needed = {"run": "run", "store": "a.zarr"} if flow is evaluate else {"store": "a.zarr", "out": "run"}
    flow.validate_parameters(needed)
    with pytest.raises(ParameterTypeError):
        flow.validate_parameters({**needed, **wrong})


@pytest.mark.parametrize("flow", [encode, report, train, evaluate, ablate], ids=lambda flow: flow.name)
def test_every_parameter_is_described_and_flat(flow: Any) -> None:
    for name, schema in flow.parameters.properties.items():
        assert schema.get("description"), f"{name} has no description"
        assert schema.get("type") not in ("object", "array"), f"{name} cannot be changed alone with -p"
