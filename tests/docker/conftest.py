"""A wheel of the project and a clean environment with it: what an image holds."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker.containers import House, as_nobody, stages

PACKAGES = ("data_schemas", "encoders", "flows", "models", "pipeline")

PREFECT = """#!{python}
import sys
from prefect.cli import app
sys.exit(app())
"""
"""The command that installing Prefect makes; its libraries are borrowed here, not installed."""


@pytest.fixture(scope="session")
def wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from what the Dockerfile copies and nothing else."""
    source = tmp_path_factory.mktemp("source")
    copied = [rest.split() for word, rest in stages((repository / "docker/Dockerfile").read_text())["wheel"]
              if word == "COPY"]  # fmt: skip
    for *names, target in copied:
        for name in names:
            if (repository / name).is_dir():
                shutil.copytree(repository / name, source / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(repository / name, source / target)
    folder = tmp_path_factory.mktemp("wheels")
    isolation = ["--no-build-isolation"] if importlib.util.find_spec("setuptools") else []
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", *isolation, "--wheel-dir", str(folder), "."],
        cwd=source, check=True, capture_output=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def house(wheel: Path) -> Iterator[House]:
    """An environment of its own in which the wheel is installed, and folders that its user may write."""
    # Not pytest's own folder, which only its user may enter.
    folder = Path(tempfile.mkdtemp(prefix="splatspace-containers-"))
    folder.chmod(0o755)
    try:
        house = House(folder, as_nobody())
        environment = folder / "environment"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
        python = environment / "bin" / "python"
        libraries = Path(sysconfig.get_path("purelib", vars={"base": str(environment)}))
        # Of a folder named in a .pth file no .pth files are read: the checkout itself is not found through it.
        (libraries / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
        subprocess.run(
            [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", wheel],
            check=True, capture_output=True,
        )  # fmt: skip
        prefect = environment / "bin" / "prefect"
        prefect.write_text(PREFECT.format(python=python))
        prefect.chmod(0o755)
        house.places |= {f"/{name}": str(house.open_folder(name)) for name in ("data", "images", "cache", "tmp")}
        os.chmod(folder / "cache", 0o1777)
        yield house
    finally:
        shutil.rmtree(folder, ignore_errors=True)
