"""The network that looks at noisy pixels and answers with Gaussians: slots, bounds, losses, and what it refuses."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from data_schemas.errors import JobError
from data_schemas.splats import GREY, RGB, layout_named
from encoders.render import render
from models.base import DataSpec
from models.diffusion.objectives import SMALLEST_NOISE, build_objective
from models.diffusion.samplers import generators_for, sample
from models.features.slots import (
    FARTHEST,
    FIRST_SIGMA,
    LARGEST_RHO,
    SlotNumbers,
    places_of,
    remove_bounds,
    slot_statistics,
)
from models.networks.render_dit import RenderDiT
from models.registry import MODELS, build_model, measure_model
from tests.models.small_networks import awakened, grid_anchors, noise

SPEC = DataSpec(
    "pixels",
    gaussians=20,
    groups=1,
    height=10,
    width=12,
    channels=3,
    classes=2,
    anchors=grid_anchors(5, 4),
    layout="rgb",
)

SPACING = 2 / 20**0.5
"""Of the anchors: the side of the square that each of them has for itself."""


def drawing(splats: Tensor, height: int, width: int, *, layout: str = "rgb") -> Tensor:
    return render(splats, layout_named(layout), "additive/1", height, width, clip=False)


def network(spec: DataSpec = SPEC, **changes: object) -> RenderDiT:
    model = build_model("render-dit", "tiny", spec, **{"patch": 4, **changes})
    assert isinstance(model, RenderDiT)
    model.renderer = partial(drawing, layout=spec.layout)
    return model


def awake(spec: DataSpec = SPEC, **changes: object) -> RenderDiT:
    model = network(spec, **changes)
    awakened(model)
    return model


def test_it_begins_with_equal_round_gaussians_at_the_anchors() -> None:
    answer = network()(noise(2, 3, 10, 12), torch.rand(2), whole=True)
    splats = answer.splats
    assert splats.shape == (2, 20, 8)
    torch.testing.assert_close(splats[0, :, -2:], torch.tensor(SPEC.anchors))
    assert (splats[..., 2] == 0).all()
    assert splats[..., :2].unique().numel() == splats[..., 3:6].unique().numel() == 1


def test_the_prediction_is_the_rendering_of_the_splats_and_a_residual_that_fades_with_the_noise() -> None:
    model, noisy = awake(), noise(2, 3, 10, 12)
    time = torch.tensor([1.0, 0.64])
    whole = model(noisy, time, whole=True)
    drawn = 2 * drawing(whole.splats, 10, 12).permute(0, 3, 1, 2) - 1
    torch.testing.assert_close(whole.image[0], drawn[0])
    leaving = model.trunk(model.tokens(noisy), model.condition(time, None))
    residual = model.picture(leaving[..., : 3 * 4 * 4], 10, 12)
    torch.testing.assert_close(whole.image[1], drawn[1] + 0.6 * residual[1])
    assert residual.std() > 0
    assert torch.equal(model(noisy, time), whole.image)


def test_whatever_the_weights_the_splats_are_within_their_bounds() -> None:
    model = awake()
    with torch.no_grad():
        model.trunk.leave.weight.mul_(1000)
    splats = model(noise(4, 3, 10, 12), torch.rand(4), whole=True).splats
    assert (splats[..., :2] / (FIRST_SIGMA * SPACING)).log().abs().max() <= FARTHEST + 1e-4
    assert splats[..., 2].abs().max() <= LARGEST_RHO
    assert splats[..., 3:6].min() >= 0 <= 1 - splats[..., 3:6].max()
    away = (splats[..., -2:] - torch.tensor(SPEC.anchors)).abs().max()
    assert away <= FARTHEST * SPACING + 1e-4
    signed = awake(replace(SPEC, colours="signed"))
    with torch.no_grad():
        signed.trunk.leave.weight.mul_(1000)
    assert signed(noise(4, 3, 10, 12), torch.rand(4), whole=True).splats[..., 3:6].min() < 0


@pytest.mark.parametrize(("gaussians", "size", "patch"), [(6, (7, 9), 4), (20, (10, 12), 4), (70, (28, 28), 0)])
def test_any_number_of_gaussians_and_any_size(gaussians: int, size: tuple[int, int], patch: int) -> None:
    columns = {6: 3, 20: 5, 70: 10}[gaussians]
    spec = DataSpec(
        "pixels",
        gaussians=gaussians,
        groups=1,
        height=size[0],
        width=size[1],
        channels=1,
        anchors=grid_anchors(columns, gaussians // columns),
        layout="grey",
    )
    answer = awake(spec, patch=patch)(noise(2, 1, *size), torch.rand(2), whole=True)
    assert answer.splats.shape == (2, gaussians, GREY.width)
    assert answer.image.shape == (2, 1, *size)


def test_every_slot_has_an_answer_of_its_own_from_the_patch_that_its_anchor_lies_in() -> None:
    places = places_of(SPEC.anchors, height=10, width=12, patch=4)
    assert len(places.flat.unique()) == 20
    for (x, y), token in zip(SPEC.anchors or (), places.token.tolist(), strict=True):
        assert token == int((y + 1) / 2 * 10 // 4) * 3 + int((x + 1) / 2 * 12 // 4)


def test_every_weight_learns() -> None:
    model = awake()
    model(noise(3, 3, 10, 12), torch.rand(3), torch.tensor([0, 1, 2])).square().mean().backward()
    assert [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()] == []


@pytest.mark.slow
def test_the_trunk_is_that_of_the_pixel_transformer_at_nearly_its_cost() -> None:
    spec = replace(SPEC, gaussians=150, height=32, width=32, anchors=grid_anchors(15, 10))
    for preset in MODELS["render-dit"].presets:
        ours, theirs = (measure_model(name, preset, spec).gflop for name in ("render-dit", "pixel-dit"))
        assert ours <= 1.1 * theirs


@pytest.mark.parametrize("wrong", [{"anchors": None}, {"gaussians": 4, "anchors": grid_anchors(2, 2)}])
def test_data_that_it_cannot_answer_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(JobError, match=r"anchors|4 Gaussians for 9 patches"):
        network(replace(SPEC, **wrong))


def test_without_a_renderer_it_says_so() -> None:
    model = network()
    model.renderer = None
    with pytest.raises(JobError, match="renderer"):
        model(noise(1, 3, 10, 12), torch.rand(1))


def test_the_loss_is_that_of_pixels_and_a_share_of_the_images_is_shown_clean_without_label() -> None:
    model = awake()
    clean = noise(4, 3, 10, 12, seed=3).clamp(-1, 1)

    def loss(**changes: Any) -> Tensor:
        objective = build_objective("flow-clean", classes=2, label_drop=0.0, **changes)
        return objective.loss(model, clean, torch.tensor([0, 1, 0, 1]), torch.Generator().manual_seed(0))

    shown = loss(shown_clean=0.5, shown_weight=0.25)
    seen = model(clean[:2], torch.ones(2), None)
    error = (seen - clean[:2]).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(shown[:2], 0.25 * error / SMALLEST_NOISE**2)
    torch.testing.assert_close(shown[2:], loss()[2:])


def stored_splats(images: int = 50, *, seed: int = 0) -> Tensor:
    """Splats of 20 slots, each with a place, a size and a colour of its own."""
    generator = torch.Generator().manual_seed(seed)
    usual = torch.rand(20, 8, generator=torch.Generator().manual_seed(9)) * 0.5 + 0.2
    return (usual + 0.05 * torch.randn(images, 20, 8, generator=generator)).clamp(0.05, 0.95)


def test_slots_begin_at_the_mean_of_the_store_and_count_in_its_spreads() -> None:
    stored = stored_splats()
    found = slot_statistics([stored[:7], stored[7:]], RGB, "bounded")
    model = network()
    model.slots.take(found)
    with torch.no_grad():
        splats = model(noise(1, 3, 10, 12), torch.rand(1), whole=True).splats[0]
    torch.testing.assert_close(splats[:, :2], stored[..., :2].log().mean(dim=0).exp())
    torch.testing.assert_close(splats[:, 3:6], stored[..., 3:6].logit().mean(dim=0).sigmoid())
    torch.testing.assert_close(splats[:, -2:], stored[..., -2:].mean(dim=0))
    numbers = remove_bounds(stored, RGB, "bounded")
    torch.testing.assert_close(found.spread, numbers.std(dim=0, correction=0), atol=1e-5, rtol=1e-3)
    torch.testing.assert_close(torch.tensor(found.centres), stored[..., -2:].mean(dim=0))


def test_one_spread_from_the_mean_is_one_standard_deviation_of_the_store() -> None:
    found = slot_statistics([stored_splats()], RGB, "bounded")
    slots = SlotNumbers(found, RGB, "bounded")
    numbers = remove_bounds(slots.splats(torch.full((1, 20, 8), 0.1)), RGB, "bounded")[0]
    torch.testing.assert_close(numbers, found.mean + 0.1 * found.spread, atol=1e-4, rtol=1e-3)


def test_a_slot_that_never_changes_and_sigmas_of_zero_stay_finite() -> None:
    same = torch.zeros(3, 20, 8)
    slots = SlotNumbers(slot_statistics([same], RGB, "bounded"), RGB, "bounded")
    assert torch.isfinite(slots.splats(torch.full((1, 20, 8), 1e6))).all()


def details(*shape: int) -> Tensor:
    """Noise whose means over 2 x 2 pixels are 0."""
    whole = noise(*shape, seed=7)
    return whole - torch.nn.functional.avg_pool2d(whole, 2).repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


def test_means_of_a_noisy_image_are_a_smaller_image_on_the_same_path() -> None:
    model = network(patch=2, pool=2)
    clean, still = noise(3, 3, 10, 12), noise(3, 3, 10, 12, seed=2)
    time = torch.tensor([0.0, 0.25, 1.0])
    spread = time[:, None, None, None]
    seen, moved = model.look(spread * clean + (1 - spread) * still, time)
    torch.testing.assert_close(moved, torch.tensor([0.0, 0.4, 1.0]))  # 0.25 / (0.25 + 0.75 / 2)
    means, drawn = (torch.nn.functional.avg_pool2d(image, 2) for image in (clean, still))
    later = moved[:, None, None, None]
    torch.testing.assert_close(seen, later * means + (1 - later) * 2 * drawn)  # 2: the noise has variance 1 again


def test_what_looks_at_means_answers_at_full_size_and_to_the_means_alone() -> None:
    model, noisy = awake(patch=2, pool=2), noise(2, 3, 10, 12)
    time = torch.tensor([0.0, 0.5])
    answer = model(noisy, time, whole=True)
    assert answer.image.shape == noisy.shape
    other = model(noisy + details(*noisy.shape), time, whole=True)
    torch.testing.assert_close(other.splats, answer.splats, rtol=1e-4, atol=1e-5)
    residual = answer.image - (2 * drawing(answer.splats, 10, 12).permute(0, 3, 1, 2) - 1)
    assert residual.std() > 0.01
    torch.testing.assert_close(residual[..., 0::2, 0::2], residual[..., 1::2, 1::2], rtol=1e-4, atol=1e-5)
    clean = model(noisy, torch.ones(2), whole=True)
    torch.testing.assert_close(clean.image, 2 * drawing(clean.splats, 10, 12).permute(0, 3, 1, 2) - 1)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp-2m"])
def test_samples_follow_from_the_means_of_the_noise(sampler: str) -> None:
    model, start = awake(patch=2, pool=2), noise(2, 3, 10, 12)
    objective = build_objective("flow-clean", classes=2)

    def sampled(start: Tensor) -> Tensor:
        return sample(
            objective, model, start.shape, generators=generators_for(0, 2), evaluations=3, sampler=sampler, start=start
        )

    torch.testing.assert_close(sampled(start + details(2, 3, 10, 12)), sampled(start), rtol=1e-3, atol=1e-4)
    assert (sampled(-start) - sampled(start)).abs().max() > 1e-2


@pytest.mark.slow
def test_looking_at_means_costs_what_a_smaller_image_costs() -> None:
    pooled = measure_model("render-dit", "tiny", replace(SPEC, height=16, width=16), patch=2, pool=2)
    assert pooled == measure_model("render-dit", "tiny", replace(SPEC, height=8, width=8), patch=2)


@pytest.mark.parametrize("pool", [0, 3, 4])
def test_squares_that_do_not_fill_the_image_are_refused(pool: int) -> None:
    with pytest.raises(JobError, match=rf"pool = {pool} of an image of 10x12.*1, 2\b"):
        network(pool=pool)
