from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data_schemas.errors import CheckpointError, JobError
from data_schemas.splats import LAYOUTS
from encoders.render import render
from models.diffusion.noise_times import TimeDraw
from models.diffusion.objective_settings import OBJECTIVES
from models.diffusion.objectives import Objective, build_objective
from models.diffusion.samplers import generators_for, sample
from models.diffusion.schedules import DiscretePath, StraightPath
from models.features.splats import SplatRepresentation
from tests.models.diffusion.closed_forms import Gaussian

GROUPS = (0, 0, 0, 0, 0, 1)


class Answer(nn.Module):
    """A network that is a function; it keeps what it was asked."""

    def __init__(self, function: Callable[[Tensor, Tensor, Tensor | None], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.asked: list[tuple[Tensor, Tensor, Tensor | None]] = []

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        self.asked.append((noisy.detach(), time, label))
        return self.function(noisy, time, label)


def _data(images: int = 8, gaussians: int = 5) -> Tensor:
    return torch.randn(images, gaussians, 6, generator=torch.Generator().manual_seed(3))


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _share(objective: Objective, time: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    path = objective.training_path
    return objective.spread(path.signal(time), like), objective.spread(path.noise(time), like)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_who_knows_the_data_has_no_loss(name: str) -> None:
    objective, clean = build_objective(name, groups=GROUPS), _data()

    def oracle(noisy: Tensor, time: Tensor, _: Tensor | None) -> Tensor:
        signal, share = _share(objective, time, noisy)
        noise = (noisy - signal * clean) / share.clamp_min(1e-6)
        return {"clean": clean, "velocity": clean - noise, "epsilon": noise}[objective.settings.target]

    loss = objective.loss(Answer(oracle), clean, None, _generator())
    assert loss.shape == (8,)
    assert loss.max() < 1e-5
    assert objective.loss(Answer(lambda noisy, *_: 0 * noisy), clean, None, _generator()).min() > 0.1


@pytest.mark.parametrize("name", ["flow-velocity", "epsilon"])
def test_answers_of_every_kind_say_the_same(name: str) -> None:
    reference, other = build_objective("flow-clean"), build_objective(name, clean_limit=0.0)
    noisy, time = _data(), torch.linspace(0.05, 0.95, 8)
    expected = reference.predict(Gaussian(reference, 0.3, 0.8), noisy, time)
    found = other.predict(Gaussian(other, 0.3, 0.8), noisy, time)
    torch.testing.assert_close(found.clean, expected.clean, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.noise, expected.noise, rtol=1e-4, atol=1e-4)
    # Both ends put together are the point between them.
    between = time[:, None, None] * found.clean + (1 - time[:, None, None]) * found.noise
    torch.testing.assert_close(between, noisy, rtol=1e-4, atol=1e-4)


def test_the_loss_of_clean_data_is_that_of_the_velocity() -> None:
    # Times whose noise is above the floor; the same wrong guess of the clean data.
    settings: dict[str, Any] = {"group_times": 0.0, "time_mean": -1.5, "time_deviation": 0.3}
    clean_loss = build_objective("flow-clean", **settings).loss(
        Answer(lambda noisy, *_: 0.5 * noisy), _data(), None, _generator()
    )
    velocity_loss = build_objective("flow-velocity", **settings).loss(
        Answer(lambda noisy, time, _: -0.5 * noisy / (1 - time[:, None, None])), _data(), None, _generator()
    )
    torch.testing.assert_close(clean_loss, velocity_loss)


def test_near_clean_data_the_loss_stays_finite() -> None:
    objective = build_objective("flow-clean", group_times=0.0, time_mean=9.0)
    loss = objective.loss(Answer(lambda noisy, *_: noisy + 1), _data(), None, _generator())
    assert 300 < float(loss.mean()) < 410


@pytest.mark.parametrize("anchored", [True, False])
def test_half_of_the_images_have_parts_with_times_of_their_own(anchored: bool) -> None:
    anchors = torch.rand(9, 2, generator=_generator()) * 2 - 1
    draw = TimeDraw(StraightPath(), -0.4, 1.0, 0.5, 2, anchors if anchored else None)
    times = draw(4000, 9, _generator())
    assert times.shape == (4000, 9, 2)
    shared = (times == times[:, :1, :1]).flatten(1).all(dim=1)
    given = (times == 1).flatten(1).any(dim=1)
    assert float(shared.float().mean()) == pytest.approx(0.5, abs=0.06)
    assert float((~shared & ~given).float().mean()) == pytest.approx(0.25, abs=0.03)
    assert not (times == 1).flatten(1).all(dim=1).any()
    only_geometry = (times[given] == 1).all(dim=1) == torch.tensor([True, False])
    only_colour = (times[given] == 1).all(dim=1) == torch.tensor([False, True])
    assert float(only_geometry.all(dim=1).float().mean()) > 0.2
    assert float(only_colour.all(dim=1).float().mean()) > 0.2
    # What is not given of an image shares one time.
    rest = torch.where(times[given] == 1, torch.nan, times[given]).flatten(1)
    assert float((rest.nan_to_num(-1).amax(1) - rest.nan_to_num(2).amin(1)).abs().max()) == 0
    assert float(torch.logit(times[shared][:, 0, 0]).mean()) == pytest.approx(-0.4, abs=0.1)


def test_what_is_outside_a_box_is_given() -> None:
    anchors = torch.rand(64, 2, generator=_generator()) * 2 - 1
    times = TimeDraw(StraightPath(), -0.4, 1.0, 1.0, 2, anchors)(2000, 64, _generator())
    given = (times == 1).all(dim=2)
    boxes = given.any(dim=1)
    assert boxes.sum() > 200
    for row in torch.nonzero(boxes).flatten().tolist():
        inside = anchors[~given[row]]
        low, high = inside.amin(dim=0), inside.amax(dim=0)
        assert not ((anchors[given[row]] >= low) & (anchors[given[row]] <= high)).all(dim=1).any()


def test_discrete_times_are_all_steps_but_the_clean_one() -> None:
    path = DiscretePath("cosine", 4)
    times = TimeDraw(path, 0.0, 1.0, 0.0, 2)(4000, 7, _generator())
    assert path.step(times).bincount().tolist()[0] == 0
    assert (path.step(times).bincount()[1:].float() / 4000 - 0.25).abs().max() < 0.03


def test_given_parts_reach_the_network_clean_and_do_not_count() -> None:
    objective, clean = build_objective("flow-clean", groups=GROUPS, group_times=1.0), _data(200)
    given: list[Tensor] = []

    def wrong_where_given(noisy: Tensor, time: Tensor, _: Tensor | None) -> Tensor:
        given.append(objective.spread(time, noisy).expand_as(noisy) == 1)
        assert torch.equal(noisy[given[-1]], clean[given[-1]])
        return torch.where(given[-1], clean + 7, clean)

    loss = objective.loss(Answer(wrong_where_given), clean, None, _generator())
    assert given[0].any()
    assert loss.max() == 0
    wrong = objective.loss(Answer(lambda noisy, *_: torch.where(given[0], clean, clean + 7)), clean, None, _generator())
    assert wrong.min() > 49


def test_labels_are_withheld_at_their_rate_and_unknown_ones_always() -> None:
    objective = build_objective("flow-clean", classes=3, group_times=0.0)
    network, label = Answer(lambda noisy, *_: noisy), torch.arange(4000) % 4 - 1
    objective.loss(network, _data(4000, 1), label, _generator())
    seen = network.asked[0][2]
    assert seen is not None
    assert (seen[label < 0] == 3).all()
    known = label >= 0
    assert float((seen[known] == 3).float().mean()) == pytest.approx(0.1, abs=0.02)
    assert torch.equal(seen[known & (seen != 3)], label[known & (seen != 3)])
    unlabelled = build_objective("flow-clean")
    unlabelled.loss(network, _data(), torch.zeros(8, dtype=torch.int64), _generator())
    assert network.asked[1][2] is None


@pytest.mark.parametrize("guidance", [0.0, 1.0, 2.5])
def test_guidance_moves_from_the_answer_without_label_through_that_with_it(guidance: float) -> None:
    def by_label(noisy: Tensor, _: Tensor, label: Tensor | None) -> Tensor:
        assert label is not None
        return torch.where(label == 3, 10.0, label.float())[:, None, None].expand_as(noisy)

    objective = build_objective("flow-clean", classes=3)
    label = torch.tensor([0, 1, 2, -1])
    clean = objective.clean(Answer(by_label), _data(4), torch.full((4,), 0.5), label, guidance)
    expected = 10 + guidance * (torch.tensor([0.0, 1, 2, 10]) - 10)
    torch.testing.assert_close(clean[:, 0, 0], expected)


def test_the_loss_in_image_space_reaches_the_network() -> None:
    layout = LAYOUTS["grey"]
    generator = _generator(5)
    splats = torch.rand(8, 4, 6, generator=generator) * 0.5 + 0.2
    representation = SplatRepresentation(layout=layout, gaussians=4).fit([splats])
    images = render(splats, layout, "additive/1", 8, 8)
    network = nn.Linear(6, 6)
    objective = build_objective("flow-clean", groups=representation.groups, group_times=0.0, time_mean=1.0)

    def compare(clean: Tensor, rows: Tensor) -> Tensor:
        drawn = render(representation.decode(clean, clamp=False), layout, "additive/1", 8, 8, clip=False)
        return (drawn - images[rows]).abs().mean(dim=(1, 2, 3))

    def gradient(render_loss: Any) -> Tensor:
        network.zero_grad()
        model = Answer(lambda noisy, *_: network(noisy))
        features = representation.encode(splats)
        objective.loss(model, features, None, _generator(), render_loss=render_loss).mean().backward()
        assert network.weight.grad is not None
        return network.weight.grad.clone()

    difference = gradient(compare) - gradient(None)
    # Every feature of a splat changes its image.
    assert (difference.abs().amax(dim=1) > 1e-5).all()
    assert torch.equal(gradient(lambda clean, rows: compare(clean, rows).detach()), gradient(None))


def test_the_loss_in_image_space_is_of_the_less_noisy_half() -> None:
    objective = build_objective("flow-clean", group_times=0.0, time_mean=0.0)
    rows_seen: list[Tensor] = []

    def once(clean: Tensor, rows: Tensor) -> Tensor:
        rows_seen.append(rows)
        return torch.ones(len(clean))

    network = Answer(lambda noisy, *_: noisy)
    plain = objective.loss(network, _data(200), None, _generator())
    added = objective.loss(network, _data(200), None, _generator(), render_loss=once) - plain
    time = network.asked[1][1]
    assert torch.equal(rows_seen[0], torch.nonzero(time > 0.5).flatten())
    torch.testing.assert_close(added, torch.where(time > 0.5, time, 0.0), rtol=0, atol=2e-3)


def test_a_seed_decides_a_loss() -> None:
    objective = build_objective("flow-clean", groups=GROUPS, classes=2)
    network, label = Answer(lambda noisy, *_: 0.3 * noisy), torch.arange(8) % 2
    losses = [objective.loss(network, _data(), label, _generator(seed)) for seed in (1, 1, 2)]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


@pytest.mark.slow
def test_what_the_published_mismatch_of_schedules_costs_can_be_computed() -> None:
    def moments(sampling: str) -> tuple[float, float]:
        objective = build_objective("published", sampling_path=sampling)
        network = Gaussian(objective, 0.5, 0.3, path=objective.training_path)
        made = sample(objective, network, (400, 1, 4), generators=generators_for(0, 400))
        return float(made.mean()), float(made.std())

    assert build_objective("published").settings.training_path == "cosine"
    assert build_objective("published").settings.sampling_path == "linear"
    mean, deviation = moments("cosine")
    assert mean == pytest.approx(0.5, abs=0.03)
    assert deviation == pytest.approx(0.3, abs=0.03)
    # The best possible network for the cosine tables, sampled as published.
    mismatched = moments("linear")
    assert mismatched[0] == pytest.approx(0.47, abs=0.005)
    assert abs(mismatched[0] - 0.5) + abs(mismatched[1] - 0.3) > 3 * (abs(mean - 0.5) + abs(deviation - 0.3))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_configuration_rebuilds_the_objective(name: str) -> None:
    objective = build_objective(name, groups=GROUPS, classes=4, steps=77)
    again = Objective.from_config(json.loads(json.dumps(objective.config())))
    assert again.settings == objective.settings
    assert (again.groups, again.classes) == (GROUPS, 4)


def test_settings_that_were_withdrawn_are_read_over_where_they_were_zero() -> None:
    config = {**build_objective("flow-clean").config(), "rendering_weight": 0.0}
    assert Objective.from_config(config).settings == build_objective("flow-clean").settings
    with pytest.raises(CheckpointError, match="rendering_weight"):
        Objective.from_config({**config, "rendering_weight": 0.3})


def test_unknown_objectives_are_refused() -> None:
    with pytest.raises(JobError, match="flow-clean"):
        build_objective("score")
    with pytest.raises(JobError, match="wavelength"):
        build_objective("epsilon", wavelength=3)
    with pytest.raises(CheckpointError, match="groups"):
        Objective.from_config({"name": "flow-clean"})
