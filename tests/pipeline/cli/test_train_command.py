"""``splatspace train`` and ``splatspace models`` as a user meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from models.descriptions import DESCRIPTIONS
from models.registry import ModelCost
from pipeline.cli import app
from pipeline.model_costs import USUAL, count_costs
from tests.pipeline.encode.fakes import ArrayImages, pictures
from tests.pipeline.encode.fakes import run as encode

pytestmark = pytest.mark.usefixtures("brief_previews")


def splatspace(*arguments: Any) -> Result:
    runner = CliRunner(env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
    return runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve images, one of them broken."""
    source = ArrayImages(pictures(12))
    source.broken["image-0003"] = "cannot be read"
    path = tmp_path_factory.mktemp("stores") / "a.zarr"
    encode(path, source)
    return path


@pytest.mark.slow
def test_train_says_what_it_left_and_continues(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ("--model", "splatdit", "--preset", "tiny", "--pack", 3, "--steps", 2, "--batch", 4, "--device", "cpu")
    result = splatspace("train", "splats", "--store", store, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert "splatdit (tiny)" in result.stdout
    assert "on 11 images: 2 steps" in result.stdout
    assert str(out / "model.safetensors") in result.stdout
    assert "1 rows of the store are not done and were not used: image-0003" in " ".join(result.stderr.split())
    again = splatspace("train", "splats", "--out", out, "--resume", "--json")
    assert again.exit_code == 0, again.output
    content = json.loads(again.stdout)
    assert (content["steps_taken"], content["images"], content["unfinished"]) == (0, 11, 1)
    refused = splatspace("train", "splats", "--store", store, "--out", out, *options)
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr


def test_train_needs_a_store(tmp_path: Path) -> None:
    result = splatspace("train", "splats", "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert "--store" in result.stderr


@pytest.mark.slow
def test_two_processes_train_together(store: Path, tmp_path: Path, repository: Path) -> None:
    out = tmp_path / "run"
    options = ("--preset", "tiny", "--steps", 2, "--batch", 4, "--device", "cpu", "--devices", 2, "--json")
    command = [sys.executable, "-m", "pipeline", "train", "splats", "--store", store, "--out", out, *options]
    finished = subprocess.run(list(map(str, command)), cwd=repository, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert json.loads(finished.stdout)["steps_taken"] == 2
    assert len((out / "log.jsonl").read_text().splitlines()) == 2
    assert (out / "samples" / "0000002.png").is_file()


@pytest.mark.slow
def test_models_tells_what_counting_finds() -> None:
    content = json.loads(splatspace("models", "--json", "--gaussians", 150, "--size", 32).stdout)
    counted = count_costs(USUAL)
    assert list(content) == list(counted)
    for name, presets in counted.items():
        assert list(content[name]) == list(presets)
        for preset, cost in presets.items():
            told = content[name][preset]
            assert told == pytest.approx(cost), f"{name} {preset}: run python -m pipeline.model_costs"
            assert told["parameters"] == cost["parameters"]
    patches = {f"cats-{head}{recipe}" for head in ("kpn", "lut", "outer", "splats") for recipe in ("", "-published")}
    others = {"splatdit", "set", "set-induced", "published", "pixel-unet", "pixel-dit", "render-dit"}
    assert set(content) == others | patches
    assert content["published"]["full"]["parameters"] == 51_486_472
    assert content["splatdit"]["full"]["gflop"] <= 3.8
    assert content["splatdit"]["small"]["gflop"] <= 0.65


def test_models_prints_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    # What they cost is counted in the test before this one, and takes seconds.
    monkeypatch.setattr("models.registry.measure_model", lambda *_: ModelCost(parameters=1_234_567, gflop=0.5))
    result = splatspace("models", "--gaussians", 16, "--size", 16, "--channels", "1")
    assert result.exit_code == 0, result.output
    assert "K = 16" in result.stdout
    assert "splatdit" in result.stdout
    assert "1,234,567" in result.stdout


def test_the_table_of_the_usual_data_is_there_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.registry.measure_model", lambda *_: pytest.fail("nothing is to be counted"))
    lines = splatspace("models").stdout.splitlines()
    full = [line.split() for line in lines if line.split()[1:2] == ["full"]]
    assert [line[0] for line in full] == list(DESCRIPTIONS)
    assert ["published", "full", "51,486,472"] in [line[:3] for line in full]
    for described in DESCRIPTIONS.values():
        assert sum(described.summary in line for line in lines) == 1
