"""``docker/``: what the files promise, read from the files; and their linters, where these are installed."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docker.containers import DOCKER, compose, interpolated, stages

VARIABLES = {"POSTGRES_PASSWORD": "s3cret", "PREFECT_AUTH": "ann:s3cret"}
ONE_SHOT = {"init"}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return compose(VARIABLES)["services"]


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (DOCKER / "Dockerfile").read_text()


def test_the_linter_of_dockerfiles_is_content() -> None:
    linter = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if linter is None:
        pytest.skip("no hadolint: its package is for Linux on x86-64")
    finished = subprocess.run(
        [linter, "--no-color", str(DOCKER / "Dockerfile")], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


@pytest.mark.parametrize("files", [["compose.yaml"], ["compose.yaml", "compose.gpu.yaml"]])
def test_compose_itself_accepts_the_files(files: list[str], tmp_path: Path) -> None:
    if (
        shutil.which("docker") is None
        or subprocess.run(["docker", "compose", "version"], capture_output=True).returncode
    ):
        pytest.skip("no `docker compose`")
    settings = tmp_path / "env"
    settings.write_text("".join(f"{name}={value}\n" for name, value in VARIABLES.items()))
    command = ["docker", "compose", "--env-file", str(settings)]
    command += [word for file in files for word in ("--file", str(DOCKER / file))]
    finished = subprocess.run([*command, "config", "--quiet"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr


def test_a_secret_that_is_not_set_stops_compose() -> None:
    for missing in VARIABLES:
        with pytest.raises(KeyError, match=missing):
            compose({name: value for name, value in VARIABLES.items() if name != missing})


def settings_of_the_example() -> dict[str, str]:
    lines = (DOCKER / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_the_example_of_settings_holds_every_one_that_is_read(repository: Path, services: dict[str, Any]) -> None:
    example = settings_of_the_example()
    files = [(DOCKER / name).read_text() for name in ("compose.yaml", "compose.gpu.yaml")]
    assert set(example) == {name for text in files for name in re.findall(r"\$\{(\w+)", text)}
    of_compose = {name for service in services.values() for name in service.get("environment", {})}
    read = {
        name
        for package in ("data_schemas", "encoders", "flows", "models", "pipeline")
        for path in (repository / package).rglob("*.py")
        for name in re.findall(r"\bSPLATSPACE_[A-Z_]+", path.read_text(encoding="utf-8"))
    }
    assert read >= {"SPLATSPACE_ROOTS", "SPLATSPACE_CACHE", "SPLATSPACE_WORKERS"}
    commented = set(re.findall(r"^#(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE))
    assert commented == {"SPLATSPACE_WORKERS", "SPLATSPACE_COMPUTE"}, "what no service reads"
    assert read - commented <= of_compose, "a variable of the programs that no service is given"
    assert read - commented - {"SPLATSPACE_HEALTH_URL"} <= set(example), "that one follows from the service"
    # What the example says is what holds without it.
    for name, value in example.items():
        if name not in VARIABLES:
            defaults = {default for text in files for default in re.findall(rf"\$\{{{name}:-([^}}]*)\}}", text)}
            assert defaults == {value}, name


def test_no_secret_is_in_a_file() -> None:
    example = settings_of_the_example()
    assert {name: example[name] for name in VARIABLES} == dict.fromkeys(VARIABLES, "")
    for path in (DOCKER / "compose.yaml", DOCKER / "compose.gpu.yaml"):
        for name, value in re.findall(r"(\w*(?:PASSWORD|AUTH|SECRET|TOKEN)\w*):[ ]*(.+)", path.read_text()):
            assert value.startswith("${"), f"{path.name}: {name}"


def test_every_service_is_watched_or_ends_by_itself(services: dict[str, Any]) -> None:
    for name, service in services.items():
        if name in ONE_SHOT:
            assert service["restart"] == "no"
            assert service["healthcheck"] == {"disable": True}
        else:
            assert service["restart"] == "unless-stopped"
            assert service["healthcheck"]["test"][0] == "CMD"
    for name in ("server", "init", "worker"):
        for other, condition in services[name]["depends_on"].items():
            wanted = "service_completed_successfully" if other in ONE_SHOT else "service_healthy"
            assert condition == {"condition": wanted}, f"{name} waits for {other}"


def test_only_loopback_is_opened(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert ports == ["127.0.0.1:4200:4200"]
    whole = compose(VARIABLES)
    assert whole["networks"]["database"] == {"internal": True}
    assert services["postgres"]["networks"] == ["database"]


def test_the_projects_services_can_change_nothing_but_their_volumes(services: dict[str, Any]) -> None:
    for name in ("server", "init", "worker"):
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert "user" not in service, "the image has a user without rights"
    targets = {name: [volume.split(":")[1] for volume in services[name]["volumes"]] for name in services}
    assert "/cache" in targets["server"]
    assert {"/data", "/images", "/cache"} <= set(targets["worker"])
    declared = compose(VARIABLES)["volumes"]
    assert {volume.split(":")[0] for name in services for volume in services[name]["volumes"]} == set(declared)


def test_server_and_clients_are_guarded_and_tell_nobody(services: dict[str, Any]) -> None:
    server = services["server"]["environment"]
    assert server["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4200"
    assert server["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:4200/api"
    assert server["PREFECT_SERVER_CSRF_PROTECTION_ENABLED"] == "true"
    assert server["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    for name in ("server", "init", "worker"):
        environment = services[name]["environment"]
        assert environment["DO_NOT_TRACK"] == "1"
        assert VARIABLES["PREFECT_AUTH"] in environment.values()


def test_another_address_reaches_page_and_cors() -> None:
    environment = compose({**VARIABLES, "SPLATSPACE_URL": "https://splats.example"})["services"]["server"][
        "environment"
    ]
    assert environment["PREFECT_SERVER_UI_API_URL"] == "https://splats.example/api"
    assert environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "https://splats.example"


def test_the_worker_of_a_graphics_card_is_the_other_image() -> None:
    (name, service), *others = compose({}, "compose.gpu.yaml")["services"].items()
    assert (name, others) == ("worker", [])
    assert service["build"]["target"] == "cuda"
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert interpolated("${SPLATSPACE_GPUS:-all}", {"SPLATSPACE_GPUS": "2"}) == "2"


def test_images_run_as_a_user_and_know_whether_they_are_well(dockerfile: str) -> None:
    found = stages(dockerfile)
    assert list(found)[-1] == "cpu", "what is built without --target"
    for target in ("cpu", "cuda"):
        assert ("FROM", f"runtime AS {target}") in found[target]
        users = [rest for stage in ("runtime", target) for word, rest in found[stage] if word == "USER"]
        assert users[-1] == "1000:1000"
    check = next(rest for word, rest in found["runtime"] if word == "HEALTHCHECK")
    assert check.endswith('CMD ["python", "-m", "flows.health"]')


def test_every_base_is_the_one_argument(dockerfile: str) -> None:
    found = stages(dockerfile)
    bases = {rest.split()[0] for lines in found.values() for word, rest in lines if word == "FROM"}
    assert bases <= {"${PYTHON_IMAGE}", *found}
    default = re.search(r"^ARG PYTHON_IMAGE=(\S+)$", dockerfile, re.MULTILINE)
    assert default is not None
    assert re.fullmatch(r"python:3\.1[1-3]\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?", default[1])
    assert compose(VARIABLES)["x-image"]["build"]["args"]["PYTHON_IMAGE"] == default[1]


def test_code_comes_after_the_libraries(dockerfile: str) -> None:
    """A change of the code must not install PyTorch again."""
    found = stages(dockerfile)
    for environment in ("cpu-environment", "cuda-environment"):
        runs = [rest for word, rest in found[environment] if word == "RUN"]
        assert len(runs) == 2
        assert "-r requirements.txt" in runs[0]
        assert "from=wheel" not in runs[0]
        assert "--no-deps --no-index /wheels/*.whl" in runs[1]
    assert not any("pipeline" in rest for word, rest in found["environment"] + found["requirements"] if word == "COPY")


def _requirements(dockerfile: str, project: Path, folder: Path, extras: str) -> list[str]:
    """What the Dockerfile's own line makes of a project."""
    script = re.search(
        r"^RUN (python > requirements.txt <<'PYTHON'\n.*?^PYTHON)$", dockerfile, re.MULTILINE | re.DOTALL
    )
    assert script is not None
    shutil.copy(project / "pyproject.toml", folder)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(["sh", "-c", script[1]], cwd=folder, env={**os.environ, "PATH": path, "EXTRAS": extras}, check=True)
    return (folder / "requirements.txt").read_text().splitlines()


