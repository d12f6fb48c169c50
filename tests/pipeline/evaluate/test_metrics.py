"""Metrics against closed forms, against another implementation, and at their bounds."""

from __future__ import annotations

import math

import pytest
import torch
from prdc import compute_prdc

from data_schemas.errors import EvaluationError
from pipeline.evaluate.metrics import (
    frechet_distance,
    images_needed,
    inception_score,
    kernel_distance,
    nearest,
    sliced_wasserstein,
    support,
)


def cloud(count: int, dimension: int = 4, *, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return shift + scale * torch.randn(count, dimension, generator=generator)


def standardised(count: int, dimension: int, seed: int) -> torch.Tensor:
    """Points whose sample mean is 0 and whose sample covariance is 1, to rounding."""
    points = cloud(count, dimension, seed=seed).double()
    points -= points.mean(dim=0)
    factor = torch.linalg.cholesky(points.T @ points / (count - 1))
    return torch.linalg.solve_triangular(factor, points.T, upper=False).T


def test_fid_of_two_gaussians_is_their_closed_form() -> None:
    # |m - n|^2 + sum (s - t)^2 for diagonal covariances.
    real, other = standardised(300, 3, 0), standardised(300, 3, 1)
    scale = torch.tensor([2.0, 0.5, 1.0], dtype=torch.float64)
    moved = other * scale + torch.tensor([1.0, 0.0, -2.0], dtype=torch.float64)
    assert frechet_distance(real, moved) == pytest.approx(5 + 1 + 0.25, rel=1e-6)
    assert frechet_distance(real, other) == pytest.approx(0, abs=1e-6)


def test_fid_needs_more_images_than_features() -> None:
    assert frechet_distance(cloud(9, 8, seed=0), cloud(9, 8, seed=1)) > 0
    with pytest.raises(EvaluationError, match="8 generated images for FID on 8 features"):
        frechet_distance(cloud(9, 8, seed=0), cloud(8, 8, seed=1))


def test_kid_is_unbiased_repeatable_and_leaves_chance_alone() -> None:
    real, alike, far = cloud(400, seed=0), cloud(400, seed=1), cloud(400, seed=2, shift=1.0)
    state = torch.random.get_rng_state()
    mean, spread = kernel_distance(real, alike)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert abs(mean) < 3 * spread
    assert kernel_distance(real, far)[0] > 10 * spread
    assert kernel_distance(real, alike) == (mean, spread)
    assert kernel_distance(real, alike, seed=1) != (mean, spread)
    with pytest.raises(EvaluationError, match="15 images for KID"):
        kernel_distance(real, alike[:15])


@pytest.mark.slow
@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.7, 1.0), (0.0, 0.4), (0.0, 2.0)])
def test_support_is_what_prdc_finds(shift: float, scale: float) -> None:
    real, generated = cloud(1100, seed=0), cloud(700, seed=1, shift=shift, scale=scale)
    found = support(real, generated)
    wanted = compute_prdc(real.double().numpy(), generated.double().numpy(), nearest_k=5)
    for name in ("precision", "recall", "density", "coverage"):
        assert getattr(found, name) == pytest.approx(wanted[name], abs=1e-9), name


def test_a_generator_that_repeats_one_image_has_precision_and_no_recall() -> None:
    real = cloud(300, seed=0)
    found = support(real, real[:1].repeat(300, 1) + 1e-4 * cloud(300, seed=1))
    assert found.precision == 1
    assert found.recall < 0.05
    assert found.coverage < 0.1
    with pytest.raises(EvaluationError, match="5 nearest neighbours"):
        support(real[:5], real[:5])


@pytest.mark.slow
def test_sliced_distance_of_a_shift_is_known() -> None:
    # A shift by v moves each projection by <v, direction>, whose mean square is |v|^2 / dimension.
    real = cloud(500, 3, seed=0)
    shift = torch.tensor([3.0, 0.0, 0.0])
    assert sliced_wasserstein(real, real + shift, directions=4000) == pytest.approx(math.sqrt(3), rel=0.03)
    assert sliced_wasserstein(real, real[torch.randperm(500)]) == pytest.approx(0, abs=1e-9)
    # Each image twice is the same distribution.
    assert sliced_wasserstein(real, real.repeat(2, 1)) == pytest.approx(0, abs=1e-9)


def test_inception_score_lies_between_one_and_the_classes() -> None:
    sure = 50 * torch.eye(5).repeat(100, 1)
    assert inception_score(sure)[0] == pytest.approx(5, rel=0.03)
    assert inception_score(torch.zeros(200, 5))[0] == pytest.approx(1)
    with pytest.raises(EvaluationError, match="99 images for the inception score"):
        inception_score(torch.zeros(99, 5))


def test_nearest_finds_the_copy_among_many_references() -> None:
    references = cloud(3000, seed=0)
    distance, position = nearest(references[[7, 2999]] + torch.tensor([0.0, 0.0, 3e-3, 4e-3]), references)
    assert position.tolist() == [7, 2999]
    assert distance.tolist() == pytest.approx([5e-3, 5e-3], rel=1e-3)


def test_images_needed_serve_every_metric() -> None:
    for dimension in (2, 30):
        count = images_needed(dimension)
        real, generated = cloud(count, dimension, seed=0), cloud(count, dimension, seed=1)
        for metric in (frechet_distance, kernel_distance, support, sliced_wasserstein):
            metric(real, generated)
