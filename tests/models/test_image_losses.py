"""Losses on how images look: nothing for equal ones, more for greater differences, coarse ones first."""

from __future__ import annotations

import pytest
import torch
from scipy.fft import dctn
from torch import Tensor

from models.image_losses import cosine_waves, gradient_loss, wave_loss
from tests.models.small_networks import noise


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
