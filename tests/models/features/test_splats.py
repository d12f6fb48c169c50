from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import models.features.normalisation
from data_schemas.errors import CheckpointError, JobError, StoreMismatchError, TrainingError
from data_schemas.splats import LAYOUTS, ColourRange, Layout
from models.features.covariance import (
    COVARIANCE_FORMS,
    LARGEST_RHO,
    SMALLEST_SIGMA,
    CovarianceForm,
    from_numbers,
    to_numbers,
)
from models.features.normalisation import statistics_of
from models.features.pixels import PixelRepresentation, representation_from
from models.features.splats import Representation, SplatRepresentation

K = 6


def _splats(layout: Layout, images: int = 40, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(images, K, generator=generator)

    columns = {
        "sigma_x": torch.exp(uniform(-4.5, 0.5)),
        "sigma_y": torch.exp(uniform(-4.5, 0.5)),
        "rho": uniform(-0.99, 0.99),
        "alpha": uniform(0.05, 0.95),
        "x": uniform(-1.2, 1.2),
        "y": uniform(-1.2, 1.2),
    }
    return torch.stack([columns.get(name, uniform(0, 1)) for name in layout.names], dim=-1)


def _anchors() -> Tensor:
    return torch.tensor([[-0.5 + column, -2 / 3 + 2 / 3 * row] for row in range(3) for column in range(2)])


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
@pytest.mark.parametrize("form", COVARIANCE_FORMS)
@pytest.mark.parametrize("normalisation", ["whitened", "minmax"])
@pytest.mark.parametrize("anchored", [True, False])
def test_features_lead_back_to_the_splats(
    layout: Layout, form: CovarianceForm, normalisation: str, anchored: bool
) -> None:
    splats = _splats(layout)
    representation = SplatRepresentation(
        layout=layout,
        gaussians=K,
        anchors=_anchors() if anchored else None,
        covariance=form,
        normalisation=normalisation,
    ).fit([splats[:15], splats[15:]])
    features = representation.encode(splats)
    assert features.shape == (40, *representation.shape)
    assert len(representation.groups) == representation.features
    torch.testing.assert_close(representation.decode(features), splats, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("form", COVARIANCE_FORMS)
@pytest.mark.parametrize("rho", [0.0, 1e-7, 0.3, -0.9, 0.9995])
@pytest.mark.parametrize("ratio", [1.0, 1 + 1e-9, 1.001, 30.0, 1 / 30])
def test_numbers_of_a_covariance_are_exact(form: CovarianceForm, rho: float, ratio: float) -> None:
    sigma_x, sigma_y, correlation = (torch.tensor([value], dtype=torch.float64) for value in (0.1 * ratio, 0.1, rho))
    numbers = to_numbers(form, sigma_x, sigma_y, correlation)
    back = torch.stack(from_numbers(form, numbers))
    torch.testing.assert_close(back, torch.stack([sigma_x, sigma_y, correlation]), rtol=1e-6, atol=2e-6)


def test_the_forms_are_what_they_are_called() -> None:
    splats = _splats(LAYOUTS["grey"]).double()
    x, y, rho = splats[..., 0], splats[..., 1], splats[..., 2]
    covariance = torch.stack([torch.stack([x**2, rho * x * y], -1), torch.stack([rho * x * y, y**2], -1)], -2)
    u, v, w = to_numbers("matrix_log", x, y, rho).unbind(-1)
    logarithm = torch.stack([torch.stack([u + v, w], -1), torch.stack([w, u - v], -1)], -2)
    torch.testing.assert_close(torch.linalg.matrix_exp(logarithm), covariance, rtol=1e-9, atol=1e-12)
    p, q, r = to_numbers("log_cholesky", x, y, rho).unbind(-1)
    factor = torch.linalg.cholesky(covariance)
    torch.testing.assert_close(factor[..., 0, 0], torch.exp(p))
    torch.testing.assert_close(factor[..., 1, 1], torch.exp(q))
    torch.testing.assert_close(factor[..., 1, 0], r)


@pytest.mark.parametrize("form", COVARIANCE_FORMS)
@pytest.mark.parametrize("size", [0.0, 1.0, 30.0, 1e30])
def test_whatever_a_network_answers_is_decoded_to_valid_splats(form: CovarianceForm, size: float) -> None:
    layout = LAYOUTS["rgb_alpha"]
    representation = SplatRepresentation(layout=layout, gaussians=K, covariance=form).fit([_splats(layout)])
    answer = size * torch.randn(50, K, representation.features, generator=torch.Generator().manual_seed(1))
    splats = representation.decode(answer)
    assert torch.isfinite(splats).all()
    assert (splats[..., :2] >= SMALLEST_SIGMA).all()
    assert (splats[..., 2].abs() <= LARGEST_RHO).all()
    # The bound survives the rounding of a store of half precision.
    assert (splats[..., 2].half().abs() < 1).all()
    assert ((splats[..., 3:7] >= 0) & (splats[..., 3:7] <= 1)).all()


@pytest.mark.parametrize("form", ["matrix_log", "log_cholesky"])
def test_decoding_has_a_gradient_everywhere_even_at_a_circle(form: CovarianceForm) -> None:
    representation = SplatRepresentation(layout="grey", gaussians=K, covariance=form)
    features = torch.zeros(1, K, representation.features, requires_grad=True)
    splats = representation.decode(features, clamp=False)
    (splats[..., 0] - splats[..., 1] + splats[..., 2:].sum(dim=-1)).sum().backward()
    assert features.grad is not None
    # sigma_x = e^(u/2) e^(v/2), sigma_y = e^(u/2) e^(-v/2), rho = w; or sigma_x = e^p, sigma_y = e^q, rho = r.
    expected = [0.0, 1, 1] if form == "matrix_log" else [1.0, -1, 1]
    torch.testing.assert_close(features.grad[0, 0, 2:5], torch.tensor(expected))


def test_signed_colours_and_unclamped_decoding_keep_what_lies_outside() -> None:
    splats = _splats(LAYOUTS["rgb"])
    splats[..., 3:6] = splats[..., 3:6] * 4 - 2
    cases: list[tuple[ColourRange, bool, bool]] = [
        ("signed", True, True),
        ("bounded", False, True),
        ("bounded", True, False),
    ]
    for colours, clamp, kept in cases:
        representation = SplatRepresentation(layout="rgb", gaussians=K, colours=colours).fit([splats])
        back = representation.decode(representation.encode(splats), clamp=clamp)[..., 3:6]
        torch.testing.assert_close(back, splats[..., 3:6] if kept else splats[..., 3:6].clamp(0, 1))


def test_whitened_features_have_mean_0_in_every_slot_and_scale_1() -> None:
    splats = _splats(LAYOUTS["grey"], 2000)
    representation = SplatRepresentation(layout="grey", gaussians=K, anchors=_anchors()).fit([splats])
    features = representation.encode(splats)
    assert features.mean(dim=0).abs().max() < 0.02
    torch.testing.assert_close(features.std(dim=(0, 1)), torch.ones(6), rtol=0.02, atol=0)


def test_one_wild_gaussian_does_not_set_the_scale() -> None:
    splats = _splats(LAYOUTS["grey"], 500)
    tame = SplatRepresentation(layout="grey", gaussians=K).fit([splats]).scale
    splats[3, 2, 4] = 1000.0
    wild = SplatRepresentation(layout="grey", gaussians=K).fit([splats]).scale
    torch.testing.assert_close(wild, tame, rtol=0.02, atol=0)


def test_the_range_of_minmax_is_that_of_all_chunks() -> None:
    splats = _splats(LAYOUTS["rgb"], 60)
    representation = SplatRepresentation(layout="rgb", gaussians=K, covariance="raw", normalisation="minmax").fit(
        splats.split(7)
    )
    features = representation.encode(splats)
    torch.testing.assert_close(features.amin(dim=(0, 1)), -torch.ones(8))
    torch.testing.assert_close(features.amax(dim=(0, 1)), torch.ones(8))
    far = representation.decode(features * 5)
    torch.testing.assert_close(far.amax(dim=(0, 1)), splats.amax(dim=(0, 1)))


def test_statistics_do_not_depend_on_the_chunks() -> None:
    splats = _splats(LAYOUTS["grey"], 100)
    whole = SplatRepresentation(layout="grey", gaussians=K, anchors=_anchors()).fit([splats])
    pieces = SplatRepresentation(layout="grey", gaussians=K, anchors=_anchors()).fit(
        [np.asarray(piece) for piece in splats.split(9)]
    )
    assert torch.equal(whole.mean, pieces.mean)
    assert torch.equal(whole.scale, pieces.scale)


def test_a_large_set_is_sampled_evenly_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models.features.normalisation, "LARGEST_SAMPLE", 400)
    features = torch.arange(20_000.0)[:, None, None].expand(-1, 1, 2)
    statistics = statistics_of(features.split(777))
    mean, scale = statistics.whitened(by_slot=False)
    assert statistics.images == 20_000
    # A uniform sample of 400 knows the mean to 289 (one standard error) and no chunk is preferred.
    assert abs(float(mean[0, 0]) - 10_000) < 4 * 289
    assert float(scale[0, 0]) == pytest.approx(20_000 / math.sqrt(12), rel=0.1)
    # Extremes are those of every image.
    assert float(statistics.minmax()[0][0, 0] + statistics.minmax()[1][0, 0]) == 19_999


def test_without_anchors_no_slot_is_told_from_another() -> None:
    splats = _splats(LAYOUTS["grey"]) + torch.arange(K)[:, None] * 0.01
    representation = SplatRepresentation(layout="grey", gaussians=K).fit([splats])
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    assert torch.equal(representation.encode(splats[:, order]), representation.encode(splats)[:, order])


def test_a_feature_that_never_varies_stays_as_it_is() -> None:
    splats = _splats(LAYOUTS["grey"])
    splats[..., 3] = 0.25
    representation = SplatRepresentation(layout="grey", gaussians=K).fit([splats])
    noise = torch.randn(4, K, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(representation.decode(noise)[..., 3], torch.full((4, K), 0.25), rtol=0, atol=1e-3)


@pytest.mark.parametrize("anchored", [True, False])
def test_configuration_and_tensors_rebuild_the_representation(anchored: bool) -> None:
    splats = _splats(LAYOUTS["rgb_alpha"])
    representation = SplatRepresentation(
        layout="rgb_alpha", gaussians=K, anchors=_anchors() if anchored else None, covariance="log_cholesky"
    ).fit([splats])
    again = representation_from(representation.config(), representation.tensors())
    assert isinstance(again, Representation)
    assert torch.equal(again.encode(splats), representation.encode(splats))
    with pytest.raises(CheckpointError, match="representation"):
        representation_from(representation.config(), {})
    with pytest.raises(CheckpointError, match="voxels"):
        representation_from({"kind": "voxels"}, {})


def test_what_cannot_be_represented_is_refused_in_words() -> None:
    representation = SplatRepresentation(layout="grey", gaussians=K)
    with pytest.raises(StoreMismatchError, match=r"\(2, 5, 6\)"):
        representation.encode(torch.zeros(2, 5, 6))
    with pytest.raises(JobError, match="angle"):
        SplatRepresentation(layout="grey", gaussians=K, covariance="angle")
    with pytest.raises(JobError, match="zscore"):
        SplatRepresentation(layout="grey", gaussians=K, normalisation="zscore")
    with pytest.raises(JobError, match=r"\(3, 2\)"):
        SplatRepresentation(layout="grey", gaussians=K, anchors=torch.zeros(3, 2))
    with pytest.raises(TrainingError, match="No image"):
        representation.fit([])
    splats = _splats(LAYOUTS["grey"])
    splats[25, 1, 5] = torch.nan
    with pytest.raises(TrainingError, match="first the 25"):
        representation.fit(splats.split(20))


@pytest.mark.parametrize("normalisation", ["minmax", "whitened"])
def test_pixels_come_back_exactly(normalisation: str) -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (20, 5, 7, 3), generator=generator).to(torch.uint8)
    representation = PixelRepresentation(height=5, width=7, channels=3, normalisation=normalisation)
    representation.fit(images.split(6))
    features = representation.encode(images)
    assert features.shape == (20, *representation.shape)
    assert torch.equal((representation.decode(features) * 255).round().to(torch.uint8), images)
    assert representation.decode(features * 9).max() == 1
    if normalisation == "whitened":
        torch.testing.assert_close(features.mean(dim=(0, 2, 3)), torch.zeros(3), rtol=0, atol=0.02)
    again = representation_from(representation.config(), representation.tensors())
    assert torch.equal(again.encode(images), features)
    with pytest.raises(StoreMismatchError):
        representation.encode(images[:, :4])
