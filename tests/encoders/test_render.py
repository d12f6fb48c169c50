"""The plain-torch renderer against the formula, written out."""

import math

import numpy as np
import pytest
import torch

from data_schemas.errors import StoreMismatchError
from data_schemas.splats import ADDITIVE, CODECS, GREY, GREY_ALPHA, LAYOUTS, NORMALISED, NORMALISED_EPSILON, OVER, RGB
from encoders.render import render
from tests.encoders.splat_examples import random_splats


def by_hand(splats, layout, codec, height, width):
    """The codec with its covariance matrix inverted by numpy, pixel by pixel in float64."""
    result = np.zeros((height, width, layout.channels))
    for i in range(height):
        for j in range(width):
            point = np.array([(2 * j + 1) / width - 1, (2 * i + 1) / height - 1])
            summed, passing = 0.0, 1.0
            for row in splats.astype(np.float64):
                sx, sy, rho = row[:3]
                covariance = np.array([[sx * sx, rho * sx * sy], [rho * sx * sy, sy * sy]])
                offset = point - row[-2:]
                weight = math.exp(-0.5 * offset @ np.linalg.inv(covariance) @ offset)
                weight *= row[layout.index("alpha")] if layout.has_alpha else 1
                summed += weight
                result[i, j] += weight * (passing if codec == OVER else 1) * row[layout.colour_slice]
                passing *= 1 - weight
            if codec == NORMALISED:
                result[i, j] /= NORMALISED_EPSILON + summed
    return result


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_render_is_the_formula(layout, codec):
    splats = random_splats(layout, images=1, gaussians=5)
    rendered = render(torch.from_numpy(splats).double(), layout, codec, 6, 9, clip=False)[0].numpy()
    np.testing.assert_allclose(rendered, by_hand(splats[0], layout, codec, 6, 9), atol=1e-9)


def blob(**values):
    row = {"sigma_x": 0.1, "sigma_y": 0.1, "rho": 0.0, "grey": 1.0, "x": 0.0, "y": 0.0, **values}
    return torch.tensor([[[row[name] for name in GREY.names]]], dtype=torch.float64)


def centre_and_spread(image):
    image = image[0, ..., 0].numpy()
    rows, columns = np.indices(image.shape)
    mass = image.sum()
    row, column = (rows * image).sum() / mass, (columns * image).sum() / mass
    return row, column, ((rows - row) ** 2 * image).sum() / mass, ((columns - column) ** 2 * image).sum() / mass


def test_plus_x_is_right_and_plus_y_is_down():
    row, column, *_ = centre_and_spread(render(blob(x=0.5, y=-0.25), GREY, ADDITIVE, 40, 40))
    assert column == pytest.approx(0.75 * 40 - 0.5, abs=1e-4)
    assert row == pytest.approx(0.375 * 40 - 0.5, abs=1e-4)


def test_sigma_x_widens_columns_in_normalised_units():
    *_, vertical, horizontal = centre_and_spread(render(blob(sigma_x=0.2, sigma_y=0.1), GREY, ADDITIVE, 60, 60))
    assert math.sqrt(horizontal) == pytest.approx(0.2 * 30, rel=0.01)
    assert math.sqrt(vertical) == pytest.approx(0.1 * 30, rel=0.01)


def test_positive_rho_leans_down_and_right():
    image = render(blob(sigma_x=0.3, sigma_y=0.3, rho=0.9), GREY, ADDITIVE, 21, 21)[0, ..., 0]
    assert image[15, 15] > 10 * image[5, 15]


def test_order_of_gaussians_does_not_matter():
    splats = torch.from_numpy(random_splats(RGB)).double()
    torch.testing.assert_close(
        render(splats, RGB, ADDITIVE, 8, 8), render(splats.flip(1), RGB, ADDITIVE, 8, 8), rtol=0, atol=1e-12
    )


def test_a_store_renders_at_any_resolution():
    splats = torch.from_numpy(random_splats(RGB)).double()
    small, large = render(splats, RGB, ADDITIVE, 9, 9), render(splats, RGB, ADDITIVE, 27, 27)
    # Every third pixel centre of the large image is a pixel centre of the small one.
    torch.testing.assert_close(small, large[:, 1::3, 1::3], rtol=0, atol=1e-12)


def test_alpha_scales_the_colour():
    splats = random_splats(GREY_ALPHA)
    folded = np.delete(splats, GREY_ALPHA.index("alpha"), axis=-1)
    folded[..., GREY.index("grey")] *= splats[..., GREY_ALPHA.index("alpha")]
    torch.testing.assert_close(
        render(torch.from_numpy(splats), GREY_ALPHA, ADDITIVE, 8, 8),
        render(torch.from_numpy(folded), GREY, ADDITIVE, 8, 8),
        rtol=0,
        atol=1e-6,
    )


def test_every_parameter_gets_a_gradient():
    splats = torch.from_numpy(random_splats(RGB, images=1, gaussians=3)).double()
    splats[..., RGB.index("x")].clamp_(-0.8, 0.8)
    splats[..., RGB.index("y")].clamp_(-0.8, 0.8)
    splats.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: render(s, RGB, ADDITIVE, 5, 6, clip=False), splats, atol=1e-5)


def test_other_codecs_are_refused():
    with pytest.raises(StoreMismatchError, match=r"over/2.*additive/1, normalised/1, over/1"):
        render(torch.from_numpy(random_splats(RGB)), RGB, "over/2", 4, 4)
