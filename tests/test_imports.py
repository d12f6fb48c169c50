"""What a process loads: packages that take long to import come only where they are needed.

Everything is told by names, never by times. Each process goes through steps, the light ones first: what a step finds
loaded is what it needed and what the steps before it had loaded.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "distributed", "fsspec", "h5py", "jinja2", "lightning_fabric", "matplotlib", "numba", "numpy", "onnx", "pandas",
    "pooch", "prefect", "requests", "scipy.stats", "skimage", "sklearn", "torch", "torch._dynamo", "torchmetrics",
    "triton", "upath", "zarr",
)  # fmt: skip

STORES = {"fsspec", "h5py", "numpy", "upath", "zarr"}
"""What reads and writes stores."""

WALK = """
import contextlib, io, json, sys

def splatspace(*arguments):
    from pipeline.cli import app
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            app(list(arguments))
        except SystemExit as leaving:
            return leaving.code, said.getvalue()

def step(name, ending, expected=0):
    code, said = ending
    assert code == expected, (name, code, said)
    print(json.dumps({"step": name, "loaded": [name for name in HEAVY if name in sys.modules]}))

"""


def _loaded(repository: Path, folder: Path, steps: str) -> dict[str, set[str]]:
    """The heavy packages that a new process holds after each of its steps."""
    finished = subprocess.run(
        [sys.executable, "-c", f"HEAVY = {HEAVY!r}\n{WALK}{steps}"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    lines = [json.loads(line) for line in finished.stdout.splitlines()]
    return {line["step"]: set(line["loaded"]) for line in lines}


@pytest.mark.slow
def test_a_command_loads_what_its_work_needs(repository: Path, tmp_path: Path) -> None:
    loaded = _loaded(
        repository,
        tmp_path,
        """
import splatspace as public
step("public names", (0, dir(public)))
public.SplatSpaceError
step("errors", (0, ""))
step("help", splatspace("--help"))
step("version", splatspace("--version"))
step("help of encode", splatspace("encode", "--help"))
step("help of train", splatspace("train", "--help"))
step("wrong option", splatspace("encode", "demo", "--nope"), 2)
step("presets", splatspace("presets"))
step("models", splatspace("models"))
encode = ("encode", "demo", "--limit", "2", "--workers", "1", "--gaussians")
step("dry run", splatspace(*encode, "4", "--out", "fitted.zarr", "--dry-run"))
step("images only", splatspace(*encode, "0", "--out", "images.zarr"))
step("info", splatspace("info", "images.zarr"))
step("convert", splatspace("convert", "images.zarr", "images.h5"))
step("fit", splatspace(*encode, "4", "--steps", "1", "--out", "fitted.zarr", "--no-report"))
step("verify", splatspace("verify", "fitted.zarr"))
step("export", splatspace("export", "fitted.zarr", "--image", "0", "--out", "first.svg"))
step("report", splatspace("report", "fitted.zarr"))
""",
    )
    for name in (
        "public names",
        "errors",
        "help",
        "version",
        "help of encode",
        "help of train",
        "wrong option",
        "presets",
        "models",
    ):
        assert loaded[name] == set(), name
    for name in ("dry run", "images only", "info", "convert"):
        assert loaded[name] == STORES, name
    for name in ("fit", "verify", "export"):
        assert loaded[name] == {*STORES, "numba"}, name
    assert loaded["report"] == {*STORES, "numba", "matplotlib", "jinja2"}


@pytest.mark.slow
def test_counting_what_models_cost_loads_torch_and_no_more(repository: Path, tmp_path: Path) -> None:
    loaded = _loaded(
        repository,
        tmp_path,
        """
import models.registry
measure_model, counted = models.registry.measure_model, {}
def measure_some(name, preset, spec):
    if (name, preset) == ("splatdit", "tiny"):
        counted[name] = measure_model(name, preset, spec)
    return counted.get(name, models.registry.ModelCost(parameters=1, gflop=1.0))
models.registry.measure_model = measure_some
step("models", splatspace("models", "--size", "16"))
assert counted
""",
    )
    # Triton where it is installed: torch's formulas of operations look at it.
    assert loaded["models"] - {"triton"} == {"numpy", "torch"}


@pytest.mark.slow
def test_flows_load_prefect_and_what_they_are_described_with(repository: Path, tmp_path: Path) -> None:
    loaded = _loaded(
        repository,
        tmp_path,
        """
from typer.testing import CliRunner
import flows.__main__
step("help", (CliRunner().invoke(flows.__main__.app, ["--help"]).exit_code, ""))
step("list", (CliRunner().invoke(flows.__main__.app, ["--list"]).exit_code, ""))
import flows.encode, flows.report
step("encode", (0, ""))
import flows.ablate, flows.evaluate, flows.train
step("all", (0, ""))
""",
    )
    assert loaded["help"] == loaded["list"] == set()
    assert loaded["encode"] == {*STORES, "prefect"}
    # Who serves or deploys all flows trains nothing: Lightning and torchmetrics take longer than all the rest.
    assert not loaded["all"] & {"lightning_fabric", "torchmetrics"}
