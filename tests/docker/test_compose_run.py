"""Everything that ``docker/compose.yaml`` runs, run: PostgreSQL, server, init twice, worker, a run to its end.

No engine is needed: the services are processes on the loopback address (tests/docker/containers.py). What remains
untested is what an engine does itself: building images, networks, mounts, restarts.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_schemas.records import RowState
from data_schemas.stores.open import open_store
from flows.catalogue import BY_NAME, DEPLOYMENTS
from tests.docker.containers import House, compose
from tests.waiting import free_port, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(2400)]

PASSWORD = "pass/word@1:%"
"""With every letter that an address would stumble over."""

VARIABLES = {"POSTGRES_PASSWORD": PASSWORD, "PREFECT_AUTH": "ann:let-me-in"}


@pytest.fixture(scope="module")
def services(house: House) -> dict[str, Any]:
    """The services of the Compose file; from here on the house knows their places on this machine."""
    server, health, database = free_port(), free_port(), free_port()
    house.places |= {
        "//server:4200": f"//127.0.0.1:{server}",
        "127.0.0.1:4200": f"127.0.0.1:{server}",
        "4200": str(server),
        "0.0.0.0": "127.0.0.1",
        "127.0.0.1:8080": f"127.0.0.1:{health}",
        "8080": str(health),
        "postgres": "127.0.0.1",
        "5432": str(database),
    }
    return compose(VARIABLES)["services"]


def programs() -> Path:
    """Folder of PostgreSQL's programs, of which distributions keep the server's out of the search path."""
    candidates = [*sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which("initdb")
    candidates += [Path(found).resolve().parent] if found else []
    for folder in candidates:
        if all((folder / name).exists() for name in ("initdb", "postgres", "createdb", "pg_isready")):
            return folder
    pytest.skip("no PostgreSQL on this machine")


@dataclass
class Watched:
    """A running service.

    Attributes:
        house: where it runs.
        process: what runs.
        check: command of its health check.
        environment: of both.
    """

    house: House
    process: subprocess.Popen[bytes]
    check: Sequence[str | Path]
    environment: Mapping[str, object]

    def is_well(self) -> bool:
        """Whether the service's own health check says so."""
        assert self.process.poll() is None, "the service ended"
        return self.house.run(self.check, self.environment).returncode == 0


@contextmanager
def running(house: House, name: str, service: dict[str, Any]) -> Iterator[Watched]:
    """One of the project's services, started and well."""
    environment, check = service["environment"], service["healthcheck"]["test"][1:]
    assert house.run(check, environment).returncode == 1, "well before it runs"
    with house.started(service["entrypoint"], environment, name) as process:
        watched = Watched(house, process, check, environment)
        wait_until(watched.is_well, 240, f"the start of {name}")
        yield watched
    assert house.run(check, environment).returncode == 1, "well after it has ended"


@pytest.fixture(scope="module")
def database(house: House, services: dict[str, Any]) -> Iterator[Watched]:
    """PostgreSQL with the user, the password and the database that its image makes of the service's environment."""
    settings, binaries = services["postgres"]["environment"], programs()
    folder, secret = house.open_folder("database"), house.folder / "secret"
    secret.write_text(settings["POSTGRES_PASSWORD"])
    made = house.run(
        [binaries / "initdb", "-U", settings["POSTGRES_USER"], "-A", "scram-sha-256", "--pwfile", secret, "-N"],
        {"PGDATA": folder},
    )
    assert made.returncode == 0, made.stdout
    environment = {"PGDATA": folder, "PGPORT": "5432", "PGHOST": "127.0.0.1", "PGUSER": settings["POSTGRES_USER"]}
    command = [binaries / "postgres", "-h", "127.0.0.1", "-p", "5432", "-k", folder, "-F"]
    check = [binaries / "pg_isready", *services["postgres"]["healthcheck"]["test"][2:]]
    assert house.run(check, environment).returncode == 2
    with house.started(command, environment, "postgres") as process:
        watched = Watched(house, process, check, environment)
        wait_until(watched.is_well, 60, "the start of PostgreSQL")
        password = {"PGPASSWORD": settings["POSTGRES_PASSWORD"]}
        made = house.run([binaries / "createdb", settings["POSTGRES_DB"]], {**environment, **password})
        assert made.returncode == 0, made.stdout
        yield watched


@pytest.fixture(scope="module")
def server(house: House, services: dict[str, Any], database: Watched) -> Iterator[Watched]:
    with running(house, "server", services["server"]) as watched:
        assert database.is_well()
        yield watched


