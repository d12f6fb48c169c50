"""The pixel baselines: any size of image, conditioning, and a cost that matches what they are compared with."""

from __future__ import annotations

import pytest
import torch

from data_schemas.errors import JobError
from models.base import DataSpec, Denoiser
from models.networks.pixel_dit import PixelDiT, default_patch, tokens_of_patch
from models.registry import build_model, measure_model
from tests.models.small_networks import awakened, noise

NAMES = ["pixel-unet", "pixel-dit"]
SPRITES = DataSpec("pixels", gaussians=150, groups=1, height=32, width=32, channels=3)
DIGITS = DataSpec("pixels", gaussians=70, groups=1, height=28, width=28, channels=1)


def _model(name: str, height: int = 13, width: int = 10, classes: int = 0) -> Denoiser:
    spec = DataSpec("pixels", groups=1, height=height, width=width, channels=2, classes=classes)
    return awakened(build_model(name, "tiny", spec))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (13, 10), (16, 16)])
def test_images_of_any_size_pass(name: str, height: int, width: int) -> None:
    answer = _model(name, height, width)(noise(2, 2, height, width), torch.rand(2))
    assert answer.shape == (2, 2, height, width)
    assert answer.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_time_label_and_the_lack_of_one_are_seen(name: str) -> None:
    model = _model(name, classes=2)
    noisy, time = noise(1, 2, 13, 10).expand(3, -1, -1, -1), torch.full((3,), 0.4)
    answers = model(noisy, time, torch.arange(3))
    assert (answers[0] - answers[1]).abs().max() > 1e-3
    torch.testing.assert_close(model(noisy, time)[:1], answers[2:])
    assert (model(noisy, time + 0.3) - model(noisy, time)).abs().max() > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_an_answer_does_not_depend_on_the_rest_of_its_batch(name: str) -> None:
    model = _model(name)
    noisy, time = noise(3, 2, 13, 10), torch.rand(3)
    torch.testing.assert_close(model(noisy, time)[1], model(noisy[1:2], time[1:2])[0], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_weight_learns(name: str) -> None:
    model = _model(name, classes=2).train()
    model(noise(3, 2, 13, 10), torch.rand(3), torch.tensor([0, 1, 2])).square().sum().backward()
    idle = [key for key, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert idle == []


@pytest.mark.parametrize("name", NAMES)
def test_an_untrained_network_answers_zero(name: str) -> None:
    spec = DataSpec("pixels", groups=1, height=8, width=8, channels=1)
    assert build_model(name, "tiny", spec)(noise(1, 1, 8, 8), torch.rand(1)).abs().max() == 0


def test_patches_are_squares_of_the_image() -> None:
    # With all gates closed, what comes out of a token depends on its own patch alone.
    spec = DataSpec("pixels", groups=1, height=8, width=8, channels=2)
    model = awakened(build_model("pixel-dit", "tiny", spec, patch=4))
    assert isinstance(model, PixelDiT)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("constant") or name.startswith("trunk.modulation"):
                weight.zero_()
    noisy = noise(1, 2, 8, 8)
    changed = noisy.clone()
    changed[:, 0, 1, 6] += 1
    moved = (model(changed, torch.tensor([0.5])) - model(noisy, torch.tensor([0.5]))).abs().amax(dim=(0, 1))
    assert moved[:4, 4:].min() > 1e-7
    moved[:4, 4:] = 0
    assert moved.max() == 0


@pytest.mark.slow
def test_the_unet_has_about_38_million_parameters() -> None:
    cost = measure_model("pixel-unet", "full", SPRITES)
    assert cost.parameters == pytest.approx(38e6, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "small", "medium", "full"])
@pytest.mark.parametrize("data", [SPRITES, DIGITS])
def test_the_pixel_transformer_costs_what_splatdit_costs(preset: str, data: DataSpec) -> None:
    splats = DataSpec("splats", gaussians=data.gaussians, features=8)
    ours = measure_model("splatdit", preset, splats)
    pixels = measure_model("pixel-dit", preset, data)
    assert pixels.gflop == pytest.approx(ours.gflop, rel=0.05)
    assert pixels.parameters == pytest.approx(ours.parameters, rel=0.05)


def test_patches_are_chosen_by_the_number_of_tokens() -> None:
    assert (default_patch(SPRITES), tokens_of_patch(SPRITES, 5)) == (5, 49)
    assert (default_patch(DIGITS), tokens_of_patch(DIGITS, 5)) == (5, 36)
    with pytest.raises(JobError, match="patches of 40 pixels"):
        build_model("pixel-dit", "tiny", SPRITES, patch=40)
