"""The compiled renderer against dense torch in float64: values, the gradient of every column, bad input."""

import concurrent.futures
import math

import numpy as np
import pytest
import torch

from data_schemas.errors import JobError, StoreMismatchError, TrainingError
from data_schemas.splats import ADDITIVE, GREY, GREY_ALPHA, LAYOUTS, NORMALISED, OVER, RGB
from encoders.compiled import compiled
from encoders.cpu.boxes import CHAIN, place_boxes
from encoders.differentiable.columns import TABLE, take_columns
from encoders.differentiable.splats import CUT, is_compiled, render_differentiable
from encoders.render import render
from encoders.vector import LANES
from tests.encoders.splat_examples import random_splats

STEP = 1 / 255
HARDLY = STEP / 2 / 16
"""A sixteenth of half an 8-bit step: the error that the cut may make."""


def gradients(draw, splats, pull):
    leaf = splats.clone().requires_grad_()
    image = draw(leaf)
    (gradient,) = torch.autograd.grad((image * pull.to(image.dtype)).sum(), leaf)
    return image.detach(), gradient


def assert_as_oracle(splats, layout, codec, height, width, tolerance=1e-4):
    splats = torch.as_tensor(splats)
    pull = torch.randn(len(splats), height, width, layout.channels, generator=torch.Generator().manual_seed(1))

    def dense(given):
        return render(given, layout, codec, height, width, clip=False)

    def compiled(given):
        return render_differentiable(given, layout, codec, height, width, clip=False)

    assert is_compiled(splats, codec)
    image, gradient = gradients(compiled, splats, pull)
    expected, expected_gradient = gradients(dense, splats.double(), pull)
    assert image.shape == expected.shape
    assert image.dtype == torch.float32
    torch.testing.assert_close(image.double(), expected, rtol=0, atol=HARDLY)
    for name in layout.names:
        column = layout.index(name)
        scale = float(expected_gradient[..., column].abs().max())
        torch.testing.assert_close(
            gradient[..., column].double(),
            expected_gradient[..., column],
            rtol=0,
            atol=tolerance * scale + 1e-6,
            msg=lambda words, name=name: f"{name}: {words}",
        )


@pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=lambda layout: layout.name)
def test_image_and_gradient_of_every_column_are_those_of_the_formula(layout, codec):
    assert_as_oracle(random_splats(layout, images=3, gaussians=21), layout, codec, 13, 22)


@pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
@pytest.mark.parametrize(
    ("gaussians", "height", "width"), [(1, 1, 1), (3, 5, 1), (8, 1, 9), (70, 28, 28), (9, 150, 40), (40, 24, 130)]
)
def test_any_number_of_gaussians_and_any_size(gaussians, height, width, codec):
    assert_as_oracle(random_splats(RGB, images=2, gaussians=gaussians), RGB, codec, height, width)


def one(**values: float) -> torch.Tensor:
    row = {"sigma_x": 0.2, "sigma_y": 0.2, "rho": 0.0, "grey": 0.8, "x": 0.05, "y": -0.1, **values}
    return torch.tensor([[[row[name] for name in GREY.names]]])


SHAPES = {
    "needle": {"sigma_x": 0.5, "sigma_y": 0.4, "rho": 0.999},
    "sharper needle": {"sigma_x": 0.4, "sigma_y": 0.5, "rho": -0.99995},
    "needle off the canvas": {"sigma_x": 3.0, "sigma_y": 2.0, "rho": 0.9995, "x": 2.1, "y": 1.4},
    "tilted": {"sigma_x": 0.18, "sigma_y": 0.18, "rho": 0.91},
    "tilted the other way": {"sigma_x": 0.06, "sigma_y": 0.1, "rho": -0.91},
    "tilted within two pixels": {"sigma_x": 0.03, "sigma_y": 0.04, "rho": 0.8},
    "narrow and high": {"sigma_x": 0.006, "sigma_y": 0.5},
    "narrow, high and tilted": {"sigma_x": 0.02, "sigma_y": 0.6, "rho": 0.85},
    "wide and flat": {"sigma_x": 2.0, "sigma_y": 0.01},
    "larger than the image": {"sigma_x": 40.0, "sigma_y": 7.0, "rho": 0.6},
    "far larger": {"sigma_x": 1e6, "sigma_y": 1e5},
    "off the canvas": {"x": 1.6, "y": -1.5, "sigma_x": 0.3, "sigma_y": 0.4},
    "out of reach": {"x": 30.0, "y": -1e9},
    "a tenth of a pixel": {"sigma_x": 0.005, "sigma_y": 0.004, "x": 0.05, "y": -0.05},
    "negative": {"grey": -3.0},
    "dark": {"grey": 0.0},
}


@pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_that_break_careless_kernels(shape, codec):
    # A needle's gradient is the difference of large sums, and off the canvas the cut takes more of what is seen.
    tolerance = 2e-3 if "needle" in shape or "off" in shape else 1e-4
    # Eight draws of the pull: one alone may cancel, and an error would look large beside nothing.
    assert_as_oracle(one(**SHAPES[shape]).repeat(8, 1, 1), GREY, codec, 40, 40, tolerance)


@compiled
def _runs(splats, count, padded, theta, derived):
    take_columns(splats, 0, count, 6, theta, derived, padded, 40, 40)
    place_boxes(theta, derived, padded, 40, 40, np.float32(CUT), True)


def test_shapes_are_summed_in_runs_of_every_length_and_in_spans():
    # What the shapes above promise is only worth its name if each way of summing is taken.
    splats = torch.cat([one(**shape) for shape in SHAPES.values()], dim=1).numpy().ravel()
    count = len(SHAPES)
    padded = -(-count // LANES) * LANES
    derived = np.zeros((TABLE, padded), np.float32)
    _runs(splats, count, padded, np.zeros(6 * padded, np.float32), derived.ravel())
    assert set(derived[CHAIN, :count]) == {0, 4, 8, 16}


@pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
def test_the_gradient_of_the_image_may_lie_in_any_order_of_memory(codec):
    leaf = torch.from_numpy(random_splats(RGB, images=2, gaussians=9)).requires_grad_()
    image = render_differentiable(leaf, RGB, codec, 11, 13, clip=False)
    pull = torch.randn(2, 11, 13, 3, generator=torch.Generator().manual_seed(0))
    pulls = (
        pull,
        pull.permute(0, 3, 1, 2).contiguous().permute(0, 2, 3, 1),
        pull.transpose(1, 2).contiguous().transpose(1, 2),
    )
    gradients = [torch.autograd.grad(image, leaf, given, retain_graph=True)[0] for given in pulls]
    assert torch.equal(gradients[0], gradients[1])
    assert torch.equal(gradients[0], gradients[2])
    (ones,) = torch.autograd.grad(image, leaf, torch.ones_like(pull), retain_graph=True)
    assert torch.equal(torch.autograd.grad(image.sum(), leaf)[0], ones)


def test_a_change_of_the_image_in_place_is_no_silent_error():
    leaf = torch.from_numpy(random_splats(GREY, images=1, gaussians=5)).requires_grad_()
    (expected,) = torch.autograd.grad(render_differentiable(leaf, GREY, ADDITIVE, 7, 9, clip=False).sum(), leaf)
    changed = render_differentiable(leaf, GREY, ADDITIVE, 7, 9, clip=False).mul_(2)
    torch.testing.assert_close(torch.autograd.grad(changed.sum(), leaf)[0], 2 * expected)
    # The gradient of a quotient reads the image.
    changed = render_differentiable(leaf, GREY, NORMALISED, 7, 9, clip=False).mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(changed.sum(), leaf)


def test_gradients_are_those_of_the_value_itself():
    # Central differences of the compiled image, in places where no box changes: no oracle in between.
    splats = torch.from_numpy(random_splats(GREY, images=1, gaussians=6, seed=3))
    splats[..., :2] += 0.15
    pull = torch.randn(1, 16, 16, 1, generator=torch.Generator().manual_seed(0))

    def loss(given):
        return (render_differentiable(given, GREY, ADDITIVE, 16, 16, clip=False) * pull).double().sum()

    leaf = splats.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(leaf), leaf)
    step = 2e-3
    for place in np.ndindex(6, 6):
        moved = torch.zeros_like(splats)
        moved[0, *place] = step
        slope = float(loss(splats + moved) - loss(splats - moved)) / (2 * step)
        assert slope == pytest.approx(float(gradient[0, *place]), abs=0.01 * float(gradient.abs().max()))


def test_numbers_of_no_gaussian_are_drawn_as_the_nearest_and_have_no_gradient():
    splats = torch.cat(
        [one(sigma_x=0.0), one(sigma_y=-1.0), one(rho=1.0, x=0.0, y=0.0), one(rho=-1.5)], dim=1
    ).requires_grad_()
    for given in (splats, splats.double()):
        image = render_differentiable(given, GREY, ADDITIVE, 9, 9, clip=False)
        (gradient,) = torch.autograd.grad(image.sum(), splats)
        assert torch.isfinite(image).all()
        assert torch.isfinite(gradient).all()
        assert gradient[0, 0, 0] == gradient[0, 1, 1] == gradient[0, 2, 2] == gradient[0, 3, 2] == 0
        assert gradient[0, 2, 3] > 0