@pytest.fixture(scope="module")
def api(house: House, server: Watched) -> str:
    return house.here("http://127.0.0.1:4200/api")


def ask(url: str, body: object | None = None, *, who: str | None = VARIABLES["PREFECT_AUTH"]) -> Any:
    """GET, or POST of ``body``, with the password."""
    request = urllib.request.Request(url, headers={"Content-Type": "application/json"})
    if who:
        request.add_header("Authorization", f"Basic {base64.b64encode(who.encode()).decode()}")
    if body is not None:
        client = "tests"
        token = ask(f"{url.partition('/api')[0]}/api/csrf-token?client={client}", who=who)["token"]
        request.add_header("Prefect-Csrf-Token", token)
        request.add_header("Prefect-Csrf-Client", client)
        request.data = json.dumps(body).encode()
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


def stored(api: str) -> dict[str, Any]:
    """All that init makes, as the server holds it."""
    deployments = ask(f"{api}/deployments/filter", {})
    return {
        "pools": [(pool["name"], pool["type"], pool["id"]) for pool in ask(f"{api}/work_pools/filter", {})],
        "deployments": {deployment["name"]: deployment for deployment in deployments},
        "automations": {automation["name"]: automation for automation in ask(f"{api}/automations/filter", {})},
    }


@pytest.fixture(scope="module")
def prepared(house: House, services: dict[str, Any], api: str) -> str:
    """What the first run of init prints."""
    service = services["init"]
    finished = house.run(service["entrypoint"], service["environment"])
    assert finished.returncode == 0, finished.stdout
    return finished.stdout


