"""The loss of rendered predictions: the oracle's value, weighted, and rows that are not finite."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import torch

from data_schemas.splats import ADDITIVE, GREY
from encoders.render import render
from pipeline.train.losses import render_loss
from tests.encoders.splat_examples import random_splats


def test_it_is_the_mean_absolute_error_of_the_unclipped_sum_and_names_rows_by_nan() -> None:
    splats = torch.from_numpy(random_splats(GREY, images=3, gaussians=4))
    splats[..., 3] *= 5
    representation: Any = SimpleNamespace(layout=GREY, decode=lambda clean, clamp: clean)
    header: Any = SimpleNamespace(codec=ADDITIVE, height=7, width=9)
    target = torch.rand(5, 7, 9, 1, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([4, 0, 2])
    loss = render_loss(representation, header, target, 0.5)
    image = render(splats, GREY, ADDITIVE, 7, 9, clip=False)
    expected = 0.5 * (image - target[rows]).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(loss(splats, rows), expected, rtol=0, atol=1e-4)

    broken = splats.clone()
    broken[1, 2, 0] = torch.nan
    broken.requires_grad_()
    result = loss(broken, rows)
    assert torch.isnan(result).tolist() == [False, True, False]
    torch.testing.assert_close(result[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-4)
    gradient = cast(torch.Tensor, torch.autograd.grad(result[0], broken)[0])
    assert gradient[0].abs().sum() > 0
