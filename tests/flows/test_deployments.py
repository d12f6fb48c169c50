"""Every deployment without a server: its flow loads, its parameters and schedules are valid, by both ways to serve."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule
from prefect.exceptions import ParameterTypeError
from prefect.server.schemas.schedules import SCHEDULE_TYPES
from pydantic import TypeAdapter

from flows.ablate import ablate
from flows.catalogue import BY_NAME, CONCURRENCY, DEPLOYMENTS, Deployment
from flows.encode import encode
from flows.evaluate import evaluate
from flows.report import report
from flows.server.serving import flow_of, planned_schedule, runner_deployment
from flows.train import train

each = pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment.name)


@each
def test_its_flow_loads_and_takes_its_parameters(deployment: Deployment) -> None:
    flow = flow_of(deployment)
    assert flow.name == deployment.flow
    flow.validate_parameters(dict(deployment.parameters))


@each
def test_it_is_served_with_all_that_the_catalogue_says(deployment: Deployment) -> None:
    made = runner_deployment(deployment)
    assert made.full_name == deployment.full_name
    assert made.parameters == dict(deployment.parameters)
    assert made.entrypoint == deployment.entrypoint
    assert (made.description, made.tags) == (deployment.description, deployment.tags)
    assert made.concurrency_limit == CONCURRENCY["limit"]
    assert made.concurrency_options is not None
    assert made.concurrency_options.collision_strategy == CONCURRENCY["collision_strategy"]
    assert made.work_pool_name is None
    assert made.paused is False
    assert [schedule.slug for schedule in made.schedules or []] == [plan.slug for plan in deployment.schedules]
    assert [schedule.active for schedule in made.schedules or []] == [False] * len(deployment.schedules)


@pytest.mark.parametrize("name", ["encode-folder", "encode-cats"])
def test_a_schedule_gives_times(name: str) -> None:
    (planned,) = BY_NAME[name].schedules
    sent = planned_schedule(planned).schedule.model_dump(mode="json")
    schedule = TypeAdapter(SCHEDULE_TYPES).validate_python(sent)  # as the server understands it
    first, second = asyncio.run(schedule.get_dates(2, start=datetime(2026, 1, 1, 12, tzinfo=UTC)))
    assert (second - first).total_seconds() == (planned.interval or 24 * 3600)


def _on_the_server(*schedules: DeploymentSchedule) -> DeploymentResponse:
    return DeploymentResponse(name="encode-cats", flow_id=uuid4(), labels={}, schedules=list(schedules))


def test_what_people_have_changed_about_schedules_is_kept() -> None:
    resumed = DeploymentSchedule(schedule=CronSchedule(cron="30 5 * * *"), active=True, slug="nightly")
    own = DeploymentSchedule(schedule=CronSchedule(cron="0 12 * * 1"), active=True, parameters={"limit": 9})
    made = runner_deployment(BY_NAME["encode-cats"], _on_the_server(resumed, own))
    assert made.schedules is not None
    first, second = made.schedules
    assert (first.slug, first.active) == ("nightly", True)
    assert isinstance(first.schedule, CronSchedule)
    assert first.schedule.cron == "30 5 * * *"
    assert (second.active, second.parameters) == (True, {"limit": 9})
    assert second.slug, "Prefect refuses schedules without a slug"


def test_a_schedule_that_is_missing_on_the_server_is_added() -> None:
    made = runner_deployment(BY_NAME["encode-cats"], _on_the_server())
    assert [schedule.slug for schedule in made.schedules or []] == ["nightly"]


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