def test_the_server_runs_on_postgresql_behind_a_password(house: House, api: str) -> None:
    for who in (None, "ann:wrong"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            ask(f"{api}/admin/version", who=who)
        assert refused.value.code == 401
    assert ask(f"{api}/admin/version")
    settings = ask(f"{api}/admin/settings")
    assert "asyncpg" in json.dumps(settings)
    assert not list((house.folder / "cache").rglob("*.db")), "a database beside PostgreSQL"
    log = (house.folder / "server.log").read_text()
    assert PASSWORD not in log
    assert VARIABLES["PREFECT_AUTH"] not in log


def test_the_page_of_a_server_that_cannot_write_its_own_folder(house: House, api: str) -> None:
    page = api.removesuffix("/api")
    with urllib.request.urlopen(f"{page}/ui-settings", timeout=120) as answer:
        assert json.load(answer)["api_url"] == api
    with urllib.request.urlopen(f"{page}/", timeout=120) as answer:
        assert b"<html" in answer.read().lower()


def test_init_makes_pool_deployments_and_automations(prepared: str, api: str, house: House) -> None:
    assert "work pool splatspace: made" in prepared
    held = stored(api)
    assert [(name, kind) for name, kind, _ in held["pools"]] == [("splatspace", "process")]
    assert set(held["deployments"]) == set(BY_NAME)
    for planned in DEPLOYMENTS:
        deployment = held["deployments"][planned.name]
        assert planned.full_name in prepared
        assert deployment["parameters"] == dict(planned.parameters)
        assert {(schedule["slug"], schedule["active"]) for schedule in deployment["schedules"]} == {
            (schedule.slug, schedule.active) for schedule in planned.schedules
        }
        assert deployment["pull_steps"] == [
            {"prefect.deployments.steps.set_working_directory": {"directory": str(house.data)}}
        ]
    assert len(held["automations"]) == 1
    assert "heartbeat" in prepared


def test_init_again_changes_nothing(prepared: str, api: str, house: House, services: dict[str, Any]) -> None:
    before = stored(api)
    service = services["init"]
    finished = house.run(service["entrypoint"], service["environment"])
    assert finished.returncode == 0, finished.stdout
    assert finished.stdout.splitlines() == [
        "work pool splatspace: is there",
        f"deployments: all {len(DEPLOYMENTS)} are up to date",
        "automations: all are up to date",
    ]
    assert stored(api) == before


def test_init_with_a_wrong_password_says_so(prepared: str, house: House, services: dict[str, Any]) -> None:
    service = services["init"]
    finished = house.run(service["entrypoint"], {**service["environment"], "PREFECT_API_AUTH_STRING": "ann:wrong"})
    assert finished.returncode == 1
    assert "wants another password" in finished.stdout
    assert "Traceback" not in finished.stdout


def test_a_worker_encodes_and_stops_when_told(prepared: str, api: str, house: House, services: dict[str, Any]) -> None:
    user = services["init"]["environment"]
    with running(house, "worker", services["worker"]) as worker:
        options = ["-p", "limit=16", "-p", "gaussians=4", "-p", "steps=2", "-p", "workers=1"]
        asked = house.run(["prefect", "deployment", "run", "encode/encode-demo", "--watch", *options], user)
        log = (house.folder / "worker.log").read_text()
        assert asked.returncode == 0, asked.stdout + log
        assert "16 fitted" in log
        with open_store(house.data / "out" / "demo.zarr") as store:
            assert len(store) == 16
            assert (store.read(["state"])["state"] == RowState.DONE).all()
        assert (house.data / "out" / "demo-report" / "report.html").is_file()
        assert ask(f"{api}/artifacts/latest/count", {}) >= 1
        worker.process.terminate()
        worker.process.wait(int(services["worker"]["stop_grace_period"].removesuffix("s")))


def test_the_command_of_the_image_encodes_into_the_same_volume(house: House) -> None:
    line = "splatspace encode demo --out by-hand.zarr --limit 16 --gaussians 4 --steps 2 --workers 1"
    finished = house.run(line.split())
    assert finished.returncode == 0, finished.stdout
    assert (house.data / "by-hand-report" / "report.html").is_file()
    checked = house.run(["splatspace", "verify", "by-hand.zarr"])
    assert checked.returncode == 0, checked.stdout
    assert list((house.folder / "cache" / "splatspace").iterdir()), "compiled code is kept in the cache"


def test_a_backup_of_the_database_can_be_restored(prepared: str, house: House, database: Watched) -> None:
    binaries, dump = programs(), house.data / "prefect.dump"
    environment = {**database.environment, "PGPASSWORD": PASSWORD}
    for command in (
        [binaries / "pg_dump", "-U", "prefect", "-Fc", "--file", dump, "prefect"],
        [binaries / "createdb", "restored"],
        [binaries / "pg_restore", "-U", "prefect", "-d", "restored", "--clean", "--if-exists", dump],
        [binaries / "pg_restore", "-U", "prefect", "-d", "restored", "--clean", "--if-exists", dump],
    ):
        finished = house.run(command, environment)
        assert finished.returncode == 0, finished.stdout
    counted = house.run([binaries / "psql", "-At", "-c", "SELECT count(*) FROM deployment", "restored"], environment)
    assert counted.stdout.strip() == str(len(DEPLOYMENTS))


def test_an_upgrade_keeps_what_people_changed(prepared: str, api: str, house: House, services: dict[str, Any]) -> None:
    """Another version deploys again; schedules resumed or made by hand and switched-off automations stay."""
    service = services["init"]
    user = service["environment"]
    name = "encode/encode-mnist"
    before = stored(api)["deployments"]["encode-mnist"]
    script = (
        "from prefect.client.orchestration import get_client\n"
        "from prefect.client.schemas.actions import DeploymentUpdate\n"
        "from prefect.client.schemas.schedules import CronSchedule\n"
        "with get_client(sync_client=True) as client:\n"
        f"    deployment = client.read_deployment_by_name({name!r})\n"
        "    client.update_deployment(deployment.id, DeploymentUpdate(version='older', parameters={}))\n"
        "    client.create_deployment_schedules(deployment.id, [(CronSchedule(cron='0 1 * * 0'), False)])\n"
        "    (automation,) = client.read_automations()\n"
        "    client.pause_automation(automation.id)\n"
    )
    resumed = house.run(["python", "-m", "flows", "--resume", "encode-mnist"], user)
    assert resumed.returncode == 0, resumed.stdout
    changed = house.run(["python", "-c", script], user)
    assert changed.returncode == 0, changed.stdout
    kept = stored(api)["deployments"]["encode-mnist"]["schedules"]
    assert sorted(schedule["active"] for schedule in kept) == [False, True]
    finished = house.run(service["entrypoint"], user)
    assert finished.returncode == 0, finished.stdout
    assert f"deployments: {name}\n" in finished.stdout, "only the one of another version"
    after = stored(api)
    deployment = after["deployments"]["encode-mnist"]
    assert (deployment["id"], deployment["version"]) == (before["id"], before["version"])
    assert deployment["parameters"] == before["parameters"]

    def plain(schedules: list[dict[str, Any]]) -> set[tuple[str, str | None, bool]]:
        return {(schedule["id"], schedule["slug"], schedule["active"]) for schedule in schedules}

    assert plain(deployment["schedules"]) == plain(kept)
    assert [automation["enabled"] for automation in after["automations"].values()] == [False]
