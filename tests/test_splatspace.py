"""The module ``splatspace``: public names, and what it says where other packages of the same names are in the way."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

import splatspace


def test_every_public_name_is_one_of_its_module_and_explained(repository: Path) -> None:
    """By the source: importing all of them takes long, and the examples of the page ask for each."""
    assert sorted(splatspace.__all__) == sorted(splatspace._MODULES)
    for name, module in splatspace._MODULES.items():
        tree = ast.parse((repository / f"{module.replace('.', '/')}.py").read_text())
        (found,) = (
            node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name
        )
        assert ast.get_docstring(found), name
    assert set(splatspace.__all__) <= set(dir(splatspace))
    assert splatspace.layout_named is importlib.import_module("data_schemas.splats").layout_named


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        splatspace.nothing  # noqa: B018


def test_type_checkers_know_the_names(repository: Path) -> None:
    known = (repository / "splatspace.py").read_text().partition("if TYPE_CHECKING:\n")[2].partition("\n\n")[0]
    assert sorted(line.rpartition(" as ")[2] for line in known.splitlines()) == sorted(splatspace.__all__)
    for line in known.splitlines():
        module, _, name = line.strip().removeprefix("from ").partition(" import ")
        assert splatspace._MODULES[name.partition(" as ")[0]] == module


def test_importing_it_takes_less_than_50_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "splatspace")
    began = time.process_time()
    importlib.import_module("splatspace")
    assert time.process_time() - began < 0.05


def test_the_page_has_an_example_for_each_name(repository: Path) -> None:
    page = (repository / "docs/python-api.md").read_text()
    for name in splatspace.__all__:
        assert f"`{name}" in page, name
        assert f"splatspace.{name}" in page, name


@pytest.mark.slow
@pytest.mark.usefixtures("brief_previews")
def test_the_examples_of_the_page_run(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (repository / "docs/python-api.md").read_text()
    # Less of everything: it is the calls that must be right.
    for long, short in {
        "limit=64": "limit=9", "gaussians=32": "gaussians=6", "steps=50": "steps=3, workers=1", "size=512": "size=64",
        "steps=20": "steps=2, device='cpu'", "batch=16": "batch=4",
    }.items():  # fmt: skip
        assert long in page
        page = page.replace(long, short)
    space: dict = {}
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", page, re.DOTALL)):
        exec(compile(program, f"example {number}", "exec"), space)
    assert space["pixels"].shape == (8, 256, 256, 3)
    assert space["splats"].shape == (9, 6, 8)
    assert Path("seven.png").exists()
    assert space["result"].grid.exists()


def test_it_is_packed_and_started_by_the_console_script(repository: Path) -> None:
    project = tomllib.loads((repository / "pyproject.toml").read_text())
    assert project["tool"]["setuptools"]["py-modules"] == ["splatspace"]
    assert project["project"]["scripts"]["splatspace"] == "splatspace:main"


def foreign(folder: Path, name: str, kind: str) -> Path:
    """Somebody's package, module, or folder without code, of that name."""
    place = folder / (f"{name}.py" if kind == "module" else name)
    if kind == "module":
        place.write_text("raise RuntimeError('imported')\n")
    else:
        place.mkdir(parents=True)
        (place / ("__init__.py" if kind == "package" else "weights.pt")).write_text("raise RuntimeError('imported')\n")
    return place


@pytest.mark.parametrize("kind", ["package", "module"])
def test_the_console_script_names_what_is_in_the_way(tmp_path: Path, repository: Path, kind: str) -> None:
    place = foreign(tmp_path, "models", kind)
    other = foreign(tmp_path, "pipeline", "package")
    path = os.pathsep.join([str(tmp_path), str(repository)])
    finished = subprocess.run(
        [sys.executable, "-c", "from splatspace import main; main()", "--help"],
        cwd=tmp_path.parent, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert finished.returncode == 2
    assert finished.stdout == ""
    assert finished.stderr == (
        f"Error: Python finds {place} where SplatSpace needs its own package models; and also pipeline ({other}). "
        f"Allowed: {repository / 'models'}. "
        f"Next: take {tmp_path} out of PYTHONPATH, or type env -u PYTHONPATH before the command.\n"
    )


def test_flows_names_a_folder_of_the_current_one_and_how_to_run(tmp_path: Path, repository: Path) -> None:
    place = foreign(tmp_path, "data_schemas", "package")
    script = (
        f"import runpy, sys; sys.path[:] = [{str(tmp_path)!r}, {str(repository)!r}, *sys.path[1:]]; "
        "runpy.run_module('flows', run_name='__main__')"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    finished = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith(
        f"Error: Python finds {place} where SplatSpace needs its own package data_schemas."
    )
    assert "PYTHONSAFEPATH=1" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_folder_without_code_is_in_the_way_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = foreign(tmp_path, "encoders", "folder")
    monkeypatch.delitem(sys.modules, "encoders", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.setattr(sys, "meta_path", [finder for finder in sys.meta_path if "ditable" not in repr(finder)])
    assert splatspace.shadows()["encoders"] == str(place)
    monkeypatch.setattr(sys, "path", [])
    assert splatspace.shadows()["encoders"] == ""
    with pytest.raises(ImportError, match="not installed"):
        splatspace.__getattr__("decode")


def test_nothing_is_in_the_way_here() -> None:
    assert splatspace.shadows() == {}
    assert splatspace.shadow_message() == ""
    splatspace.require_own_packages()
