"""Alpha compositing: what it means, in small scenes that can be worked out by hand."""

import numpy as np
import pytest
import torch

from data_schemas.splats import GREY, GREY_ALPHA, OVER, RGB_ALPHA
from encoders.decode import decode
from encoders.render import composite, render, visibility
from tests.encoders.splat_examples import random_splats


def sheet(grey, alpha):
    """A Gaussian so wide that its weight is 1 on the whole canvas."""
    row = {"sigma_x": 1e5, "sigma_y": 1e5, "rho": 0.0, "alpha": alpha, "grey": grey, "x": 0.0, "y": 0.0}
    return [row[name] for name in GREY_ALPHA.names]


def shade(*sheets):
    splats = torch.tensor([[sheet(*one) for one in sheets]], dtype=torch.float64)
    image = render(splats, GREY_ALPHA, OVER, 3, 3)
    assert image.std() < 1e-9
    return float(image[0, 1, 1, 0])


def test_the_first_gaussian_is_in_front():
    assert shade((0.8, 0.5), (0.2, 1.0)) == pytest.approx(0.5 * 0.8 + 0.5 * 0.2)
    assert shade((0.2, 1.0), (0.8, 0.5)) == pytest.approx(0.2)


def test_the_background_is_black():
    assert shade((1.0, 0.25)) == pytest.approx(0.25)


def test_faint_gaussians_count_and_covered_pixels_go_on():
    # A rasteriser leaves out opacities below 1/255 and stops where less than 1/10,000 passes; the codec does neither.
    assert shade(*[(1.0, 0.003)] * 100) == pytest.approx(1 - 0.997**100)
    assert shade(*[(0.0, 0.99)] * 2, (1.0, 0.999)) == pytest.approx(0.01**2 * 0.999)
    assert shade((0.0, 0.9995), (1.0, 1.0)) == pytest.approx(0.0005)


def test_a_layout_without_alpha_is_opaque():
    splats = random_splats(GREY_ALPHA)
    splats[..., GREY_ALPHA.index("alpha")] = 1
    bare = np.delete(splats, GREY_ALPHA.index("alpha"), axis=-1)
    np.testing.assert_array_equal(
        decode(splats, layout=GREY_ALPHA, codec=OVER, height=9, width=9),
        decode(bare, layout=GREY, codec=OVER, height=9, width=9),
    )


def test_visibility_never_exceeds_the_light_there_is():
    opacity = torch.rand(2, 40, 5, 5, dtype=torch.float64)
    opacity[0, 3] = 1
    seen = visibility(opacity)
    assert (seen >= 0).all()
    assert (seen.sum(dim=1) <= 1 + 1e-12).all()
    assert (seen[0, 4:] == 0).all()
    torch.testing.assert_close(1 - seen.sum(dim=1), (1 - opacity).prod(dim=1))


def test_gradients_are_right_also_where_a_pixel_is_covered():
    generator = torch.Generator().manual_seed(0)
    opacity = torch.rand(1, 5, 2, 3, dtype=torch.float64, generator=generator)
    opacity[0, 2, 0, 0] = 1
    colours = torch.rand(1, 5, 3, dtype=torch.float64, generator=generator)
    assert torch.autograd.gradcheck(composite, (opacity.requires_grad_(), colours.requires_grad_()))


def test_every_parameter_gets_a_gradient():
    splats = torch.from_numpy(random_splats(RGB_ALPHA, images=1, gaussians=3)).double()
    for name in ("x", "y"):
        splats[..., RGB_ALPHA.index(name)].clamp_(-0.8, 0.8)
    splats[..., RGB_ALPHA.index("alpha")].clamp_(0.2, 0.9)
    splats.requires_grad_()
    assert torch.autograd.gradcheck(lambda s: render(s, RGB_ALPHA, OVER, 5, 6, clip=False), splats, atol=1e-5)
    (gradient,) = torch.autograd.grad(render(splats, RGB_ALPHA, OVER, 5, 6, clip=False).square().sum(), splats)
    assert (gradient != 0).all()
