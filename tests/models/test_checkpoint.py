from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from data_schemas import files as durable_files
from data_schemas.errors import CheckpointError
from models.checkpoint import CHECKPOINT_VERSION, load_checkpoint, read_config, save_checkpoint

CONFIG = {"model": "splatdit", "data": {"anchors": [[0.5, -0.5]], "classes": 0}, "learning_rate": 1e-3, "name": "Größe"}


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))


def _saved(folder: Path) -> Path:
    path = folder / "model.safetensors"
    extra = {"mean": torch.arange(6.0).reshape(2, 3), "done": torch.tensor(True), "none": torch.zeros(0, 3)}
    save_checkpoint(path, _network(), CONFIG, {**extra, "half": torch.ones(2, dtype=torch.bfloat16)})
    return path


def test_everything_comes_back(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(_saved(tmp_path))
    assert checkpoint.config == CONFIG
    other = _network(1)
    checkpoint.load_into(other)
    expected = _network().state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.state_dict().items())
    assert torch.equal(checkpoint.tensors["mean"], torch.arange(6.0).reshape(2, 3))
    assert checkpoint.tensors["done"].item() is True
    assert checkpoint.tensors["none"].shape == (0, 3)
    assert checkpoint.tensors["half"].dtype == torch.bfloat16
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


def test_other_programs_read_the_file_and_its_configuration(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["splatspace"])["config"] == CONFIG
        assert "model.0.weight" in set(file.keys())
    assert read_config(path) == CONFIG


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    first = _saved(tmp_path).read_bytes()
    assert _saved(tmp_path).read_bytes() == first


def test_tied_and_strided_weights_are_saved(tmp_path: Path) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "tied", {"one": weight, "two": weight, "turned": weight.T}, {})
    loaded = load_checkpoint(tmp_path / "tied").model
    assert torch.equal(loaded["one"], loaded["two"])
    assert torch.equal(loaded["turned"], weight.T)


@pytest.mark.parametrize("kept", [0, 5, 8, 60, 0.5, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, kept: float) -> None:
    path = _saved(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    with pytest.raises(CheckpointError, match=r"model\.safetensors") as raised:
        load_checkpoint(path)
    assert "SplatSpace" in raised.value.allowed


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = _saved(tmp_path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 4
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        load_checkpoint(path)


def test_files_of_other_programs_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign"
    save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match="not written by SplatSpace"):
        load_checkpoint(path)
    save_file({"weight": torch.zeros(2)}, path, metadata={"splatspace": '{"version": "a"}'})
    with pytest.raises(CheckpointError, match="not written by SplatSpace"):
        load_checkpoint(path)
    torch.save({"weight": torch.zeros(2)}, path)
    for read in (load_checkpoint, read_config):
        with pytest.raises(CheckpointError, match="no safetensors file"):
            read(path)
    content = b"[1, 2]"
    path.write_bytes(struct.pack("<Q", len(content)) + content)
    with pytest.raises(CheckpointError, match="not written by SplatSpace"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path / "absent")
    with pytest.raises(CheckpointError, match="Could not read"):
        load_checkpoint(tmp_path)


def test_a_newer_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.checkpoint.CHECKPOINT_VERSION", CHECKPOINT_VERSION + 1)
    path = _saved(tmp_path)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match=f"version {CHECKPOINT_VERSION + 1}"):
        load_checkpoint(path)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="another network"):
        load_checkpoint(_saved(tmp_path)).load_into(nn.Linear(2, 2))


def test_what_cannot_be_written_leaves_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _saved(tmp_path)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="JSON"):
        save_checkpoint(path, _network(1), {"device": torch.device("cpu")})
    with pytest.raises(CheckpointError, match="JSON"):
        save_checkpoint(path, _network(1), {"loss": float("nan")})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable_files.os, "fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_checkpoint(path, _network(1), CONFIG)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["model.safetensors"]


_WRITER = """
import sys, itertools
from pathlib import Path
import torch
from models.checkpoint import save_checkpoint
for number in itertools.count():
    save_checkpoint(Path(sys.argv[1]), {"weight": torch.full((400_000,), float(number))}, {"number": number})
    print(number, flush=True)
"""


@pytest.mark.slow
def test_killed_while_writing_a_whole_checkpoint_is_left(tmp_path: Path, repository: Path) -> None:
    path = tmp_path / "model.safetensors"
    for delay in (0.0, 0.003, 0.007):
        writer = subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], cwd=repository, stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer, writer.stdout:
            written = -1
            while written < 2:
                written = int(writer.stdout.readline())
            time.sleep(delay)
            os.kill(writer.pid, signal.SIGKILL)
            writer.wait()
        checkpoint = load_checkpoint(path)
        assert checkpoint.config["number"] >= written
        assert (checkpoint.model["weight"] == checkpoint.config["number"]).all()
