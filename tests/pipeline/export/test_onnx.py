"""Networks that look at pixels as ONNX graphs: the same answers and images, in eight bits nearly so, or an error."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import re
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from typer.testing import CliRunner

from data_schemas.errors import JobError, SamplingError
from data_schemas.splats import layout_named
from encoders.decode import decode, to_uint8
from encoders.frame import from_splats
from models.base import DataSpec
from models.checkpoint import save_checkpoint
from models.diffusion.objectives import build_objective
from models.diffusion.samplers import generators_for
from models.diffusion.samplers import sample as sample_batch
from models.features.pixels import PixelRepresentation
from models.features.splats import SplatRepresentation
from models.names import HeadName, RecipeName, model_name
from models.networks.trunk import TrunkSize
from models.patches.model import HEADS, RECIPES
from models.registry import build_model
from pipeline.cli import app
from pipeline.export import onnx as onnx_export
from pipeline.export.onnx import onnx_graph
from pipeline.export.onnx_quantise import divide_nodes, quantise_graph
from pipeline.export.sampler_states import graph_answers, sampler_states
from pipeline.renderers import with_renderers
from pipeline.sample.fit import AnsweredStarts
from pipeline.sample.run import Run
from pipeline.train.cats_job import RECIPE_DEFAULTS
from pipeline.train.run_record import without_places
from tests.models.small_networks import awakened, grid_anchors, splat_spec

SIDE = 8
LARGEST_ERROR_INT8 = 0.2
"""Share of the variance of answers that eight bits may cost a network of chance."""


def a_run(name: str, *, classes: int = 0, objective: str = "flow-clean", **changes: Any) -> Run:
    """A generator with weights drawn by chance."""
    torch.manual_seed(0)
    slots: dict[str, Any] = {}
    if name == "render-dit":
        slots = {"gaussians": 6, "anchors": grid_anchors(3, 2), "layout": "rgb"}
    spec = DataSpec("pixels", groups=1, height=SIDE, width=SIDE, classes=classes, **slots)
    # Tracing takes seconds for each level of the pyramid of kernels; smaller patches have fewer. Two blocks that follow
    # each other are traced with the other heads.
    smaller = {"patch": 2, "size": TrunkSize(width=64, depth=1, heads=2)} if "kpn" in name else {}
    if slots:
        smaller = {"patch": 2, "pool": 2, "size": TrunkSize(width=32, depth=1, heads=2)}
    if name == "pixel-unet":  # halved once, with one block and attention on either side
        smaller = {"multiples": (1, 2), "blocks": 1, "attention_levels": (1,)}
    built = build_objective(objective, classes=classes, **changes)
    representation = PixelRepresentation(height=SIDE, width=SIDE, channels=3)
    config = {"model": name, "preset": "tiny", "job": {"order": "auto"}, "codec": "additive/1"}
    network = awakened(build_model(name, "tiny", spec, **smaller))
    return Run(
        Path("runs/cats"),
        with_renderers(network, "additive/1") if slots else network,
        built,
        representation,
        spec,
        None,
        (),
        config,
    )


def cats(head: HeadName, recipe: RecipeName, *, classes: int = 0) -> Run:
    changes = {**RECIPE_DEFAULTS[recipe]["objective_changes"], "evaluations": 5}
    return a_run(model_name(head, recipe), classes=classes, **changes)


_graphs: dict[tuple[str, bytes], bytes] = {}


def graph_of(run: Run) -> bytes:
    """The graph of a generator; what has the same name and the same weights is traced once."""
    digest = hashlib.sha256()
    for name, value in run.model.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode() + value.numpy().tobytes())
    key = (run.config["model"], digest.digest())
    if key not in _graphs:
        _graphs[key] = onnx_graph(run)
    return _graphs[key]


@functools.cache
def exported(head: HeadName, recipe: RecipeName) -> tuple[Run, bytes]:
    """A generator and its graph; improved tables have classes."""
    run = cats(head, recipe, classes=2 if (head, recipe) == ("lut", "modern") else 0)
    return run, graph_of(run)


@functools.cache
def drawn() -> tuple[Run, bytes]:
    """A network that looks at means of pixels and answers with Gaussians, and its graph."""
    run = a_run("render-dit", classes=2, evaluations=3)
    return run, graph_of(run)


def loops(repository: Path, folder: Path, data: bytes) -> tuple[str, str]:
    """The code of the documents: the loop that samples, and what draws Gaussians; their graph lies in the folder."""
    (folder / "model.onnx").write_bytes(data)
    sampling, drawing = re.findall(r"```python\n(.*?)```", (repository / "docs" / "sample.md").read_text(), re.DOTALL)
    return sampling, drawing


@pytest.fixture
def tables() -> tuple[Run, bytes]:
    return exported("lut", "modern")


# Every head and both recipes; every pair of them where there is time for it.
FIRST = (("kpn", "modern"), ("lut", "modern"), ("outer", "published"), ("splats", "published"))


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize(
    ("head", "recipe"),
    [pytest.param(*pair, marks=() if pair in FIRST else pytest.mark.soak) for pair in product(HEADS, RECIPES)],
)
def test_every_head_answers_alike_and_nearly_so_in_eight_bits(head: HeadName, recipe: RecipeName) -> None:
    run, data = exported(head, recipe)
    states = sampler_states(run, images=3, steps=3)
    for answer, state in zip(graph_answers(data, states), states, strict=True):
        np.testing.assert_allclose(answer, state.clean, atol=1e-4 * np.abs(state.clean).max())
    small = quantise_graph(data, run)
    assert len(small) < 0.75 * len(data)
    # Answers of weights drawn by chance leave the range of images far behind: compared before they are cut.
    made, wanted = np.concatenate(graph_answers(small, states)), np.concatenate([state.clean for state in states])
    # The published splats magnify errors: depths of up to 64 stand in an exponent.
    allowed = 0.6 if (head, recipe) == ("splats", "published") else LARGEST_ERROR_INT8
    assert 1e-6 < np.square(made - wanted).mean() / wanted.var() < allowed
    chosen, kept = divide_nodes(onnx.load_model_from_string(data))
    weights = {value.name: value for value in onnx.load_model_from_string(small).graph.initializer}
    eight = [name for name, value in weights.items() if value.data_type == onnx.TensorProto.INT8]
    assert len(eight) >= len(chosen) > 10
    # Two products with an input of 255 fit into 16 bits, as CPUs without VNNI add them.
    largest = max(int(np.abs(onnx.numpy_helper.to_array(weights[name]).astype(int)).max()) for name in eight)
    assert 2 * 255 * largest <= np.iinfo(np.int16).max
    assert largest == 64
    # The drift network, and no other part of any head, stays as it is.
    assert bool(kept) == (head == "kpn")
    assert all(value.data_type == onnx.TensorProto.FLOAT for name, value in weights.items() if "drift" in name)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "objective"),
    [pytest.param("pixel-dit", "ddpm-cosine", marks=pytest.mark.soak), ("pixel-unet", "flow-velocity")],
)
def test_other_generators_of_pixels_answer_alike(name: str, objective: str) -> None:
    run = a_run(name, objective=objective)
    states = sampler_states(run, images=2, steps=3)
    for answer, state in zip(graph_answers(onnx_graph(run), states), states, strict=True):
        np.testing.assert_allclose(answer, state.clean, atol=1e-4 * np.abs(state.clean).max())


@pytest.mark.slow
def test_the_loop_of_the_documents_makes_the_same_pictures(
    tables: tuple[Run, bytes], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = tables
    monkeypatch.chdir(tmp_path)
    loop, _ = loops(repository, tmp_path, data)
    names: dict[str, object] = {}
    exec(loop, names)
    noise, images = names["noise"], names["images"]
    assert isinstance(noise, np.ndarray)
    assert isinstance(images, np.ndarray)
    clean = sample_batch(
        run.objective,
        run.model,
        noise.shape,
        generators=generators_for(0, len(noise)),
        sampler="euler",
        start=torch.from_numpy(noise),
    )
    wanted = run.rendered(run.stored(clean))
    assert images.dtype == np.uint8
    assert images.std() > 5
    assert np.abs(images.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.slow
def test_labels_and_any_batch(tables: tuple[Run, bytes]) -> None:
    run, data = tables
    session: Any = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    noisy = torch.randn(5, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(3))
    time, label = torch.linspace(0, 0.9, 5), torch.tensor([-1, 0, 1, 0, -1])
    with torch.no_grad():
        wanted = run.objective.clean(run.model, noisy, time, label).numpy()
    feed = {"noisy": noisy.numpy(), "time": time.numpy(), "label": label.numpy()}
    np.testing.assert_allclose(session.run(None, feed)[0], wanted, atol=1e-4)
    alone = session.run(None, {name: value[1:2] for name, value in feed.items()})[0]
    np.testing.assert_allclose(alone, wanted[1:2], atol=1e-4)
    unlabelled = session.run(None, {**feed, "label": np.full(5, -1)})[0]
    assert np.abs(unlabelled - wanted).max() > 1e-3


def test_a_distilled_network_is_asked_for_the_steps_that_it_has_learnt() -> None:
    run = a_run("pixel-dit", sampler="euler", evaluations=2, distilled=2)
    assert [state.inputs["time"][0] for state in sampler_states(run, images=2, steps=4)] == [0, 0.5]


def test_metadata_names_files_and_no_folders_of_this_machine() -> None:
    job = {"store": "/home/me/stores/cats.zarr", "out": "/home/me/runs/cats", "lpips_weights": None, "seed": 3}
    config = {"model": "cats-lut", "job": job, "store": {"path": "s3://mine/cats.zarr", "images": 5}}
    assert without_places(config) == {
        "model": "cats-lut",
        "job": {"store": "cats.zarr", "out": "cats", "lpips_weights": None, "seed": 3},
        "store": {"path": "cats.zarr", "images": 5},
    }
    assert job["out"] == "/home/me/runs/cats", "the run itself keeps what it says"


@pytest.mark.slow
def test_the_file_says_all_and_names_no_machine(tables: tuple[Run, bytes], repository: Path) -> None:
    run, data = tables
    [entry] = onnx.load_model_from_string(data).metadata_props
    facts = json.loads(entry.value)
    assert facts["config"] == without_places(run.config)
    assert facts["shape"] == [3, SIDE, SIDE]
    assert facts["classes"] == 2
    assert (facts["labels"], facts["label_names"]) == ([0, 1], ["", ""]), "of a run from before labels were kept"
    assert facts["times"][-1] == facts["signal"][-1] == 1
    assert facts["noise"][-1] == 0
    assert len(facts["times"]) == 6
    assert "splats" not in facts
    assert str(repository).encode() not in data
    assert b".py" not in data


@pytest.mark.slow
def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_export, "onnx_graph", graph_of)  # the weights come back from the file, or are traced again

    def splatspace(*arguments: object) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["export", *map(str, arguments)])
        return result.exit_code, result.output

    run, folder = cats("outer", "published"), tmp_path / "run"
    folder.mkdir()
    representation = {f"representation.{name}": value for name, value in run.representation.tensors().items()}
    config = {
        **run.config,
        "data": run.spec.to_dict(),
        "changes": {},
        "representation": run.representation.config(),
        "objective": run.objective.config(),
        "label_names": [],
        "colours": "rgb",
        "codec": None,
        "job": {"order": "auto", "batch": 4, "ema": True, "seed": 0},
        "store": {
            "identity": {"start": "grid"},
            "source": {"name": "cats"},
            "path": "cats.zarr",
            "images": 5,
            "order": "none",
        },
    }
    save_checkpoint(folder / "model.safetensors", run.model, config, representation)
    code, printed = splatspace(folder, "--onnx", tmp_path / "new" / "a.onnx", "--int8", "--json")
    assert code == 0, printed
    facts = json.loads(printed)
    assert facts["bytes"] == (tmp_path / "new" / "a.onnx").stat().st_size
    assert facts["difference"] < 1e-4
    assert facts["int8_psnr"] > 15
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.onnx"]
    for wrong in (
        [folder, "--onnx", tmp_path / "a.pt"],
        [folder, "--int8", "--out", tmp_path / "a.svg"],
        [folder, "--onnx", tmp_path / "a.onnx", "--image", 0],
        [folder],
    ):
        assert splatspace(*wrong)[0] == 2
    (tmp_path / "foreign.safetensors").write_bytes(b"no checkpoint")
    assert splatspace(tmp_path / "foreign.safetensors", "--onnx", tmp_path / "a.onnx")[0] == 1
    assert not (tmp_path / "a.onnx").exists()


@pytest.mark.slow
def test_splats_missing_packages_and_other_answers_are_refused(
    tables: tuple[Run, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = tables
    out = tmp_path / "a.onnx"
    spec = splat_spec()
    splats = dataclasses.replace(
        run,
        model=build_model("splatdit", "tiny", spec),
        representation=SplatRepresentation(layout="grey", gaussians=spec.gaussians, anchors=spec.anchors),
        spec=spec,
        config={**run.config, "model": "splatdit"},
    )
    with pytest.raises(JobError, match=r"model splatdit looks at splats.*render-dit"):
        onnx_export.export_onnx(splats, out)
    monkeypatch.setattr(onnx_export, "onnx_graph", lambda _run: data)
    with torch.no_grad():
        other = cats("lut", "modern", classes=2)
        next(iter(other.model.parameters())).mul_(1.5)
    with pytest.raises(SamplingError, match="answers otherwise"):
        onnx_export.export_onnx(other, out)
    real = importlib.import_module

    def missing(name: str) -> object:
        if name.startswith("onnx"):
            raise ImportError(f"No module named {name!r}")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(JobError, match=r"splatspace\[onnx\]"):
        onnx_export.export_onnx(run, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_network_that_draws_says_its_gaussians_too() -> None:
    run, data = drawn()
    states = sampler_states(run, images=3, steps=2)
    assert [state.inputs["time"][0] for state in states] == [0, 0.5, 1]
    assert (states[-1].inputs["label"] == -1).all()
    for answer, splats, state in zip(
        graph_answers(data, states), graph_answers(data, states, "splats"), states, strict=True
    ):
        np.testing.assert_allclose(answer, state.clean, atol=1e-4 * np.abs(state.clean).max())
        assert splats.shape == (3, 6, 8)
        assert state.splats is not None
        np.testing.assert_allclose(splats, state.splats, rtol=1e-4, atol=1e-4)
    [entry] = onnx.load_model_from_string(data).metadata_props
    assert json.loads(entry.value)["splats"] == {
        "gaussians": 6,
        "layout": "rgb",
        "parameters": ["sigma_x", "sigma_y", "rho", "r", "g", "b", "x", "y"],
        "codec": "additive/1",
        "colours": "bounded",
    }


@pytest.mark.slow
def test_the_documents_sample_gaussians_and_draw_them_at_any_size(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = drawn()
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for part in loops(repository, tmp_path, data):
        exec(part, names)
    images, splats, large = names["images"], names["splats"], names["large"]
    assert images.std() > 5
    np.testing.assert_allclose(from_splats(splats, SIDE, SIDE), AnsweredStarts(run)(images), rtol=1e-3, atol=1e-3)
    wanted = to_uint8(decode(splats, layout=layout_named(run.spec.layout), codec="additive/1", height=96, width=96))
    assert wanted.std() > 5
    assert np.abs(large.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.slow
def test_a_graph_of_gaussians_in_eight_bits_and_one_whose_gaussians_are_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, data = drawn()
    monkeypatch.setattr(onnx_export, "onnx_graph", graph_of)
    found = onnx_export.export_onnx(run, tmp_path / "small.onnx", int8=True)
    assert found.difference < 1e-4
    assert found.int8_psnr is not None
    assert 15 < found.int8_psnr < 80
    small = (tmp_path / "small.onnx").read_bytes()
    states = sampler_states(run, images=2, steps=2)
    for answer, state in zip(graph_answers(small, states, "splats"), states, strict=True):
        assert state.splats is not None
        assert 0 < np.abs(answer - state.splats).mean() < 0.05
    assert len(small) < len(data)

    def others(*arguments: Any, **options: Any) -> Any:
        return [
            dataclasses.replace(state, splats=state.splats * np.array([1.01, *[1] * 7], np.float32))
            for state in sampler_states(*arguments, **options)
            if state.splats is not None
        ]

    monkeypatch.setattr(onnx_export, "sampler_states", others)
    with pytest.raises(SamplingError, match="answers otherwise"):
        onnx_export.export_onnx(run, tmp_path / "other.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["small.onnx"]
