"""Who may use a server that ``python -m flows`` has started, and who may not: asked of a real one, with a password."""

from __future__ import annotations

import base64
import http.server
import json
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from email.message import Message
from pathlib import Path

import pytest

from flows.server.server import (
    RECORD,
    Server,
    ServerError,
    answers,
    check_access,
    environment_of,
    is_loopback,
    lets_others_in,
    server_at,
)
from tests.flows.terminal import PROC, Terminal
from tests.waiting import free_port, wait_until

needs_server = [pytest.mark.prefect, pytest.mark.slow, pytest.mark.timeout(2400)]
PASSWORD = "the-word-that-nobody-may-read"
EVIL = "http://evil.example"


def ask(
    url: str,
    *,
    auth: str | None = None,
    body: object = None,
    method: str | None = None,
    headers: Mapping[str, str] = {},
) -> tuple[int, Message, bytes]:
    """Status, headers and content of the answer."""
    everything = dict(headers or {})
    if auth:
        everything["Authorization"] = "Basic " + base64.b64encode(auth.encode()).decode()
    if body is not None:
        everything["Content-Type"] = "application/json"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, headers=everything, data=data, method=method)
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, repository: Path, prefect_database: Path
) -> Iterator[tuple[Terminal, Path]]:
    """``python -m flows`` with a password, and the file with what it prints."""
    terminal = Terminal(
        tmp_path_factory.mktemp("guarded") / "home", repository, database=prefect_database,
        PREFECT_SERVER_API_AUTH_STRING=f"admin:{PASSWORD}",
    )  # fmt: skip
    with terminal.running(f"python -m flows --port {terminal.port}", until="Ctrl-C") as (_, printed):
        yield terminal, printed


@pytest.fixture
def api(guarded: tuple[Terminal, Path]) -> str:
    return guarded[0].api_url


def listening(numbers: set[int]) -> dict[str, str]:
    """Addresses on which these processes listen, as the kernel writes them, with the file that says so."""
    sockets = set()
    for number in numbers:
        for descriptor in (PROC / str(number) / "fd").iterdir():
            try:
                sockets.add(os.readlink(descriptor).removeprefix("socket:[").removesuffix("]"))
            except OSError:
                continue  # closed meanwhile
    found = {}
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in sockets:
                found[fields[1].partition(":")[0]] = table
    return found


class TestServer:
    pytestmark = needs_server

    def test_a_web_page_from_elsewhere_may_not_read(self, api: str) -> None:
        for url in (f"{api}/health", f"{api}/flows/filter"):
            _, headers, _ = ask(url, headers={"Origin": EVIL})
            assert headers["Access-Control-Allow-Origin"] is None
        asking = {"Origin": EVIL, "Access-Control-Request-Method": "POST"}
        status, headers, _ = ask(f"{api}/flows/filter", method="OPTIONS", headers=asking)
        assert status == 400
        assert headers["Access-Control-Allow-Origin"] is None
        assert not lets_others_in(api)

    def test_its_own_page_may(self, api: str) -> None:
        own = api.removesuffix("/api")
        for origin in (own, own.replace("127.0.0.1", "localhost")):
            _, headers, _ = ask(f"{api}/health", headers={"Origin": origin})
            assert headers["Access-Control-Allow-Origin"] == origin

    def test_a_change_needs_a_token(self, api: str) -> None:
        auth = f"admin:{PASSWORD}"
        flow = {"name": "planted"}
        status, _, content = ask(f"{api}/flows/", auth=auth, body=flow)
        assert status == 403
        assert b"CSRF" in content
        _, _, content = ask(f"{api}/csrf-token?client=test", auth=auth)
        token = {"Prefect-Csrf-Token": json.loads(content)["token"], "Prefect-Csrf-Client": "test"}
        assert ask(f"{api}/flows/", auth=auth, body=flow, headers=token)[0] == 201
        status, _, content = ask(f"{api}/flows/filter", auth=auth, body={}, headers=token)
        assert (status, b"planted" in content) == (200, True)

    def test_nothing_without_the_password(self, api: str) -> None:
        assert ask(f"{api}/admin/version")[0] == 401
        assert ask(f"{api}/admin/version", auth="admin:wrong")[0] == 401
        assert ask(f"{api}/deployments/name/encode/encode-health")[0] == 401
        assert ask(f"{api}/admin/version", auth=f"admin:{PASSWORD}")[0] == 200
        assert answers(api), "whether it lives is no secret"

    def test_a_client_without_the_password_is_told_what_to_set(self, api: str, guarded: tuple[Terminal, Path]) -> None:
        with pytest.raises(ServerError, match="PREFECT_API_AUTH_STRING"):
            check_access(api, None)
        with pytest.raises(ServerError, match="another password"):
            check_access(api, "admin:wrong")
        check_access(api, f"admin:{PASSWORD}")
        others = {"PREFECT_SERVER_API_AUTH_STRING": "", "PREFECT_API_URL": api}
        printed = guarded[0].type("python -m flows --resume encode-cats", code=1, others=others)
        assert "PREFECT_API_AUTH_STRING" in printed

    def test_a_client_with_it_works(self, api: str, guarded: tuple[Terminal, Path]) -> None:
        others = {"PREFECT_SERVER_API_AUTH_STRING": "", "PREFECT_API_AUTH_STRING": f"admin:{PASSWORD}"}
        assert "'name': 'encode-cats'" in guarded[0].type("prefect deployment inspect encode-cats", others=others)
        printed = guarded[0].type("python -m flows --resume encode-cats", others=others)
        assert "nightly resumed" in printed

    @pytest.mark.skipif(not PROC.is_dir(), reason="processes and sockets are read in /proc")
    def test_every_socket_listens_on_the_loopback_address(self, guarded: tuple[Terminal, Path]) -> None:
        processes = guarded[0].processes()
        assert len(processes) >= 2
        addresses = listening(set(processes))
        assert "0100007F" in addresses, "the server listens on 127.0.0.1"
        loopback = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
        assert set(addresses) <= loopback

    def test_the_password_is_in_no_file_and_in_no_line(self, guarded: tuple[Terminal, Path]) -> None:
        terminal, printed = guarded
        files = [path for path in terminal.home.rglob("*") if path.is_file()]
        assert any(path.suffix == ".db" for path in files)
        assert any(path.name.startswith("splatspace-server") and path.suffix == ".log" for path in files)
        assert printed in files
        holding = [path.name for path in files if PASSWORD.encode() in path.read_bytes()]
        assert holding == []
        if PROC.is_dir():
            assert not any(PASSWORD in line for line in terminal.processes().values()), "command lines are public"

    def test_it_reports_to_nobody(self, api: str) -> None:
        _, _, content = ask(f"{api}/admin/settings", auth=f"admin:{PASSWORD}")
        settings = json.loads(content)
        assert settings["server"]["analytics_enabled"] is False
        assert PASSWORD.encode() not in content


