"""Workers: the commands at the top of ``prefect.yaml``, typed literally against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_schemas.records import RowState
from data_schemas.stores.open import open_store
from flows.catalogue import DEPLOYMENTS
from tests.flows.terminal import Terminal
from tests.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(2400)]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory, repository: Path, prefect_database: Path) -> Iterator[Terminal]:
    """A terminal beside a server that has the work pool and every deployment of ``prefect.yaml``."""
    terminal = Terminal(tmp_path_factory.mktemp("workers") / "home", repository, database=prefect_database)
    # What the page asks for its data, and what the commands of this terminal use.
    terminal.environment["PREFECT_API_URL"] = terminal.api_url
    server = f"prefect server start --host 127.0.0.1 --port {terminal.port}"
    with terminal.running(server, until="Check out the dashboard"):
        wait_until(lambda: terminal.call("/health") is True, 120, "the start of the server")
        terminal.type("prefect work-pool create splatspace --type process")
        printed = terminal.type("prefect deploy --all")
        assert all(deployment.full_name in printed for deployment in DEPLOYMENTS)
        yield terminal


def test_a_worker_runs_a_deployment_from_end_to_end(deployed: Terminal, tmp_path: Path) -> None:
    out = tmp_path / "demo.zarr"
    options = f"-p out={out} -p limit=64 -p gaussians=8 -p steps=2 -p workers=1"
    assert "Created flow run" in deployed.type(f"prefect deployment run encode/encode-demo {options}")
    printed = deployed.type("prefect worker start --pool splatspace --run-once")
    assert "64 fitted" in printed
    runs = deployed.runs(state={"type": {"any_": ["COMPLETED"]}})
    assert [run["parameters"]["out"] for run in runs] == [str(out)], printed
    with open_store(out) as store:
        assert len(store) == 64
        assert (store.read(["state"])["state"] == RowState.DONE).all()
    assert "psnr-demo" in {artifact["key"] for artifact in deployed.call("/artifacts/filter", {})}
    assert (tmp_path / "demo-report" / "report.html").is_file()


def test_a_wrong_parameter_is_refused_when_the_run_is_asked_for(deployed: Terminal) -> None:
    printed = deployed.type("prefect deployment run encode/encode-demo -p colours=loud", code=1)
    assert "colours" in printed
    assert "bounded" in printed


def test_the_scheduler_plans_runs(deployed: Terminal) -> None:
    """Versions of Prefect's own dependencies have broken exactly this, and nothing else."""
    deployed.type("prefect deployment schedule create encode/encode-cats --interval 86400")
    wait_until(
        lambda: any(run["auto_scheduled"] for run in deployed.runs(state={"name": {"any_": ["Scheduled"]}})),
        120,
        "a scheduled run",
    )


def test_deployments_of_workers_are_not_served_too(deployed: Terminal) -> None:
    printed = deployed.type("python -m flows", code=1)
    assert "belong to workers of the pool 'splatspace'" in printed
    assert "prefect worker start --pool splatspace" in printed
