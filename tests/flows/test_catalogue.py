"""The catalogue of deployments: what it promises, and that ``prefect.yaml`` says the same."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from flows.catalogue import BY_NAME, DEPLOYMENTS, GENERATED, PATCH_HEADS, prefect_yaml
from models.patches.model import HEADS

SETS = ("mnist", "sprites", "cifar10", "cats", "demo", "folder")


def test_the_promised_deployments_are_there_once() -> None:
    names = [deployment.name for deployment in DEPLOYMENTS]
    made = [f"{flow}-{name}" for flow in ("encode", "report") for name in SETS]
    runs = [*(f"splats-{name}" for name in GENERATED), *(f"cats-{head}" for head in HEADS)]
    learned = [f"{flow}-{run}" for flow in ("train", "evaluate") for run in runs]
    assert names == made + learned + [f"ablate-{name}" for name in GENERATED]
    assert list(BY_NAME) == names
    assert BY_NAME["encode-sprites"].full_name == "encode/encode-sprites"
    assert BY_NAME["report-cats"].tags == ["report", "cats"]
    assert BY_NAME["train-splats-mnist"].full_name == "train/train-splats-mnist"
    assert BY_NAME["evaluate-splats-cifar10"].tags == ["evaluate", "splats-cifar10"]


def test_prefect_yaml_is_what_the_catalogue_writes(repository: Path) -> None:
    written = (repository / "prefect.yaml").read_text(encoding="utf-8")
    assert written == prefect_yaml(), "type: python -m flows --write-prefect-yaml"


def test_prefect_yaml_holds_every_deployment_with_all_its_parts() -> None:
    entries = {entry["name"]: entry for entry in yaml.safe_load(prefect_yaml())["deployments"]}
    assert set(entries) == set(BY_NAME)
    for name, deployment in BY_NAME.items():
        entry = entries[name]
        assert entry["description"] == deployment.description
        assert entry["parameters"] == dict(deployment.parameters)
        assert entry["entrypoint"] == deployment.entrypoint
        assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert [schedule["slug"] for schedule in entry["schedules"]] == [plan.slug for plan in deployment.schedules]


def test_schedules_are_told_apart_and_begin_paused() -> None:
    for deployment in DEPLOYMENTS:
        slugs = [schedule.slug for schedule in deployment.schedules]
        assert len(set(slugs)) == len(slugs)
        assert not any(schedule.active for schedule in deployment.schedules)
        for schedule in deployment.schedules:
            assert (schedule.cron is None) != (schedule.interval is None)
    assert BY_NAME["encode-folder"].schedules[0].interval == 600
    for name in ("mnist", "sprites", "cifar10", "cats"):
        assert BY_NAME[f"encode-{name}"].schedules[0].slug == "nightly"


def test_what_runs_by_itself_makes_a_new_store_where_a_setting_has_changed() -> None:
    scheduled = [deployment for deployment in DEPLOYMENTS if deployment.schedules]
    assert len(scheduled) == 5
    assert all(deployment.parameters["versions"] is True for deployment in scheduled)


def test_each_deployment_has_a_store_of_its_own_and_its_report_reads_that_one() -> None:
    stores = [deployment.parameters["out"] for deployment in DEPLOYMENTS if deployment.flow == "encode"]
    assert len(set(stores)) == len(stores)
    for name in SETS:
        assert BY_NAME[f"report-{name}"].parameters["store"] == BY_NAME[f"encode-{name}"].parameters["out"]


def test_a_generator_learns_from_the_store_of_its_set_and_is_evaluated_where_it_lies() -> None:
    for name in GENERATED:
        store = BY_NAME[f"encode-{name}"].parameters["out"]
        training, evaluation = BY_NAME[f"train-splats-{name}"], BY_NAME[f"evaluate-splats-{name}"]
        assert training.parameters["store"] == store
        assert evaluation.parameters == {"run": training.parameters["out"], "store": store}
        assert BY_NAME[f"ablate-{name}"].parameters["store"] == store
    assert PATCH_HEADS == HEADS
    for head in HEADS:
        training, evaluation = BY_NAME[f"train-cats-{head}"], BY_NAME[f"evaluate-cats-{head}"]
        assert training.parameters["store"] == BY_NAME["encode-cats"].parameters["out"]
        assert evaluation.parameters == {"run": training.parameters["out"], "store": training.parameters["store"]}


@pytest.mark.parametrize("module", ["torch", "numba", "numpy", "prefect", "zarr"])
def test_it_is_cheap_to_import(module: str) -> None:
    # Every process that imports Prefect imports it, by way of the plugin.
    code = f"import sys, flows.catalogue, flows.server.server; sys.exit({module!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
