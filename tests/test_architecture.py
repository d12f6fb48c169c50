"""The promises of the house itself: arrows between packages, declared dependencies, versions, clean files."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PACKAGES = ("data_schemas", "encoders", "flows", "models", "pipeline")

NEVER_IMPORTED = {"cryptography", "fastapi", "sqlalchemy"}
"""Declared to keep Dask and Prefect working, never imported (the reason stands in pyproject.toml)."""

IMPORTED_AS = {
    "pillow": "PIL",
    "universal-pathlib": "upath",
    "scikit-image": "skimage",
    "pyyaml": "yaml",
    "tensorboardx": "tensorboardX",
}


def _project(repository: Path) -> dict:
    return tomllib.loads((repository / "pyproject.toml").read_text())["project"]


def _tracked_files(repository: Path) -> list[Path]:
    if not (repository / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=repository, capture_output=True, check=True).stdout
    return [path for name in listed.decode().split("\0") if name and (path := repository / name).is_file()]


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def _statements(body: list[ast.stmt], *, type_checking: bool = True) -> Iterator[ast.stmt]:
    """These and all inside them; an import is in no expression."""
    for statement in body:
        yield statement
        if not type_checking and isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            continue
        for part in ("body", "orelse", "finalbody"):
            yield from _statements(getattr(statement, part, []), type_checking=type_checking)
        for branch in (*getattr(statement, "handlers", ()), *getattr(statement, "cases", ())):
            yield from _statements(branch.body, type_checking=type_checking)


@pytest.mark.slow
def test_packages_import_only_those_below(repository: Path) -> None:
    finished = _lint_imports(repository)
    assert finished.returncode == 0, finished.stdout
    assert "3 kept, 0 broken" in finished.stdout


LAYERS = "flows -> pipeline -> encoders | models -> data_schemas"
SCHEMAS = "A store can be read without torch and without Prefect"
PREFECT = "Only flows know Prefect"

PLANTED = [
    ("data_schemas", "torch", SCHEMAS),
    ("data_schemas", "prefect", SCHEMAS),
    ("data_schemas", "pipeline", LAYERS),
    ("encoders", "models", LAYERS),
    ("models", "encoders", LAYERS),
    ("encoders", "pipeline", LAYERS),
    ("pipeline", "flows", LAYERS),
    ("pipeline", "prefect", PREFECT),
]
"""A package, what a file of it imports, and the contract that forbids it."""


@pytest.mark.slow
def test_planted_imports_against_the_arrows_are_caught(tmp_path: Path, repository: Path) -> None:
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").touch()
    shutil.copy(repository / "pyproject.toml", tmp_path)
    assert _lint_imports(tmp_path).returncode == 0
    for package, module, _ in PLANTED:
        (tmp_path / package / f"planted_{module}.py").write_text(f"import {module}\n")
    finished = _lint_imports(tmp_path)
    assert finished.returncode == 1
    for package, module, contract in PLANTED:
        assert re.search(re.escape(contract) + r".* BROKEN", finished.stdout), finished.stdout
        assert f"{package}.planted_{module} -> {module}" in finished.stdout, finished.stdout


@pytest.mark.slow
def test_every_dependency_is_declared_and_every_declared_one_is_used(repository: Path) -> None:
    imported: set[str] = set()
    for package in PACKAGES:
        for path in (repository / package).rglob("*.py"):
            for node in _statements(ast.parse(path.read_text()).body):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.partition(".")[0])
    third_party = imported - set(sys.stdlib_module_names) - {*PACKAGES, "splatspace"}
    project = _project(repository)
    declared = {canonicalize_name(Requirement(text).name) for text in project["dependencies"]}
    optional = {
        canonicalize_name(Requirement(text).name)
        for extra in ("gpu", "eval", "wandb", "mlflow")
        for text in project["optional-dependencies"][extra]
    }
    module_of = {name: IMPORTED_AS.get(name, name.replace("-", "_")) for name in declared | optional}
    undeclared = third_party - set(module_of.values())
    assert not undeclared, f"imported and not in pyproject.toml: {sorted(undeclared)}"
    unused = {name for name in declared - NEVER_IMPORTED if module_of[name] not in third_party}
    assert not unused, f"in pyproject.toml and never imported: {sorted(unused)}"


def test_constraints_satisfy_every_range_and_name_no_local_build(repository: Path) -> None:
    pins: dict[str, str] = {}
    for line in (repository / "constraints.txt").read_text().splitlines():
        if line and not line.startswith("#"):
            name, _, version = line.partition("==")
            assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{line!r} is not a plain pin"
            pins[canonicalize_name(name)] = version
    project = _project(repository)
    texts = [*project["dependencies"], *(text for extra in project["optional-dependencies"].values() for text in extra)]
    for requirement in map(Requirement, texts):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{requirement.name} has no pin in constraints.txt"
        assert requirement.specifier.contains(pin), f"constraints.txt pins {requirement.name}=={pin}: not {requirement}"


def test_the_version_is_one(repository: Path) -> None:
    version = _project(repository)["version"]
    assert importlib.metadata.version("splatspace") == version
    citation = yaml.safe_load((repository / "CITATION.cff").read_text())
    assert citation["version"] == version
    assert citation["license"] == _project(repository)["license"]


def test_the_changelog_has_a_section_for_what_is_new(repository: Path) -> None:
    headings = re.findall(r"^## \[(.+?)\]", (repository / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] in ("Unreleased", _project(repository)["version"])


@pytest.mark.slow
def test_files_speak_of_no_machine(repository: Path) -> None:
    # Built from parts, so that this file does not hold what it forbids.
    home, local, registry, folder = "/ro" + "ot/", "/wo" + "rk/", "pypi" + ".org", "file" + ":///"
    forbidden = re.compile("|".join((rf"(?<![\w.]){home}", rf"(?<![\w.]){local}", folder, re.escape(registry))))
    found = []
    for path in _tracked_files(repository):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [
            f"{path.relative_to(repository)}:{number}"
            for number, line in enumerate(text.splitlines(), 1)
            if forbidden.search(line)
        ]
    assert not found


MOST_LINES = 400


def test_source_files_stay_small(repository: Path) -> None:
    lengths = {
        path.relative_to(repository).as_posix(): len(path.read_text().splitlines())
        for package in PACKAGES
        for path in (repository / package).rglob("*.py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > MOST_LINES} == {}


def test_no_room_is_a_lumber_room(repository: Path) -> None:
    names = {path.stem for package in PACKAGES for path in (repository / package).rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc", "core", "tools"}


MOST_FILES = 14


def test_no_folder_holds_more_than_is_seen_at_a_glance(repository: Path) -> None:
    folders = {
        folder.relative_to(repository).as_posix(): len([file for file in folder.glob("*.py") if file.stem[0] != "_"])
        for package in (*PACKAGES, "benchmarks")
        for folder in (repository / package, *(repository / package).rglob("*/"))
    }
    assert {name: files for name, files in folders.items() if files > MOST_FILES} == {}


def _modules(repository: Path) -> dict[str, Path]:
    found = {}
    for package in (*PACKAGES, "benchmarks"):
        for path in (repository / package).rglob("*.py"):
            parts = path.relative_to(repository).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def _imports(path: Path, modules: Container[str]) -> set[str]:
    """Modules that a file imports anywhere, but for what only type checkers read."""
    found = set()
    for statement in _statements(ast.parse(path.read_text()).body, type_checking=False):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom):
            names = {f"{statement.module}.{alias.name}" for alias in statement.names}
            found |= {name if name in modules else str(statement.module) for name in names}
    return found


def _circle(arrows: Mapping[str, Iterable[str]]) -> list[str]:
    """The first circle that is found, or nothing."""
    left = {module: set(imported) & set(arrows) - {module} for module, imported in arrows.items()}
    while free := [module for module, imported in left.items() if not imported & left.keys()]:
        for module in free:
            del left[module]
    if not left:
        return []
    path = [min(left)]
    while path[-1] not in path[:-1]:
        path.append(min(left[path[-1]] & left.keys()))
    return path[path.index(path[-1]) :]


def test_no_module_imports_itself_by_way_of_others(repository: Path) -> None:
    modules = _modules(repository)
    assert _circle({name: _imports(path, modules) for name, path in modules.items()}) == []


def test_a_circle_is_found() -> None:
    assert _circle({"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": ()}) == ["b", "c", "b"]
    assert _circle({"a": {"b"}, "b": {"c"}, "c": ()}) == []


def test_docker_is_no_package(repository: Path) -> None:
    # With an __init__.py, `import docker` in the checkout would find this folder and not Docker's own client.
    assert not list((repository / "docker").rglob("*.py"))


def test_links_of_the_documents_lead_somewhere(repository: Path) -> None:
    broken = [
        f"{page.relative_to(repository)}: {target}"
        for page in (*repository.glob("*.md"), *(repository / "docs").glob("*.md"))
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", re.sub(r"`[^`\n]*`", "", page.read_text()))
        if not re.match(r"[a-z]+:", target) and not (page.parent / target).exists()
    ]
    assert not broken
