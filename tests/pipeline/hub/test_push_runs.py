"""Runs on a stand-in for the hub: pushed with their card, and sampled from."""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_schemas.errors import CheckpointError, HubError, JobError
from models.checkpoint import load_checkpoint, save_checkpoint
from pipeline.evaluate.figures import (
    Evaluation,
    FeatureFigures,
    GeneratorFacts,
    NeighbourFigures,
    ReferenceFacts,
    SamplingCost,
    Scores,
)
from pipeline.evaluate.job import resolve_evaluate_job
from pipeline.hub.push import push
from pipeline.sample.run import load_run
from tests.hub_stand_in import HubStandIn
from tests.pipeline.hub.cards_read import fields_of, splatspace
from tests.pipeline.tiny_runs import small_run, small_store

DATA, MODEL = "hf://datasets/user/arrays", "hf://user/arrays-model"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    return small_run(small_store(folder / "store.zarr"), folder / "splatdit", model="splatdit", classes=False)


@pytest.mark.slow
def test_a_run_is_pushed_and_sampled_from(hub: HubStandIn, run: Path, tmp_path: Path) -> None:
    found = push(run, MODEL)
    sent = hub.files("user/arrays-model")
    assert set(sent) == {"README.md", "model.safetensors", "samples.png"}
    assert sent["model.safetensors"] == (run / "model.safetensors").read_bytes()
    fields = fields_of(found.card)
    assert (fields["license"], fields["library_name"]) == ("cc0-1.0", "splatspace")
    assert fields["pipeline_tag"] == "unconditional-image-generation"
    assert "# splatdit (tiny) on arrays" in found.card
    assert "No metric is stated here" in found.card
    assert f"splatspace sample {MODEL} -n 64" in found.card
    assert found.card.count("## Use") == 1
    loaded = load_run(MODEL, device="cpu")
    assert loaded.path == tmp_path / "cache" / "hub" / "user" / "arrays-model"
    assert (loaded.path / "README.md").read_bytes() == sent["README.md"]
    done = splatspace("sample", MODEL, "-n", 2, "--out", tmp_path / "out", "--device", "cpu", "--evaluations", 1)
    assert done.exit_code == 0, done.output


def scores(fid: float, evaluations: int | None = None) -> Scores:
    return Scores(images="a", reference="b", n=128, evaluations=evaluations, fid=fid, kid=0.25, kid_spread=0,
                  precision=1, recall=1, density=1, coverage=1, sliced_wasserstein=0)  # fmt: skip


def write_evaluation(run: Path, step: int) -> None:
    """An evaluation of the model at some step."""
    (run / "evaluation").mkdir(exist_ok=True)
    (run / "evaluation" / "evaluation.html").write_text("<p>")
    found = Evaluation(
        created=datetime.now(UTC),
        generator=GeneratorFacts(name="run", kind="splats", objective="flow", sampler="heun", guidance=1,
                                 conditional=False, seed=0, facts={"training steps": step}),
        reference=ReferenceFacts(store="s.zarr", source="arrays", split="all", digest="", codec="additive/1",
                                 gaussians=6, height=8, width=8, channels=3, rows=8, finished=8, unfinished=0),
        features=FeatureFigures(name="selfsup", sha="0123456789", dimension=8),
        generated=(scores(12.5, 20),),
        against_renderings=scores(1),
        real_floor=scores(1.75),
        reconstruction_floor=scores(1),
        neighbours=NeighbourFigures(references=8, generated_median=1, real_median=1, ratio=1),
        cost=SamplingCost(parameters=1, gflop_per_step=1, evaluations=20, tflop_per_sample=1, step_batch=1,
                          step_ms_p50=1, step_ms_p95=1, steps_timed=1, seconds_per_image=1,
                          rendering_seconds_per_image=1, device="cpu", threads=1),
    )  # fmt: skip
    (run / "evaluation" / "evaluation.json").write_text(found.model_dump_json())


@pytest.mark.slow
def test_figures_of_an_evaluation_of_this_model_are_on_its_card(hub: HubStandIn, run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "run")
    write_evaluation(own, step=7)
    other = push(own, MODEL)
    assert any("of step 7, the model of step 1" in note for note in other.notes)
    assert "FID" not in other.card
    assert "evaluation.json" not in other.files
    write_evaluation(own, step=1)
    found = push(own, MODEL, overwrite=True)
    assert "| FID | 12.5 (floor 1.75) |" in found.card
    assert "No metric is stated" not in found.card
    assert {"evaluation.json", "evaluation.html"} <= set(hub.files("user/arrays-model"))


@pytest.mark.slow
def test_a_run_that_says_where_its_files_were_is_not_pushed(hub: HubStandIn, run: Path, tmp_path: Path) -> None:
    held = load_checkpoint(run / "model.safetensors")
    (tmp_path / "card.md").write_bytes((run / "card.md").read_bytes())
    config = {**held.config, "store": {**held.config["store"], "path": "/home/me/store.zarr"}}
    save_checkpoint(tmp_path / "model.safetensors", held.model, config, held.tensors)
    with pytest.raises(CheckpointError, match="names folders of the machine"):
        push(tmp_path, MODEL)
    save_checkpoint(tmp_path / "model.safetensors", held.model, held.config, held.tensors)
    (tmp_path / "card.md").unlink()
    with pytest.raises(CheckpointError, match=r"card.md is missing"):
        push(tmp_path, MODEL)
    save_checkpoint(tmp_path / "model.safetensors", {}, {"kind": "something else"})
    with pytest.raises(CheckpointError, match="is not the model of a training"):
        push(tmp_path, MODEL)
    assert hub.commits == {}


def test_runs_that_are_not_there_are_told(hub: HubStandIn) -> None:
    with pytest.raises(HubError, match=r"RepositoryNotFoundError.*hf auth login"):
        load_run("hf://user/absent")
    hub.create_repo("user/empty", repo_type="model", private=None, exist_ok=True)
    with pytest.raises(HubError, match="a repository that `splatspace push` made"):
        load_run("hf://user/empty")
    with pytest.raises(HubError, match="a branch, a tag or a commit"):
        load_run("hf://user/empty@v7")
    with pytest.raises(HubError, match=r"is no run.*splatspace info"):
        load_run(DATA)
    hub.failing = hub.errors.LocalEntryNotFoundError("cannot find it in the disk cache")
    with pytest.raises(HubError, match=r"check the network, and that HF_HUB_OFFLINE is not set"):
        load_run(Path("hf://user/empty"))
    with pytest.raises(JobError, match="without --out"):
        resolve_evaluate_job("hf://user/empty", "store.zarr")


def test_a_run_without_the_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(JobError, match=r"hf://user/name needs the package huggingface_hub.*splatspace\[hub\]"):
        load_run("hf://user/name")
