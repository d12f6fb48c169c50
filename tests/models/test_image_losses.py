"""Losses on how images look: nothing for equal ones, more for greater differences, coarse ones first."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from data_schemas.errors import CheckpointError
from models.image_losses import cosine_waves, gradient_loss, wave_loss
from models.lpips import BACKBONE_FILE, CONVOLUTIONS, LINEAR_FILE, Lpips
from tests.models.networks import noise


@pytest.mark.parametrize("loss", [gradient_loss, wave_loss])
@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 13, 18), (2, 3, 4, 1)])
def test_equal_images_cost_nothing_and_others_something(loss, shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    assert torch.equal(loss(image, image), torch.zeros(2))
    target = image.clone()
    target[1] += noise(*shape[1:], seed=2)
    found = loss(image, target)
    assert found[0] == 0
    assert found[1] > 0


def test_a_shift_in_brightness_is_no_edge() -> None:
    image = noise(1, 3, 16, 16)
    torch.testing.assert_close(gradient_loss(image, image + 0.5), torch.zeros(1), atol=1e-5, rtol=0)


def test_waves_are_those_of_the_cosine_transform_and_coarse_ones_count_more() -> None:
    block = noise(8, 8)
    waves = cosine_waves(8)
    torch.testing.assert_close(
        waves @ block @ waves.T, torch.from_numpy(dctn(block.numpy(), norm="ortho")), atol=1e-5, rtol=0
    )

    def error(wave: int) -> Tensor:
        pattern = torch.outer(waves[wave], waves[wave]).expand(1, 1, 8, 8)
        return wave_loss(pattern, torch.zeros_like(pattern))

    costs = torch.cat([error(wave) for wave in range(8)])
    assert bool((costs.diff() < 0).all())
    assert float(costs[0] / costs[-1]) == pytest.approx(10, rel=1e-3)


def _weights(folder: Path) -> None:
    torch.manual_seed(0)
    number, before, backbone = 0, 3, {}
    for stage in CONVOLUTIONS:
        for after in stage:
            backbone[f"features.{number}.weight"] = torch.randn(after, before, 3, 3) * (2 / 9 / before) ** 0.5
            backbone[f"features.{number}.bias"] = torch.zeros(after)
            number, before = number + 2, after
        number += 1
    torch.save(backbone, folder / BACKBONE_FILE)
    linear = {f"lin{i}.model.1.weight": torch.rand(1, stage[-1], 1, 1) for i, stage in enumerate(CONVOLUTIONS)}
    torch.save(linear, folder / LINEAR_FILE)


def test_lpips_reads_weights_of_the_usual_names(tmp_path: Path) -> None:
    _weights(tmp_path)
    distance = Lpips.of_folder(tmp_path)
    assert sum(weight.numel() for weight in distance.stages.parameters()) == 14_714_688
    image = noise(2, 3, 16, 16).requires_grad_()
    near, far = (distance(image, image.detach() + size * noise(2, 3, 16, 16, seed=2)) for size in (0.05, 1.0))
    assert bool((near < far).all())
    assert torch.equal(distance(image, image), torch.zeros(2))
    [gradient] = torch.autograd.grad(far.sum(), image)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0


def test_weights_that_are_missing_or_of_another_network_are_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=rf"{BACKBONE_FILE} cannot be read"):
        Lpips.of_folder(tmp_path)
    _weights(tmp_path)
    torch.save({"lin0.model.1.weight": torch.ones(1, 64, 1, 1)}, tmp_path / LINEAR_FILE)
    with pytest.raises(CheckpointError, match="another network"):
        Lpips.of_folder(tmp_path)
    (tmp_path / BACKBONE_FILE).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match="cannot be read"):
        Lpips.of_folder(tmp_path)
