from __future__ import annotations

import itertools
import math
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from data_schemas.errors import JobError, SamplingError
from models.diffusion.objectives import Objective, build_objective
from models.diffusion.samplers import SAMPLERS, generators_for, sample, steps_of
from tests.models.diffusion.closed_forms import Correlated, Gaussian, Mixture

MEAN, DEVIATION = 0.4, 0.6
FLOWS = ("flow-clean", "flow-velocity", "epsilon")


def _noise(seed: int, count: int, shape: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randn(shape, generator=each) for each in generators_for(seed, count)])


def _exact(objective: Objective, noise: Tensor) -> Tensor:
    """Where the flow of a Gaussian takes each point, without any steps."""
    first = torch.tensor(objective.sampling_path.times(1)[0], dtype=torch.float64)
    signal, share = float(objective.sampling_path.signal(first)), float(objective.sampling_path.noise(first))
    scale = math.sqrt(signal**2 * DEVIATION**2 + share**2)
    return MEAN + DEVIATION * (noise - signal * MEAN) / scale


def _errors(objective: Objective, sampler: str, evaluations: tuple[int, ...]) -> list[float]:
    network, noise = Gaussian(objective, MEAN, DEVIATION), _noise(0, 16, (2, 3))
    exact = _exact(objective, noise)
    return [
        float(
            (
                sample(
                    objective,
                    network,
                    (16, 2, 3),
                    generators=generators_for(0, 16),
                    sampler=sampler,
                    evaluations=count,
                )
                - exact
            )
            .abs()
            .max()
        )
        for count in evaluations
    ]


@pytest.mark.parametrize("name", FLOWS)
@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("ddim", 1), ("heun", 2), ("dpmpp-2m", 1.8)])
def test_errors_fall_by_the_order_of_the_sampler(name: str, sampler: str, order: float) -> None:
    evaluations = (63, 127, 255) if sampler == "heun" else (64, 128, 256)
    errors = _errors(build_objective(name), sampler, evaluations)
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(2**order, rel=0.1)


def test_dpm_solver_is_of_second_order_up_to_where_its_logarithm_leaps() -> None:
    objective, errors = build_objective("flow-clean"), []
    noise = _noise(0, 16, (2, 3))
    variance = 0.75**2 * DEVIATION**2 + 0.25**2
    for evaluations in (16, 32, 64):
        states: dict[float, Tensor] = {}
        sample(
            objective,
            Gaussian(objective, MEAN, DEVIATION),
            (16, 2, 3),
            generators=generators_for(0, 16),
            sampler="dpmpp-2m",
            evaluations=evaluations,
            trajectory=lambda _, time, noisy, clean, states=states: states.update({time: noisy}),
        )
        errors.append(float((states[0.75] - (0.75 * MEAN + math.sqrt(variance) * noise)).abs().max()))
    for coarse, fine in itertools.pairwise(errors):
        assert coarse / fine == pytest.approx(4, rel=0.2)


def test_second_order_needs_fewer_evaluations() -> None:
    objective = build_objective("flow-clean")
    errors = {sampler: _errors(objective, sampler, (20,))[0] for sampler in ("euler", "heun", "dpmpp-2m")}
    assert errors["dpmpp-2m"] < errors["euler"] / 5
    assert errors["heun"] < errors["euler"] / 5


