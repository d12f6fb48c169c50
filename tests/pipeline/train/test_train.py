"""One training from a store to a run: what it leaves, and that it continues bit for bit."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from data_schemas.errors import (
    CheckpointError,
    JobError,
    StoppedError,
    StoreError,
    StoreLockedError,
    StoreMismatchError,
)
from data_schemas.stores.open import open_store
from encoders.base import FitSettings
from models.base import DataSpec
from models.checkpoint import load_checkpoint
from models.diffusion.objectives import Objective
from models.features.pixels import representation_from
from models.registry import build_model
from pipeline.documents import sole_writer
from pipeline.train.loop import learning_rate
from pipeline.train.state import continue_job, representation_tensors
from pipeline.train.tracking.log import read_lines
from pipeline.train.train import train
from tests.pipeline.encode.fakes import SamplingEncoder
from tests.pipeline.training_runs import STEPS, job_of, make_store, trained


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "a.zarr")


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    trained(store, out)
    return out


def _same_weights(one: Path, other: Path) -> bool:
    for name in ("model.safetensors", "state.safetensors"):
        first, second = load_checkpoint(one / name), load_checkpoint(other / name)
        for mine, theirs in ((first.model, second.model), (first.tensors, second.tensors)):
            if mine.keys() != theirs.keys() or not all(torch.equal(mine[key], theirs[key]) for key in mine):
                return False
    return True


def _written(run: Path) -> dict[str, bytes]:
    """What a training promises to the byte."""
    names = ("model.safetensors", "state.safetensors", "state.json", "card.md", "log.jsonl")
    return {name: (run / name).read_bytes() for name in names} | {
        path.name: path.read_bytes() for path in (run / "samples").iterdir()
    }


@pytest.mark.slow
def test_a_run_holds_all_that_sampling_needs(run: Path) -> None:
    names = {path.name for path in run.iterdir()}
    assert names == {
        "model.safetensors",
        "state.safetensors",
        "state.json",
        "card.md",
        "log.jsonl",
        "samples",
        "tensorboard",
    }
    checkpoint = load_checkpoint(run / "model.safetensors")
    config = checkpoint.config
    model = build_model(config["model"], config["preset"], DataSpec.from_dict(config["data"]), **config["changes"])
    checkpoint.load_into(model)
    representation = representation_from(config["representation"], representation_tensors(checkpoint))
    assert representation.shape == (6, 8)
    assert Objective.from_config(config["objective"]).classes == 3
    assert config["codec"] == "additive/1"
    assert config["step"] == STEPS
    assert json.loads((run / "state.json").read_text())["step"] == STEPS


@pytest.mark.slow
def test_what_is_published_names_no_folder_and_what_goes_on_does(run: Path, store: Path) -> None:
    config = load_checkpoint(run / "model.safetensors").config
    assert (config["job"]["store"], config["job"]["out"], config["store"]["path"]) == ("a.zarr", "whole", "a.zarr")
    assert str(store.parent).encode() not in (run / "model.safetensors").read_bytes()
    assert json.loads((run / "state.json").read_text())["job"]["store"] == str(store)
    assert continue_job(run, {}).store == store


def test_a_training_that_fails_before_it_begins_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for out in ("run", "mine"):
        with pytest.raises(StoreError):
            trained(tmp_path / "none.zarr", tmp_path / out)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("run")] == []
    assert (tmp_path / "mine").is_dir(), "made by somebody else"


@pytest.mark.slow
def test_the_log_and_the_grids_follow_the_steps(run: Path) -> None:
    lines = read_lines(run / "log.jsonl")
    assert [line["step"] for line in lines] == [3, 6]
    assert all(np.isfinite(line["loss"]) for line in lines)
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["0000003.png", "0000006.png"]
    with Image.open(run / "samples" / "0000006.png") as picture:
        assert min(picture.size) > 6 * 64
        assert len(set(picture.convert("L").tobytes())) > 10
    assert any((run / "tensorboard").iterdir())


@pytest.mark.slow
def test_the_card_says_what_was_learned(run: Path) -> None:
    text = (run / "card.md").read_text()
    for part in ("splatdit (tiny) on arrays", "images learned from | 24", "CC0", "flow-clean"):
        assert part in text


@pytest.mark.slow
def test_it_learns(store: Path, tmp_path: Path) -> None:
    trained(store, tmp_path / "run", steps=60, every=20, limit=2, batch=16, model="set", learning_rate=2e-3)
    losses = [line["loss"] for line in read_lines(tmp_path / "run" / "log.jsonl")]
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("latents", [None, 1])
def test_stopped_and_continued_is_the_same_to_the_bit(
    store: Path, tmp_path: Path, latents: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So small a MiB that one of them does not hold the store.
    monkeypatch.setattr("pipeline.train.loader.MEBIBYTE", 2000)
    assert trained(store, tmp_path / "run", latents=latents).resident == (latents is None)
    whole = _written(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    job = job_of(store, tmp_path / "run", latents=latents)
    asked = 0

    def after_four() -> bool:
        nonlocal asked
        asked += 1
        return asked == 4

    with pytest.raises(StoppedError, match="step 4 of 6"):
        train(job, should_stop=after_four)
    assert [line["step"] for line in read_lines(tmp_path / "run" / "log.jsonl")] == [3]
    # Twice between two entries: the mean is that of all steps since the last one.
    with pytest.raises(StoppedError, match="step 5 of 6"):
        train(continue_job(tmp_path / "run", {}), resume=True, should_stop=lambda: True)
    summary = train(continue_job(tmp_path / "run", {}), resume=True)
    assert summary.steps_taken == 1
    again = _written(tmp_path / "run")
    assert [name for name in whole if whole[name] != again[name]] == []


@pytest.mark.slow
def test_a_folder_takes_one_training_at_a_time(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(store, tmp_path / "run")
    refused: list[str] = []

    def meanwhile() -> bool:
        for again in (False, True):
            with pytest.raises((StoreLockedError, JobError)) as caught:
                train(continue_job(job.out, {}) if again else job, resume=again)
            refused.append(str(caught.value))
        return True

    with pytest.raises(StoppedError):
        train(job, should_stop=meanwhile)
    assert "holds a training already" in refused[0]
    assert f"is being written by process {os.getpid()} on" in refused[1]
    assert "give another --out" in refused[1]
    # Before the first one has written anything there is nothing but the lock that tells.
    with sole_writer(tmp_path / "new"), pytest.raises(StoreLockedError):
        trained(store, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(tmp_path / "new")
    with sole_writer(Path()):
        assert (tmp_path / "new.lock").exists()


def test_a_run_behind_a_link_to_itself_is_refused_with_words(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StoreError, match="leads back to itself"), sole_writer(tmp_path / "loop"):
        pass
    assert not (tmp_path / "loop.lock").exists()


@pytest.mark.slow
def test_killed_and_continued_is_the_same_to_the_bit(store: Path, tmp_path: Path, repository: Path) -> None:
    trained(store, tmp_path / "whole", steps=24, every=4)
    sizes = ["--steps", "24", "--batch", "8", "--every", "4"]
    options = ["--model", "splatdit", "--preset", "tiny", "--device", "cpu", *sizes]
    command = [sys.executable, "-m", "pipeline", "train", "splats", "--out", str(tmp_path / "killed")]
    environment = {**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen(
        [*command, "--store", str(store), *options],
        cwd=repository,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        state = tmp_path / "killed" / "state.json"
        deadline = time.monotonic() + 120
        while not (state.exists() and json.loads(state.read_text())["step"] >= 8):
            assert time.monotonic() < deadline
            assert process.poll() is None, "it ended before it was killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
    reached = load_checkpoint(tmp_path / "killed" / "state.safetensors").config["step"]
    assert 8 <= reached < 24
    train(continue_job(tmp_path / "killed", {}), resume=True)
    assert _same_weights(tmp_path / "whole", tmp_path / "killed")
    assert (tmp_path / "killed" / "log.jsonl").read_bytes() == (tmp_path / "whole" / "log.jsonl").read_bytes()


@pytest.mark.slow
def test_a_finished_run_continues_to_nothing(run: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    (run / "model.safetensors").unlink()
    summary = train(continue_job(run, {}), resume=True)
    assert summary.steps_taken == 0
    assert load_checkpoint(run / "model.safetensors").model.keys()
    after = (run / "model.safetensors").read_bytes()
    assert len(after) == len(before)


@pytest.mark.slow
def test_a_run_that_is_there_is_never_replaced(store: Path, run: Path) -> None:
    with pytest.raises(JobError, match="holds a training already"):
        train(job_of(store, run))


@pytest.mark.slow
def test_options_that_decide_may_not_change(run: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=re.escape("--batch 9 for a training that began with 8")):
        continue_job(run, {"batch": 9})
    with pytest.raises(JobError, match=re.escape("--steps 5 for a training that was planned with 6")):
        continue_job(run, {"steps": 5})
    assert continue_job(run, {"every": 2, "steps": 6}).every == 2
    with pytest.raises(CheckpointError, match="no training to continue"):
        continue_job(tmp_path, {})


@pytest.mark.slow
def test_a_lengthened_training_is_the_same_to_the_bit_after_an_interruption(store: Path, tmp_path: Path) -> None:
    for name in ("whole", "parts"):
        trained(store, tmp_path / name, steps=4, every=4)
    longer = continue_job(tmp_path / "whole", {"steps": 10})
    assert learning_rate(longer, 4) > learning_rate(longer, 9)
    assert train(longer, resume=True).steps_taken == 6
    asked = 0

    def after_one() -> bool:
        nonlocal asked
        asked += 1
        return asked == 1

    with pytest.raises(StoppedError, match="step 5 of 10"):
        train(continue_job(tmp_path / "parts", {"steps": 10}), resume=True, should_stop=after_one)
    # Its new length is known without being told again.
    assert train(continue_job(tmp_path / "parts", {}), resume=True).steps_taken == 5
    assert _same_weights(tmp_path / "whole", tmp_path / "parts")
    assert load_checkpoint(tmp_path / "parts" / "model.safetensors").config["plans"] == [[0, 4], [4, 10]]
    assert "10 of 10 (until step 4 planned with 4)" in (tmp_path / "parts" / "card.md").read_text()
    trained(store, tmp_path / "at once", steps=10, every=5)
    assert not _same_weights(tmp_path / "whole", tmp_path / "at once")


@pytest.mark.slow
def test_a_longer_plan_outlives_a_kill_before_its_first_checkpoint(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(store, tmp_path / "run", steps=2, every=2)

    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    monkeypatch.setattr("pipeline.train.loop.TrainLoop._step", killed)
    with pytest.raises(KilledError):
        train(continue_job(tmp_path / "run", {"steps": 5}), resume=True)
    assert continue_job(tmp_path / "run", {}).steps == 5


@pytest.mark.slow
def test_another_store_is_refused(run: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other.zarr", count=20)
    with pytest.raises(StoreMismatchError, match="not what this training began with"):
        train(continue_job(run, {"store": other}), resume=True)


@pytest.mark.slow
def test_a_store_of_another_number_of_gaussians_is_refused_as_such(run: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other.zarr", count=4, encoder=SamplingEncoder(FitSettings(7, steps=3)), gaussians=7)
    with open_store(other) as opened:
        assert opened.header.gaussians == 7
    with pytest.raises(StoreMismatchError, match="not what this training began with"):
        train(continue_job(run, {"store": other}), resume=True)


@pytest.mark.slow
def test_a_state_that_is_cut_short_is_refused(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    trained(store, out, steps=2, every=2)
    state = out / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-100])
    with pytest.raises(CheckpointError):
        train(continue_job(out, {}), resume=True)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pixel-unet", "pixel-dit"])
def test_pixels(store: Path, tmp_path: Path, model: str) -> None:
    summary = trained(store, tmp_path / "run", kind="pixels", model=model, steps=2, every=2)
    assert summary.loss is not None
    assert list((tmp_path / "run" / "samples").glob("*.png"))


@pytest.mark.slow
@pytest.mark.parametrize("model", ["set", "set-induced", "published"])
def test_models_without_slots(store: Path, tmp_path: Path, model: str) -> None:
    trained(store, tmp_path / "run", model=model, steps=2, every=2)
    config = load_checkpoint(tmp_path / "run" / "model.safetensors").config
    assert config["data"]["anchors"] is None
    assert config["objective"]["name"] == ("published" if model == "published" else "flow-clean")


@pytest.mark.slow
def test_the_loss_in_image_space_changes_what_is_learned(store: Path, run: Path, tmp_path: Path) -> None:
    trained(store, tmp_path / "run", render_loss=1.0)
    with_it = load_checkpoint(tmp_path / "run" / "state.safetensors").model
    without = load_checkpoint(run / "state.safetensors").model
    assert any(not torch.equal(with_it[name], without[name]) for name in with_it)


@pytest.mark.slow
def test_weights_trained_in_bf16_are_kept_in_float32(store: Path, tmp_path: Path) -> None:
    summary = trained(store, tmp_path / "run", precision="bf16", steps=2, every=2)
    assert summary.precision == "bf16"
    assert load_checkpoint(tmp_path / "run" / "model.safetensors").model["slot"].dtype == torch.float32


def test_a_device_that_is_not_there_is_refused(store: Path, tmp_path: Path) -> None:
    with pytest.raises(JobError, match="Device 'tpu'"):
        trained(store, tmp_path / "run", device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(JobError, match="Device cuda is not there"):
            trained(store, tmp_path / "run", device="cuda")


def test_processes_without_an_image_are_refused_before_they_start(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.train.train.Fabric", lambda **_options: pytest.fail("they were started"))
    with pytest.raises(JobError, match="--batch 1 for 198 processes"):
        trained(store, tmp_path / "run", devices=99, nodes=2, batch=1)
    assert not (tmp_path / "run").exists()


def test_the_learning_rate_rises_and_falls(store: Path, tmp_path: Path) -> None:
    job = job_of(store, tmp_path / "run", steps=1000, learning_rate=0.1)
    rates = [learning_rate(job, step) for step in range(1000)]
    assert rates[0] == pytest.approx(0.001)
    assert max(rates) == pytest.approx(0.1)
    assert int(np.argmax(rates)) in (99, 100)
    assert rates[-1] < 0.0011