def test_extreme_numbers_neither_crash_nor_poison():
    rng = np.random.default_rng(0)
    exponents = rng.uniform(-38, 38, (4, 300, RGB.width))
    splats = (rng.choice([-1.0, 1.0], exponents.shape) * 10**exponents).astype(np.float32)
    splats[..., RGB.colour_slice] = 0.5
    leaf = torch.from_numpy(splats).requires_grad_()
    for codec in (ADDITIVE, NORMALISED):
        image = render_differentiable(leaf, RGB, codec, 12, 12, clip=False)
        assert torch.isfinite(image).all()
        (gradient,) = torch.autograd.grad(image.sum(), leaf)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_named(bad, dtype):
    splats = torch.from_numpy(random_splats(GREY, images=3, gaussians=5)).to(dtype)
    splats[2, 4, 1] = bad
    with pytest.raises(TrainingError, match=r"Gaussian 4 of image 2 .* not finite.*Allowed: finite"):
        render_differentiable(splats, GREY, ADDITIVE, 8, 8)


def test_the_clip_is_the_codecs_and_kills_gradients():
    bright = one(grey=4.0).requires_grad_()
    clipped = render_differentiable(bright, GREY, ADDITIVE, 8, 8)
    assert clipped.max() == 1
    assert render_differentiable(bright, GREY, ADDITIVE, 8, 8, clip=False).max() > 1
    white = torch.autograd.grad(clipped[0, 3, 4, 0], bright)[0]
    assert (white == 0).all()


def test_the_number_of_threads_changes_nothing():
    splats = torch.from_numpy(random_splats(GREY, images=7, gaussians=9))
    pull = torch.ones(7, 11, 11, 1)

    def drawn(workers):
        def draw(given):
            return render_differentiable(given, GREY, ADDITIVE, 11, 11, clip=False, workers=workers)

        return gradients(draw, splats, pull)

    alone, together = drawn(1), drawn(3)
    assert torch.equal(alone[0], together[0])
    assert torch.equal(alone[1], together[1])
    with concurrent.futures.ThreadPoolExecutor(4) as callers:
        assert all(torch.equal(image, alone[0]) for image, _ in callers.map(drawn, [2] * 8))


def test_strided_and_empty_batches_and_no_gradient():
    splats = torch.from_numpy(random_splats(GREY, images=2, gaussians=6))
    strided = splats.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_()
    image = render_differentiable(strided, GREY, ADDITIVE, 8, 8)
    with torch.no_grad():
        assert torch.equal(image, render_differentiable(strided, GREY, ADDITIVE, 8, 8))
    assert image.permute(0, 3, 1, 2).is_contiguous()
    assert render_differentiable(splats[:0], GREY, ADDITIVE, 8, 8).shape == (0, 8, 8, 1)
    nothing = render_differentiable(splats[:, :0], GREY, NORMALISED, 8, 8)
    assert torch.equal(nothing, torch.zeros(2, 8, 8, 1))


def test_other_tensors_take_the_oracle():
    splats = torch.from_numpy(random_splats(GREY_ALPHA, images=1, gaussians=4))
    assert not is_compiled(splats.double(), ADDITIVE)
    assert not is_compiled(splats, OVER)
    assert not is_compiled(splats.to("meta"), ADDITIVE)
    for given, codec in ((splats.double(), NORMALISED), (splats, OVER)):
        result = render_differentiable(given, GREY_ALPHA, codec, 6, 7)
        torch.testing.assert_close(result, render(given, GREY_ALPHA, codec, 6, 7))


def test_what_cannot_be_rendered_is_refused():
    splats = torch.from_numpy(random_splats(RGB))
    with pytest.raises(StoreMismatchError, match=r"over/2.*additive/1, normalised/1, over/1"):
        render_differentiable(splats, RGB, "over/2", 4, 4)
    with pytest.raises(StoreMismatchError, match=r"\(3, 13, 8\).*\[image, gaussian, 6\]"):
        render_differentiable(splats, GREY, ADDITIVE, 4, 4)
    with pytest.raises(JobError, match="0x4 pixels"):
        render_differentiable(splats, RGB, ADDITIVE, 0, 4)