class TestSettings:
    def test_the_user_s_own_settings_of_the_server_stay(self) -> None:
        own = {"PREFECT_SERVER_CORS_ALLOWED_ORIGINS": "https://splats.example", "PREFECT_API_URL": "http://old/api"}
        made = environment_of("http://127.0.0.1:4300/api", own)
        assert made["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "https://splats.example"
        assert made["PREFECT_API_URL"] == "http://127.0.0.1:4300/api", "the page asks there"
        made = environment_of("http://127.0.0.1:4300/api", {})
        assert made["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4300,http://localhost:4300"
        assert made["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
        assert made["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
        assert made["DO_NOT_TRACK"] == "1"
        assert made["PREFECT_SERVER_LOGS_STREAM_OUT_ENABLED"] == "true", "--watch shows log lines"
        assert made["PREFECT_SERVER_LOGS_STREAM_PUBLISHING_ENABLED"] == "true"

    @pytest.mark.parametrize(
        ("url", "own"),
        [
            ("http://127.0.0.1:4200/api", True),
            ("http://127.8.9.1/api", True),
            ("http://localhost:4200/api", True),
            ("http://[::1]:4200/api", True),
            ("http://0.0.0.0:4200/api", False),
            ("http://192.168.1.5:4200/api", False),
            ("http://localhost.evil.example/api", False),
            ("https://api.prefect.cloud/api/accounts/1/workspaces/2", False),
            ("nonsense", False),
        ],
    )
    def test_which_addresses_are_of_this_machine(self, url: str, own: bool) -> None:
        assert is_loopback(url) is own


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server that is not Prefect's."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")

    def log_message(self, format: str, *args: object) -> None:
        pass


class TestAddress:
    def test_no_server_is_started_for_the_address_of_another_machine(self, tmp_path: Path) -> None:
        # A name that can never be resolved.
        refused = pytest.raises(ServerError, match=r"No server answers.*unset PREFECT_API_URL")
        with refused, server_at("http://splats.invalid:4200/api", home=tmp_path):
            raise AssertionError("started")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.slow
    def test_another_server_at_the_port_is_told_from_prefect_s(self, tmp_path: Path) -> None:
        with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as stranger:
            threading.Thread(target=stranger.serve_forever, daemon=True).start()
            address = f"http://127.0.0.1:{stranger.server_port}/api"
            with pytest.raises(ServerError, match="--port"), server_at(address, home=tmp_path):
                raise AssertionError("used")
            stranger.shutdown()

    @pytest.mark.slow
    def test_a_port_and_the_address_of_another_machine_exclude_each_other(
        self, tmp_path: Path, repository: Path
    ) -> None:
        terminal = Terminal(tmp_path, repository, PREFECT_API_URL="http://splats.invalid/api")
        assert "leave out --port" in terminal.type("python -m flows --port 4300", code=2)
        assert "No server answers" in terminal.type("python -m flows", code=1)

    @pytest.mark.slow
    def test_a_server_that_does_not_start_shows_its_log(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PREFECT_SERVER_DATABASE_TIMEOUT", "no number")
        told = pytest.raises(ServerError, match=r"(?s)exit code 1.*no number.*splatspace-server")
        with told, server_at(f"http://127.0.0.1:{free_port()}/api", home=tmp_path):
            raise AssertionError("started")
        assert not (tmp_path / RECORD).exists()


@pytest.mark.skipif(not PROC.is_dir(), reason="a process is looked up in /proc")
def test_the_server_ends_with_the_process_that_started_it() -> None:
    # The part that watches, without the server: it stops its own process when the pipe closes.
    code = (
        "import os, time; from flows.server.server import stop_with_the_starter as watch;"
        "watch(os.dup(0)); print('ready', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert process.poll() is None
    process.stdin.close()
    wait_until(lambda: process.poll() is not None, 10, "the end")
    assert process.returncode == -15
    process.stdout.close()


def test_a_server_says_where_its_page_is() -> None:
    assert Server("http://127.0.0.1:4200/api", started=False).page == "http://127.0.0.1:4200"