def test_the_list_of_libraries_is_that_of_the_project(dockerfile: str, repository: Path, tmp_path: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    assert _requirements(dockerfile, repository, tmp_path, "") == project["dependencies"]
    with_extra = _requirements(dockerfile, repository, tmp_path, "eval")
    assert with_extra == project["dependencies"] + project["optional-dependencies"]["eval"]


def test_what_is_copied_is_let_through(dockerfile: str, repository: Path) -> None:
    let_through = {line[1:] for line in (repository / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = {
        name
        for lines in stages(dockerfile).values()
        for word, rest in lines
        if word == "COPY" and not rest.startswith("--from")
        for name in rest.split()[:-1]
    }
    assert copied == let_through
    assert all((repository / name).exists() for name in copied)


def test_settings_with_secrets_are_never_committed_or_sent(repository: Path) -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "docker/.env"], cwd=repository, capture_output=True, text=True, check=False
    )
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout.strip() == "docker/.env"
    assert (repository / ".dockerignore").read_text().splitlines()[1] == "*"


def test_the_documentation_names_every_setting(repository: Path) -> None:
    page = (repository / "docs" / "operations.md").read_text()
    names = re.findall(r"^(\w+)=", (DOCKER / ".env.example").read_text(), re.MULTILINE)
    assert [name for name in names if name not in page] == []


def test_the_files_are_yaml_without_repeated_keys() -> None:
    class Strict(yaml.SafeLoader):
        """Refuses what YAML's own loader overwrites in silence."""

    def mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"repeated: {json.dumps(keys)}"
        loader.flatten_mapping(node)
        return loader.construct_mapping(node, deep=True)

    Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, mapping)
    for name in ("compose.yaml", "compose.gpu.yaml"):
        assert yaml.load(interpolated((DOCKER / name).read_text(), VARIABLES), Loader=Strict)["services"]