@pytest.mark.parametrize("name", [*FLOWS, "ddpm-cosine", "ddpm-linear"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finds_the_moments_of_a_gaussian(name: str, sampler: str) -> None:
    objective = build_objective(name)
    network = Gaussian(objective, MEAN, DEVIATION)
    made = sample(objective, network, (200, 5, 4), generators=generators_for(1, 200), sampler=sampler, evaluations=100)
    # Three standard errors of 4,000 numbers, and what 100 steps leave.
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.045)
    assert float(made.std()) == pytest.approx(DEVIATION, abs=0.045)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow-clean", "flow-velocity", "ddpm-cosine"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_finds_both_halves_of_a_mixture(name: str, sampler: str) -> None:
    objective = build_objective(name)
    made = sample(
        objective,
        Mixture(objective, 1.5, 0.2),
        (200, 5, 4),
        generators=generators_for(2, 200),
        sampler=sampler,
        evaluations=150,
    )
    assert float((made > 0).float().mean()) == pytest.approx(0.5, abs=0.03)
    assert float(made.abs().mean()) == pytest.approx(1.5, abs=0.03)
    assert float((made.abs() - 1.5).std()) == pytest.approx(0.2, abs=0.03)


@pytest.mark.slow
def test_the_published_recipe_with_one_schedule_finds_the_moments() -> None:
    objective = build_objective("published", sampling_path="cosine")
    made = sample(objective, Gaussian(objective, MEAN, DEVIATION), (300, 5, 4), generators=generators_for(3, 300))
    assert float(made.mean()) == pytest.approx(MEAN, abs=0.04)
    assert float(made.std()) == pytest.approx(DEVIATION, abs=0.04)


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("evaluations", [1, 2, 5, 6])
def test_the_last_step_returns_the_prediction(sampler: str, evaluations: int) -> None:
    objective = build_objective("flow-clean")
    asked = 0
    seen: list[tuple[int, float, Tensor, Tensor]] = []

    class Counted(Gaussian):
        def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
            nonlocal asked
            asked += 1
            return super().forward(noisy, time, label)

    made = sample(
        objective,
        Counted(objective, MEAN, DEVIATION),
        (3, 2, 3),
        generators=generators_for(0, 3),
        sampler=sampler,
        evaluations=evaluations,
        trajectory=lambda *each: seen.append(each),
    )
    assert torch.equal(seen[-1][3], made)
    assert len(seen) == steps_of(sampler, evaluations)
    assert asked == (evaluations - (evaluations + 1) % 2 if sampler == "heun" else evaluations)
    assert [number for number, *_ in seen] == list(range(len(seen)))
    assert seen[0][1] == 0
    torch.testing.assert_close(seen[0][2], _noise(0, 3, (2, 3)))


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_sample_does_not_depend_on_its_batch(sampler: str) -> None:
    objective, settings = build_objective("flow-clean"), {"sampler": sampler, "evaluations": 9}
    network = Gaussian(objective, MEAN, DEVIATION)
    batch = sample(objective, network, (5, 2, 3), generators=generators_for(7, 5), **settings)
    alone = sample(objective, network, (1, 2, 3), generators=generators_for(7, 1, first=3), **settings)
    assert torch.equal(batch[3], alone[0])
    assert len({tuple(row.flatten().tolist()) for row in batch}) == 5
    other = sample(objective, network, (5, 2, 3), generators=generators_for(8, 5), **settings)
    assert not torch.equal(batch, other)


@pytest.mark.parametrize("name", ["flow-clean", "published", "ddpm-cosine"])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_known_stays_exactly(name: str, sampler: str) -> None:
    objective = build_objective(name, groups=(0, 0, 1))
    known = torch.randn(4, 5, 3, generator=torch.Generator().manual_seed(0))
    keep = torch.zeros(4, 5, 2, dtype=torch.bool)
    keep[0, :3], keep[1, :, 0], keep[2] = True, True, True
    made = sample(
        objective,
        Gaussian(objective, MEAN, DEVIATION),
        (4, 5, 3),
        generators=generators_for(0, 4),
        sampler=sampler,
        evaluations=7,
        known=known,
        keep=keep,
    )
    mask = objective.spread(keep, made)
    assert torch.equal(made[mask], known[mask])
    assert (made[~mask] != known[~mask]).all()


def test_known_pixels_stay_exactly() -> None:
    objective = build_objective("flow-clean")
    known, keep = torch.randn(2, 3, 4, 4), torch.rand(2, 1, 4, 4) > 0.5
    made = sample(
        objective,
        Gaussian(objective, MEAN, DEVIATION),
        (2, 3, 4, 4),
        generators=generators_for(0, 2),
        known=known,
        keep=keep,
    )
    mask = keep.expand_as(made)
    assert torch.equal(made[mask], known[mask])


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_unknown_part_follows_from_the_known_one(sampler: str) -> None:
    # Second feature given the first: mean 0.8 times it, variance 1 - 0.8^2.
    objective = build_objective("flow-clean", groups=(0, 1))
    known = torch.tensor([1.5, 0.0])[None, None].expand(400, 6, 2)
    keep = torch.tensor([True, False]).expand(400, 6, 2)
    made = sample(
        objective,
        Correlated(objective, 0.8),
        (400, 6, 2),
        generators=generators_for(4, 400),
        sampler=sampler,
        evaluations=60,
        known=known,
        keep=keep,
    )[..., 1]
    assert float(made.mean()) == pytest.approx(1.2, abs=0.04)
    assert float(made.std()) == pytest.approx(0.6, abs=0.03)


class _Labelled(nn.Module):
    """Clean data are the label."""

    def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
        assert label is not None
        return label.float()[:, None, None].expand_as(noisy)


def test_guidance_takes_the_labelled_prediction_beyond_the_unlabelled_one() -> None:
    objective, network = build_objective("flow-clean", classes=5), _Labelled()
    full = sample(
        objective,
        network,
        (2, 3, 4),
        generators=generators_for(0, 2),
        label=torch.tensor([1, 2]),
        guidance=3.0,
    )
    assert full[:, 0, 0].tolist() == [5 + 3 * (1 - 5), 5 + 3 * (2 - 5)]


def test_a_start_replaces_the_noise_of_the_generators() -> None:
    objective = build_objective("flow-clean")
    network, start = Gaussian(objective, MEAN, DEVIATION), _noise(11, 3, (2, 3))
    one = sample(objective, network, (3, 2, 3), generators=generators_for(0, 3), start=start)
    assert torch.equal(one, sample(objective, network, (3, 2, 3), generators=generators_for(11, 3)))


def test_batch_normalisation_is_in_evaluation_mode_and_put_back() -> None:
    modes: list[bool] = []

    class Network(Gaussian):
        def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
            modes.append(self.training)
            return super().forward(noisy, time, label)

    objective = build_objective("flow-clean")
    network = Network(objective, MEAN, DEVIATION).train()
    sample(objective, network, (1, 2, 3), generators=generators_for(0, 1), evaluations=2)
    assert modes == [False, False]
    assert network.training


@pytest.mark.slow
def test_the_objective_says_how_it_is_sampled_by_default() -> None:
    asked: list[float] = []

    class Network(Gaussian):
        def forward(self, noisy: Tensor, time: Tensor, label: Tensor | None = None) -> Tensor:
            asked.append(float(time[0]))
            return super().forward(noisy, time, label)

    for name, evaluations in (("flow-clean", 20), ("published", 200), ("ddpm-cosine", 50)):
        objective = build_objective(name)
        asked.clear()
        sample(objective, Network(objective, MEAN, DEVIATION), (1, 1, 1), generators=generators_for(0, 1))
        assert len(asked) == evaluations


@pytest.mark.slow
def test_the_errors_on_the_page_are_what_is_measured(repository: Path) -> None:
    page = (repository / "docs" / "generators.md").read_text()
    objective = build_objective("flow-clean")
    network = Mixture(objective, 1.0, 0.2)

    def made(sampler: str, evaluations: int) -> Tensor:
        return sample(
            objective,
            network,
            (64, 4, 4),
            generators=generators_for(0, 64),
            sampler=sampler,
            evaluations=evaluations,
        )

    exact = made("heun", 2001)
    for sampler in ("euler", "heun", "dpmpp-2m"):
        row = re.search(rf"^\| `{sampler}`[^|]*\|((?: 0\.\d+ \|)+)$", page, re.MULTILINE)
        assert row is not None
        written = [float(cell) for cell in row[1].split("|")[:-1]]
        measured = [float((made(sampler, count) - exact).square().mean().sqrt()) for count in (5, 10, 20, 50)]
        assert written == pytest.approx(measured, abs=6e-4)


def test_what_cannot_be_sampled_is_refused_in_words() -> None:
    objective = build_objective("flow-clean")
    network, one = Gaussian(objective, MEAN, DEVIATION), generators_for(0, 1)
    known = torch.zeros(1, 2, 3)
    with pytest.raises(JobError, match="rk45"):
        sample(objective, network, (1, 2, 3), generators=one, sampler="rk45")
    with pytest.raises(JobError, match="0 evaluations"):
        sample(objective, network, (1, 2, 3), generators=one, evaluations=0)
    with pytest.raises(JobError, match="1 to 200"):
        sample(build_objective("published"), network, (1, 2, 3), generators=one, evaluations=201)
    with pytest.raises(SamplingError, match="1 generators for 2"):
        sample(objective, network, (2, 2, 3), generators=one)
    with pytest.raises(SamplingError, match="known and keep"):
        sample(objective, network, (1, 2, 3), generators=one, known=known)
    with pytest.raises(SamplingError, match="known of shape"):
        sample(objective, network, (1, 2, 3), generators=one, known=known[:, :1], keep=known > 0)
    with pytest.raises(SamplingError, match="mask"):
        sample(objective, network, (1, 2, 3), generators=one, known=known, keep=torch.ones(1, 7, 1) > 0)
    broken = Gaussian(objective, math.nan, DEVIATION)
    with pytest.raises(SamplingError, match="1 of 1 samples are not finite"):
        sample(objective, broken, (1, 2, 3), generators=one)
