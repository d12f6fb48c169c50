"""``prefect.yaml`` without a server: every entry loads, and its parameters and schedules are valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.exceptions import ParameterTypeError
from prefect.flows import load_flow_from_entrypoint

from flows.encode import encode
from pipeline.presets import PRESETS

CONFIGURATION = yaml.safe_load((Path(__file__).parents[2] / "prefect.yaml").read_text())
DEPLOYMENTS: list[dict[str, Any]] = CONFIGURATION["deployments"]


def _loaded(deployment: dict[str, Any]) -> Flow[..., Any]:
    return load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch, repository: Path) -> None:
    monkeypatch.chdir(repository)


def test_the_promised_deployments_are_there() -> None:
    names = [deployment["name"] for deployment in DEPLOYMENTS]
    assert len(set(names)) == len(names)
    assert {"encode-mnist", "encode-sprites", "encode-cifar10", "encode-cats"} <= set(names)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def test_a_deployment_loads_and_its_parameters_are_valid(deployment: dict[str, Any]) -> None:
    loaded = _loaded(deployment)
    assert loaded.name == "encode"
    verb, _, dataset = deployment["name"].partition("-")
    assert (verb, dataset) == (loaded.name, deployment["parameters"]["dataset"])
    assert dataset in PRESETS
    loaded.validate_parameters(deployment["parameters"])
    assert deployment["work_pool"]["name"] == "splatspace"
    for schedule in deployment["schedules"]:
        assert schedule["slug"], "serve() and re-deploying need a slug for each schedule"


def test_stores_of_different_deployments_do_not_collide() -> None:
    stores = [deployment["parameters"]["out"] for deployment in DEPLOYMENTS]
    assert len(set(stores)) == len(stores)


@pytest.mark.parametrize(
    "wrong", [{"limit": 0}, {"steps": -1}, {"colours": "loud"}, {"engine": "magic"}, {"target_psnr": 1000}, {"nope": 1}]
)
def test_wrong_parameters_are_refused_before_the_run(wrong: dict[str, Any]) -> None:
    with pytest.raises((ParameterTypeError, TypeError)):
        encode.validate_parameters({"dataset": "demo", "out": "demo.zarr", **wrong})


def test_every_parameter_is_described_and_flat() -> None:
    properties = encode.parameters.properties
    for name, schema in properties.items():
        assert schema.get("description"), f"{name} has no description"
        assert schema.get("type") not in ("object", "array"), f"{name} cannot be changed alone with -p"
