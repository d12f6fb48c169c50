"""The published network: its size and cost to the digit, and its defects, each shown."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from data_schemas.errors import JobError
from models.base import DataSpec
from models.networks.published import PublishedConfig, PublishedTransformer, TimeSiren
from models.registry import build_model, measure_model
from tests.models.small_networks import noise, splat_spec

SPRITES = DataSpec("splats", gaussians=150, features=8)


def _small(**changes: int) -> PublishedTransformer:
    torch.manual_seed(0)
    model = build_model("published", "tiny", splat_spec(**changes), depth=2)
    assert isinstance(model, PublishedTransformer)
    return model


@pytest.mark.slow
def test_parameters_and_cost_are_the_published_ones() -> None:
    cost = measure_model("published", "full", SPRITES)
    assert cost.parameters == 51_486_472
    assert round(cost.parameters / 1e6, 2) == 51.49
    assert round(cost.gflop, 2) == 15.79


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "gaussians", "features", "millions", "gflop"),
    # MNIST's rows: 7.28 GFLOP with 8 blocks, 14.40 with 16.
    [(6, 150, 8, 38.88, 11.92), (8, 70, 7, None, 7.28), (16, 70, 7, 101.9, 14.40), (32, 200, 8, 202.7, 83.58)],
)
def test_other_published_sizes_follow(
    depth: int, gaussians: int, features: int, millions: float | None, gflop: float
) -> None:
    cost = measure_model("published", "full", DataSpec("splats", gaussians, features), depth=depth)
    assert cost.gflop == pytest.approx(gflop, abs=0.005)
    if millions is not None:
        assert cost.parameters / 1e6 == pytest.approx(millions, abs=0.005 if millions < 100 else 0.05)


def test_the_breakdown_of_the_parameters() -> None:
    with torch.device("meta"):
        model = PublishedTransformer(SPRITES, PublishedConfig(width=512, depth=8))
    counts = {name: sum(weight.numel() for weight in part.parameters()) for name, part in model.named_children()}
    assert counts == {"time": 3_464, "enter": 1_064_960, "blocks": 8 * 6_301_184, "leave": 8_576}


@pytest.mark.slow
def test_heads_change_no_count() -> None:
    assert (
        measure_model("published", "full", SPRITES, heads=64).parameters
        == measure_model("published", "full", SPRITES).parameters
    )


def test_in_training_an_answer_depends_on_its_batch_and_in_evaluation_not() -> None:
    model = _small()
    noisy, time = noise(4, 12, 6), torch.rand(4)
    assert (model.train()(noisy, time)[:2] - model(noisy[:2], time[:2])).abs().max() > 1e-3
    model.eval()
    torch.testing.assert_close(model(noisy, time)[:2], model(noisy[:2], time[:2]), atol=1e-5, rtol=1e-4)


def test_it_is_equivariant_in_evaluation() -> None:
    model = _small().eval()
    noisy, time = noise(2, 12, 6), torch.rand(2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(noisy[:, order], time), model(noisy, time)[:, order], atol=1e-5, rtol=1e-4)


def test_the_last_activation_cuts_off_what_is_negative() -> None:
    model = _small().eval()
    nn.init.zeros_(model.leave.shortcut.weight)
    assert model.leave.shortcut.bias is not None
    nn.init.zeros_(model.leave.shortcut.bias)
    assert model(100 * noise(4, 12, 6), torch.rand(4)).min() >= -0.17, "the lowest value of a GELU"


def test_time_is_added_to_the_data_once_and_runs_backwards() -> None:
    model = _small().eval()
    noisy, time = noise(2, 12, 6), torch.tensor([0.25, 1.0])
    shifted = noisy + model.time(1 - time[:, None])
    silent = _small().eval()
    for weight in silent.time.parameters():
        nn.init.zeros_(weight)
    torch.testing.assert_close(model(noisy, time), silent(shifted, time), atol=1e-5, rtol=1e-4)


def test_the_time_passes_through_a_sine() -> None:
    siren = TimeSiren(3)
    nn.init.constant_(siren.enter.weight, 2 * torch.pi)
    torch.testing.assert_close(siren(torch.tensor(0.0)), siren(torch.tensor(1.0)), atol=1e-5, rtol=1e-4)
    assert (siren(torch.tensor(0.0)) - siren(torch.tensor(0.25))).abs().max() > 1e-4


def test_times_per_gaussian_are_accepted() -> None:
    model = _small().eval()
    noisy, time = noise(2, 12, 6), torch.tensor([0.25, 0.75])
    spread = time[:, None, None].expand(-1, 12, 2)
    torch.testing.assert_close(model(noisy, spread), model(noisy, time), atol=1e-6, rtol=1e-5)


def test_labels_are_refused_with_a_way_out() -> None:
    with pytest.raises(JobError, match=r"10 classes.*--no-classes"):
        build_model("published", "tiny", splat_spec(classes=10))
