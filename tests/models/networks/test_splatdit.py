"""SplatDiT: packing by locality, slot identity, times per Gaussian, and what may not change an answer."""

from __future__ import annotations

import math

import pytest
import torch

from data_schemas.errors import JobError
from models.base import DataSpec
from models.networks.splatdit import SplatDiT
from models.networks.trunk import Packing, default_pack, locality_order
from models.registry import build_model
from tests.models.small_networks import awakened, grid_anchors, noise, splat_spec


@pytest.mark.parametrize(("gaussians", "pack"), [(1, 1), (2, 2), (36, 2), (70, 2), (150, 3), (200, 4), (500, 10)])
def test_the_default_packing_leaves_about_fifty_tokens(gaussians: int, pack: int) -> None:
    assert default_pack(gaussians) == pack


def test_neighbours_share_a_token() -> None:
    points = grid_anchors(8, 8)
    order = locality_order(points, 64, 4)
    assert sorted(order) == list(range(64))
    for first in range(0, 64, 4):
        members = [points[index] for index in order[first : first + 4]]
        widest = max(math.dist(one, other) for one in members for other in members)
        assert widest == pytest.approx(math.hypot(0.25, 0.25)), "four in a square of two by two"


def test_the_order_follows_from_the_anchors_alone() -> None:
    points = grid_anchors(5, 5)
    order = locality_order(points, 25, 3)
    shuffled = [7, *range(7), *range(8, 25)]
    again = locality_order(tuple(points[index] for index in shuffled), 25, 3)
    tokens = {frozenset(points[index] for index in order[first : first + 3]) for first in range(0, 25, 3)}
    assert tokens == {
        frozenset(points[shuffled[index]] for index in again[first : first + 3]) for first in range(0, 25, 3)
    }
    assert locality_order(None, 4, 3) == [0, 1, 2, 3]


@pytest.mark.parametrize("pack", [1, 2, 3, 5, 25])
def test_packing_and_back_changes_nothing_and_pads_with_zeros(pack: int) -> None:
    packing = Packing(grid_anchors(5, 5), 25, pack)
    value = noise(2, 25, 3)
    tokens = packing.enter(value)
    assert tokens.shape == (2, math.ceil(25 / pack), pack, 3)
    assert torch.equal(packing.leave(tokens), value)
    assert tokens.flatten(1, 2)[:, 25:].abs().sum() == 0


def test_an_impossible_packing_is_refused() -> None:
    with pytest.raises(JobError, match="13 Gaussians per token for K = 12"):
        build_model("splatdit", "tiny", splat_spec(), pack=13)


def test_an_untrained_network_answers_zero() -> None:
    model = build_model("splatdit", "tiny", splat_spec())
    assert model(noise(2, 12, 6), torch.rand(2)).abs().max() == 0


def test_a_slot_is_known_by_its_index() -> None:
    model = awakened(build_model("splatdit", "tiny", splat_spec()))
    noisy, time = noise(2, 12, 6), torch.full((2,), 0.3)
    turned = torch.arange(12).roll(5)
    assert (model(noisy[:, turned], time) - model(noisy, time)[:, turned]).abs().max() > 0.01


def test_a_slot_is_known_by_the_place_of_its_anchor() -> None:
    spec = splat_spec()
    assert spec.anchors is not None
    model = awakened(build_model("splatdit", "tiny", spec))
    moved = DataSpec(**{**vars(spec), "anchors": tuple((x * 0.5, y * 0.5) for x, y in spec.anchors)})
    elsewhere = build_model("splatdit", "tiny", moved)
    elsewhere.load_state_dict(model.state_dict())
    noisy, time = noise(2, 12, 6), torch.full((2,), 0.3)
    assert (model(noisy, time) - elsewhere.eval()(noisy, time)).abs().max() > 1e-3
    alone = awakened(build_model("splatdit", "tiny", moved, anchored=False))
    assert isinstance(alone, SplatDiT)
    assert alone.anchor_enter is None
    assert alone(noisy, time).isfinite().all()


def test_one_time_per_sample_is_the_same_time_for_every_gaussian() -> None:
    model = awakened(build_model("splatdit", "tiny", splat_spec()))
    noisy, time = noise(3, 12, 6), torch.tensor([0.0, 0.4, 1.0])
    spread = time[:, None, None].expand(-1, 12, 2)
    torch.testing.assert_close(model(noisy, spread), model(noisy, time), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("group", [0, 1])
def test_which_gaussian_and_which_group_of_a_token_is_known_is_seen(group: int) -> None:
    # The two Gaussians of one token swap their times: the mean over the token stays.
    model = awakened(build_model("splatdit", "tiny", splat_spec()))
    assert isinstance(model, SplatDiT)
    first, second = model.packing.order[:2].tolist()
    times = torch.full((1, 12, 2), 0.3)
    one, other = times.clone(), times.clone()
    one[:, first, group], other[:, second, group] = 1.0, 1.0
    noisy = noise(1, 12, 6)
    assert (model(noisy, one) - model(noisy, other)).abs().max() > 1e-3
    assert (model(noisy, one) - model(noisy, times)).abs().max() > 1e-3


def test_labels_and_the_lack_of_one() -> None:
    model = awakened(build_model("splatdit", "tiny", splat_spec(classes=3)))
    noisy, time = noise(1, 12, 6).expand(4, -1, -1), torch.full((4,), 0.3)
    answers = model(noisy, time, torch.arange(4))
    for one in range(4):
        for other in range(one):
            assert (answers[one] - answers[other]).abs().max() > 1e-3
    torch.testing.assert_close(model(noisy, time)[0], answers[3])


@pytest.mark.parametrize("with_times", [False, True])
def test_an_answer_does_not_depend_on_the_rest_of_its_batch(with_times: bool) -> None:
    model = awakened(build_model("splatdit", "tiny", splat_spec()))
    noisy = noise(5, 12, 6)
    time = noise(5, 12, 2).sigmoid() if with_times else noise(5).sigmoid()
    torch.testing.assert_close(model(noisy[3:4], time[3:4])[0], model(noisy, time)[3], atol=1e-5, rtol=1e-4)


def test_every_weight_learns() -> None:
    model = awakened(build_model("splatdit", "tiny", splat_spec(classes=3))).train()
    label = torch.tensor([0, 1, 2, 3])
    model(noise(4, 12, 6), noise(4, 12, 2).sigmoid(), label).square().sum().backward()
    idle = [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


def test_padding_of_the_last_token_leaves_no_trace() -> None:
    spec = splat_spec(columns=7, rows=1)
    model = awakened(build_model("splatdit", "tiny", spec, pack=3))
    assert isinstance(model, SplatDiT)
    assert model.packing.tokens == 3
    answer = model(noise(2, 7, 6), torch.rand(2))
    assert answer.shape == (2, 7, 6)
    assert answer.abs().amin(dim=(0, 2)).min() > 0, "every Gaussian has an answer of its own"


def test_the_network_has_no_bias() -> None:
    model = build_model("splatdit", "tiny", splat_spec())
    assert [name for name, _ in model.named_parameters() if name.endswith("bias")] == []


@pytest.mark.slow
def test_it_learns_which_slot_it_is() -> None:
    # The clean value of a slot is a function of its index alone: a set cannot know it, this network must.
    torch.manual_seed(0)
    spec = splat_spec(columns=3, rows=3, features=2)
    model = build_model("splatdit", "tiny", spec)
    target = noise(9, 2, seed=5)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for step in range(40):
        noisy = noise(16, 9, 2, seed=step)
        loss = (model(noisy, torch.zeros(16)) - target).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]
