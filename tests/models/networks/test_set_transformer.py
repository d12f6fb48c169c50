"""Set transformers: equivariant under permutations, masks included; linear cost through inducing points."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from models.networks.set_transformer import SetTransformer
from models.registry import build_model, measure_model
from tests.models.small_networks import awakened, noise, splat_spec

NAMES = ["set", "set-induced"]


def _model(name: str, classes: int = 0) -> SetTransformer:
    model = awakened(build_model(name, "tiny", splat_spec(classes=classes)))
    assert isinstance(model, SetTransformer)
    return model


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("with_times", [False, True])
def test_a_permuted_set_gives_the_permuted_answer(name: str, with_times: bool) -> None:
    model = _model(name, classes=2)
    noisy, label = noise(3, 12, 6), torch.tensor([0, 1, 2])
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    time = noise(3, 12, 2).sigmoid() if with_times else noise(3).sigmoid()
    permuted_time = time[:, order] if with_times else time
    answer = model(noisy, time, label)
    torch.testing.assert_close(model(noisy[:, order], permuted_time, label), answer[:, order], atol=1e-5, rtol=1e-4)
    assert (answer[:, order] - answer).abs().max() > 0.01, "the answers differ between Gaussians at all"


@pytest.mark.parametrize("name", NAMES)
def test_the_same_under_masks(name: str) -> None:
    model = _model(name)
    noisy, time = noise(2, 12, 6), torch.tensor([0.2, 0.8])
    mask = torch.rand(2, 12, generator=torch.Generator().manual_seed(2)) < 0.6
    order = torch.randperm(12, generator=torch.Generator().manual_seed(3))
    answer = model(noisy, time, mask=mask)
    permuted = model(noisy[:, order], time, mask=mask[:, order])
    torch.testing.assert_close(permuted, answer[:, order], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_masked_gaussians_are_as_good_as_absent(name: str) -> None:
    model = _model(name)
    noisy, time = noise(1, 12, 6), torch.tensor([0.4])
    mask = torch.arange(12)[None] < 7
    answer = model(noisy, time, mask=mask)
    torch.testing.assert_close(answer[:, :7], model(noisy[:, :7], time), atol=1e-5, rtol=1e-4)
    assert answer[:, 7:].abs().max() == 0
    assert model(noisy, time, mask=torch.zeros(1, 12, dtype=torch.bool)).abs().max() == 0


@pytest.mark.parametrize("name", NAMES)
def test_gaussians_see_each_other(name: str) -> None:
    model = _model(name)
    noisy, time = noise(1, 12, 6), torch.tensor([0.4])
    changed = noisy.clone()
    changed[:, 0] += 1
    assert (model(changed, time) - model(noisy, time))[:, 1:].abs().amax(dim=-1).min() > 1e-6


@pytest.mark.slow
def test_through_inducing_points_the_cost_is_linear_in_k() -> None:
    costs = {
        name: [
            measure_model(name, "tiny", dataclasses.replace(splat_spec(), gaussians=count, anchors=None)).gflop
            for count in (1000, 2000, 3000)
        ]
        for name in NAMES
    }
    one, two, three = costs["set-induced"]
    assert three - two == pytest.approx(two - one, rel=1e-6)
    one, two, three = costs["set"]
    assert three - two > 1.3 * (two - one)
    assert costs["set-induced"][0] < 0.5 * costs["set"][0]


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns(name: str) -> None:
    model = _model(name, classes=2).train()
    model(noise(3, 12, 6), noise(3, 12, 2).sigmoid(), torch.tensor([0, 1, 2])).square().sum().backward()
    idle = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []
