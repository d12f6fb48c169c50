"""The wheel in a clean environment, used by a user without rights: every entry point of the images."""

from __future__ import annotations

import subprocess
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.docker.conftest import PACKAGES
from tests.docker.containers import House

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Service(BaseHTTPRequestHandler):
    """Well at /well, ill everywhere else."""

    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/well" else 503)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def service() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path, repository: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "-z", *PACKAGES, "splatspace.py"],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    tracked = {name for name in listed.stdout.split("\0") if name and (repository / name).is_file()}
    with zipfile.ZipFile(wheel) as archive:
        assert tracked <= set(archive.namelist())


def test_the_code_that_runs_is_the_installed_one(house: House, repository: Path) -> None:
    finished = house.run(["python", "-c", "import flows, pipeline; print(flows.__file__, pipeline.__file__)"])
    for path in finished.stdout.split():
        assert Path(path).is_relative_to(house.folder), finished.stdout
        assert not Path(path).is_relative_to(repository)


def test_the_user_of_the_image_writes_where_it_may_and_nowhere_else(house: House) -> None:
    script = (
        "import os, sys, flows\n"
        "print(os.geteuid())\n"
        "for folder in (*sys.argv[1:], os.path.dirname(flows.__file__)):\n"
        "    try:\n"
        "        open(os.path.join(folder, 'probe'), 'w').close()\n"
        "        os.remove(os.path.join(folder, 'probe'))\n"
        "        print('may')\n"
        "    except PermissionError:\n"
        "        print('may not')\n"
    )
    user, *answers = house.run(["python", "-c", script, "/data", "/cache"]).stdout.splitlines()
    if not house.prefix:
        pytest.skip("the tests are not run by root: the environment belongs to their user")
    assert user != "0"
    assert answers == ["may", "may", "may not"]


@pytest.mark.parametrize(("path", "code"), [("/well", 0), ("/ill", 1)])
def test_the_health_check_follows_the_service(house: House, service: str, path: str, code: int) -> None:
    finished = house.run(["python", "-m", "flows.health"], {"SPLATSPACE_HEALTH_URL": service + path})
    assert finished.returncode == code, finished.stdout
    assert bool(finished.stdout) == bool(code), "says what is wrong, and else nothing"


def test_the_health_check_knows_a_dead_service_a_wrong_address_and_none(house: House) -> None:
    assert house.run(["python", "-m", "flows.health"]).returncode == 0
    for url in ("http://127.0.0.1:9/health", "nonsense"):
        finished = house.run(["python", "-m", "flows.health"], {"SPLATSPACE_HEALTH_URL": url})
        assert finished.returncode == 1
        assert finished.stdout.startswith(url)
        assert "Traceback" not in finished.stdout


def test_init_says_what_is_missing(house: House) -> None:
    finished = house.run(["python", "-m", "flows.init"])
    assert finished.returncode == 1
    assert "PREFECT_API_URL is not set" in finished.stdout
    nobody = {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    finished = house.run(["python", "-m", "flows.init", "--timeout", "1"], nobody)
    assert finished.returncode == 1
    assert "No server of Prefect answered at http://127.0.0.1:9/api within 1 s" in finished.stdout
    assert "Traceback" not in finished.stdout
