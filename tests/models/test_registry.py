"""The register of models: names, presets, costs, compilation, precision and bad requests."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from data_schemas.errors import JobError
from models.base import DataSpec, Denoiser
from models.networks.published import PublishedConfig
from models.operations import CountedProducts, UnwrittenWeights
from models.patches.kpn import KpnConfig
from models.registry import MODELS, PRESETS, ModelCost, build_model, measure_model, step_gflop
from tests.models.small_networks import awakened, grid_anchors, noise, ready_model, splat_spec

Costs = dict[tuple[str, str], ModelCost]
SPRITES = DataSpec("splats", gaussians=150, features=8, anchors=grid_anchors(15, 10), layout="rgb")


def _spec(name: str, gaussians: int = 6) -> DataSpec:
    entry = MODELS[name]
    classes = 2 if entry.takes_labels else 0
    if entry.sees == "pixels":
        drawn = {"gaussians": gaussians, "anchors": grid_anchors(gaussians, 1), "layout": "grey"} if entry.draws else {}
        return DataSpec("pixels", groups=1, height=8, width=8, channels=1, classes=classes, **drawn)
    return DataSpec("splats", gaussians=gaussians, features=5, classes=classes, anchors=grid_anchors(gaussians, 1))


def _input(spec: DataSpec, batch: int = 3) -> torch.Tensor:
    if spec.kind == "pixels":
        return noise(batch, spec.channels, spec.height, spec.width)
    return noise(batch, spec.gaussians, spec.features)


def test_a_specification_survives_json() -> None:
    for spec in (SPRITES, splat_spec(classes=3), _spec("pixel-dit")):
        assert DataSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.fixture(scope="module")
def costs() -> Costs:
    """Of every model and preset at K = 150, on images of 32x32 in colour."""
    return {
        (name, preset): measure_model(name, preset, dataclasses.replace(SPRITES, kind=entry.sees))
        for name, entry in MODELS.items()
        for preset in entry.presets
    }


@pytest.mark.slow
def test_every_model_has_every_preset_each_larger_than_the_one_before(costs: Costs) -> None:
    assert list(costs) == [(name, preset) for name in MODELS for preset in PRESETS]
    for name in MODELS:
        for smaller, larger in itertools.pairwise(costs[name, preset] for preset in PRESETS):
            assert smaller.parameters < larger.parameters
            assert smaller.gflop < larger.gflop


@pytest.mark.slow
def test_splatdit_keeps_its_promises(costs: Costs) -> None:
    full, small = costs["splatdit", "full"], costs["splatdit", "small"]
    assert full.parameters == pytest.approx(40e6, rel=0.02)
    assert full.gflop <= 3.8
    assert small.gflop <= 0.65
    assert full.gflop * 20 <= 80, "0.08 TFLOP for a sample of 20 evaluations"


def test_counting_leaves_the_mode_as_it_was() -> None:
    with torch.device("meta"):
        model = build_model("splatdit", "tiny", SPRITES)
    for training in (True, False):
        model.train(training)
        step_gflop(model)
        assert model.training is training


@pytest.mark.slow
def test_counting_gives_the_same_on_a_real_device_and_leaves_attention_as_it_was() -> None:
    before = torch.backends.mha.get_fastpath_enabled()
    for name in MODELS:
        spec = _spec(name)
        assert step_gflop(ready_model(name, "tiny", spec)) == measure_model(name, "tiny", spec).gflop
    assert torch.backends.mha.get_fastpath_enabled() == before


@pytest.mark.parametrize("name", ["splatdit", "set-induced", "published", "pixel-unet", "cats-kpn"])
def test_what_is_counted_is_what_torch_counts_when_it_computes(name: str) -> None:
    model = ready_model(name, "tiny", _spec(name)).eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(_input(model.spec, 1), torch.tensor([0.5]))
    assert step_gflop(model) == counter.get_total_flops() / 1e9


def test_the_cost_of_a_matrix_product_is_two_operations_each() -> None:
    class Doubling(Denoiser):
        def __init__(self, spec: DataSpec) -> None:
            super().__init__(spec)
            self.matrix = torch.nn.Linear(5, 5, bias=False)

        def forward(self, noisy: torch.Tensor, time: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
            return self.matrix(noisy)

    assert step_gflop(Doubling(_spec("set"))) == 2 * 6 * 5 * 5 / 1e9


def test_parts_of_one_form_run_once_and_are_counted_each_time() -> None:
    ran: list[int] = []

    class Part(torch.nn.Module):
        def __init__(self, times: int) -> None:
            super().__init__()
            self.times, self.matrix = times, torch.nn.Linear(5, 5, bias=False)

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            ran.append(self.times)
            for _ in range(self.times):
                value = self.matrix(value)
            return value

    class Parts(Denoiser):
        def __init__(self, spec: DataSpec) -> None:
            super().__init__(spec)
            self.parts = torch.nn.ModuleList(Part(times) for times in (1, 1, 3, 1))

        def forward(self, noisy: torch.Tensor, time: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
            for number, part in enumerate(self.parts):
                noisy = part(noisy if number < 3 else noisy[:, :2])
            return noisy

    model = Parts(_spec("set"))
    assert step_gflop(model) == 2 * 25 * (6 * (1 + 1 + 3) + 2) / 1e9
    assert ran == [1, 3, 1], "the last has the form of the first and takes fewer rows"
    assert not any("forward" in vars(part) for part in model.parts)


def test_convolutions_of_every_form_are_counted_as_torch_counts_them() -> None:
    layers = torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3, stride=2, padding=1, dilation=2),
        torch.nn.ConvTranspose2d(4, 6, 3, stride=2),
        torch.nn.Conv2d(6, 4, (1, 3), padding="same", groups=2),
    )
    images = torch.zeros(2, 3, 17, 12)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        expected = layers(images)
    with CountedProducts() as counted, torch.no_grad():
        found = layers(images)
    assert counted.total == counter.get_total_flops()
    assert found.shape == expected.shape


def test_measuring_draws_no_random_numbers_and_needs_no_initial_values() -> None:
    before = torch.random.get_rng_state()
    cost = measure_model("splatdit", "tiny", SPRITES)
    with UnwrittenWeights():
        linear, norm = torch.nn.Linear(300, 300, bias=False), torch.nn.LayerNorm(4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert linear.weight.shape == (300, 300)
    assert norm.weight.tolist() == [1, 1, 1, 1]
    assert cost.parameters == sum(value.numel() for value in build_model("splatdit", "tiny", SPRITES).parameters())


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("gaussians", [1, 6])
def test_bfloat16_and_a_lone_gaussian_give_numbers(name: str, gaussians: int) -> None:
    spec = _spec(name, gaussians)
    model = awakened(ready_model(name, "tiny", spec))
    noisy, time = _input(spec), torch.tensor([0.0, 0.5, 1.0])
    label = torch.tensor([0, 1, 2]) if spec.classes else None
    exact = model(noisy, time, label)
    assert exact.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(noisy, time, label)
    assert rounded.dtype == torch.float32
    assert (rounded - exact).abs().mean() < 0.05 * exact.abs().mean() + 0.02
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        model(noisy, time, label).square().mean().backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in model.parameters())
    whole = model.eval().bfloat16()(noisy.bfloat16(), time, label)
    assert whole.dtype == torch.bfloat16
    assert whole.isfinite().all()


def _quickly_traced(name: str) -> dict[str, Any]:
    """As many blocks and levels as follow each other in another way: each takes as long to trace as the one before."""
    config = MODELS[name].presets["tiny"]
    if isinstance(config, PublishedConfig):
        return {"depth": 1}
    size = getattr(config, "size", None)
    changes: dict[str, Any] = {} if size is None else {"size": dataclasses.replace(size, depth=min(size.depth, 2))}
    return {**changes, "patch": 4} if isinstance(config, KpnConfig) else changes


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_it_can_be_compiled_as_one_graph(name: str) -> None:
    spec = _spec(name)
    model = awakened(ready_model(name, "tiny", spec, **_quickly_traced(name)))
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    noisy, time = _input(spec), torch.tensor([0.0, 0.5, 1.0])
    torch.testing.assert_close(compiled(noisy, time), model(noisy, time), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_the_weights_follow_from_the_seed_and_travel_in_the_state(name: str) -> None:
    spec = _spec(name)
    torch.manual_seed(3)
    one = ready_model(name, "tiny", spec)
    torch.manual_seed(3)
    two = ready_model(name, "tiny", spec)
    for first, second in zip(one.parameters(), two.parameters(), strict=True):
        assert torch.equal(first, second)
    awake = awakened(one)
    two.load_state_dict(awake.state_dict())
    noisy, time = _input(spec), torch.tensor([0.0, 0.5, 1.0])
    assert torch.equal(two.eval()(noisy, time), awake(noisy, time))


def test_bad_requests_say_what_is_allowed() -> None:
    with pytest.raises(JobError, match=r"model 'unet'.*splatdit, set"):
        build_model("unet", "tiny", SPRITES)
    with pytest.raises(JobError, match=r"preset 'huge' of model set.*tiny, small, medium, full"):
        build_model("set", "huge", SPRITES)
    with pytest.raises(JobError, match=r"pixel-unet looks at pixels, and the data is splats.*splatdit"):
        build_model("pixel-unet", "tiny", SPRITES)
    with pytest.raises(JobError, match=r"patch of model splatdit.*size, pack, anchored"):
        build_model("splatdit", "tiny", SPRITES, patch=4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gaussians": 0}, "gaussians = 0"),
        ({"features": 0}, "features = 0"),
        ({"height": 0}, "height = 0"),
        ({"classes": -1}, "classes = -1"),
        ({"anchors": ((0.0, 0.0),)}, "1 anchors for 12 Gaussians"),
    ],
)
def test_impossible_data_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(JobError, match=message):
        DataSpec(**{**vars(splat_spec()), **changes})


def _rows(page: Path, numbers: int) -> dict[tuple[str, str], list[str]]:
    """The numbers of each model and preset, from a table with one row a model and one column a preset."""
    cell = ", ".join([r"[\d.]+"] * numbers)
    rows = re.findall(rf"^\| `([\w-]+)` \|((?: {cell} \|){{4}})$", page.read_text(), re.MULTILINE)
    return {
        (name, preset): cell.strip().split(", ")
        for name, cells in rows
        for preset, cell in zip(PRESETS, cells.split("|")[:-1], strict=True)
    }


@pytest.mark.slow
def test_the_table_of_the_patch_models_is_what_is_counted(repository: Path, costs: Costs) -> None:
    rows = _rows(repository / "docs" / "cats.md", 3)
    assert list(rows) == [key for key in costs if key[0].startswith("cats-")]
    for (name, preset), written in rows.items():
        large = measure_model(name, preset, DataSpec("pixels", groups=1, height=64, width=64))
        counted = (large.parameters / 1e6, costs[name, preset].gflop, large.gflop)
        assert written == [f"{number:.2f}" for number in counted], (name, preset)


@pytest.mark.slow
def test_the_table_of_the_documentation_is_what_is_counted(repository: Path, costs: Costs) -> None:
    rows = _rows(repository / "docs" / "generators.md", 2)
    # The patch models have a table of their own (docs/cats.md).
    assert list(rows) == [key for key in costs if not key[0].startswith("cats-")]
    for key, written in rows.items():
        assert written == [f"{costs[key].parameters / 1e6:.2f}", f"{costs[key].gflop:.2f}"], key
