"""The compiled optimiser against autograd: sums, gradients, steps."""

import numpy as np
import pytest
import torch

from data_schemas.splats import NORMALISED_EPSILON
from encoders.autograd.reference import ReferenceEncoder, render_frame
from encoders.base import FitSettings
from encoders.cpu import boxes as fit_boxes
from encoders.cpu import fit as fit_kernel
from encoders.cpu import moments as fit_moments
from encoders.cpu import sums as fit_sums
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y, from_splats, to_splats
from encoders.recipe import CUT, Recipe
from encoders.vector import LANES
from tests.encoders.splat_examples import smooth_images

WIDE_CUT = 6.0  # so wide that the box loses less than float32 rounding does


def random_frame(gaussians, channels, height, width, seed=0):
    """Wide, needle-shaped, sub-pixel and off-canvas Gaussians, float32 [gaussian, 5 + channel]."""
    rng = np.random.default_rng(seed)
    frame = np.empty((gaussians, 5 + channels), np.float32)
    frame[:, X], frame[:, Y] = rng.uniform(-3, width + 3, gaussians), rng.uniform(-3, height + 3, gaussians)
    frame[:, LOG_A], frame[:, LOG_C] = rng.uniform(-2, 1.4, (2, gaussians))
    frame[:, B] = rng.uniform(-5, 5, gaussians) * np.exp(frame[:, LOG_C])
    frame[:, COLOUR:] = rng.uniform(-0.2, 0.8, (gaussians, channels))
    return frame


class Workspace:
    """The arrays of one image, as ``fit_images`` lays them out."""

    def __init__(self, frame, image, *, normalised, cut=WIDE_CUT):
        self.count, parameters = frame.shape
        self.channels = parameters - COLOUR
        self.height, self.width, _ = image.shape
        self.padded = -(-self.count // LANES) * LANES
        self.tag = (1,) * (self.channels + normalised)
        self.stride = self.width + LANES
        size = self.height * self.stride
        table = np.zeros((parameters, self.padded), np.float32)
        table[X] = -1e4
        table[:, : self.count] = frame.T
        self.theta = table.ravel()
        self.derived = np.zeros(10 * self.padded, np.float32)
        self.moments = np.zeros(8 * self.padded, np.float32)
        self.planes = np.zeros(len(self.tag) * size + LANES, np.float32)
        padded_image = np.zeros((self.channels, self.height, self.stride), np.float32)
        padded_image[:, :, : self.width] = image.transpose(2, 0, 1) / 255
        tail = np.zeros(LANES, np.float32)
        self.target = np.concatenate([padded_image.ravel(), tail])
        self.low = np.where(self.target == 0, 0, -1e30).astype(np.float32)
        self.high = np.where(self.target == 1, 1, 1e30).astype(np.float32)
        self.mask = np.zeros(self.stride + LANES, np.float32)
        self.mask[: self.width] = 1
        self.cut = np.float32(cut)

    def forward(self):
        fit_boxes.derive(self.theta, self.derived, self.padded, self.height, self.width, self.cut)
        # Exactly the room that is asked for, so that a sum beyond it is caught below.
        chains, spans, layout = fit_boxes.room(self.derived, self.count, self.padded)
        self.chains = np.full(chains + LANES, np.nan, np.float32)
        self.spans = np.full(spans + LANES, np.nan, np.float32)
        self.layout = np.full(2 * layout, np.nan, np.float32)
        fit_sums.forward(
            self.theta,
            self.derived,
            self.planes,
            self.chains,
            self.spans,
            self.layout,
            self.count,
            self.padded,
            self.height,
            self.width,
            self.tag,
            self.channels,
        )
        assert np.isnan(self.chains[chains:]).all()
        assert np.isnan(self.spans[spans:]).all()
        planes = self.planes[:-LANES].reshape(len(self.tag), self.height, self.stride)
        return planes[:, :, : self.width].copy()

    def residual(self):
        return fit_sums.residual(
            self.planes,
            self.target,
            self.low,
            self.high,
            self.mask,
            self.height,
            self.width,
            self.tag,
            self.channels,
            np.float32(NORMALISED_EPSILON),
        )

    def backward(self):
        fit_moments.backward(
            self.theta,
            self.derived,
            self.planes,
            self.chains,
            self.spans,
            self.layout,
            self.moments,
            self.count,
            self.padded,
            self.height,
            self.width,
            self.tag,
            self.channels,
        )
        return self.moments.reshape(8, self.padded)[:, : self.count].astype(np.float64)


def oracle(frame, image, *, normalised):
    """Half the one-sided sum of squares and its gradient, float64 autograd."""
    tensor = torch.from_numpy(frame).double()[None].requires_grad_()
    target = torch.from_numpy(image.astype(np.float32) / np.float32(255)).double()[None]
    rendered = render_frame(tensor, *image.shape[:2], normalised=normalised)
    hidden = ((rendered < 0) & (target == 0)) | ((rendered > 1) & (target == 1))
    loss = 0.5 * torch.where(hidden, 0, rendered - target).square().sum()
    loss.backward()
    assert tensor.grad is not None
    return loss.item(), tensor.grad[0].numpy()


CASES = [(1, 1, 8, 8), (7, 1, 9, 13), (8, 3, 16, 16), (13, 3, 11, 7), (70, 1, 28, 28), (30, 3, 33, 40), (3, 3, 1, 1)]


@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize(("gaussians", "channels", "height", "width"), CASES)
def test_loss_and_gradient_are_those_of_autograd(gaussians, channels, height, width, normalised):
    rng = np.random.default_rng(1)
    # Black and white pixels among the others, so that the one-sided rule is met.
    image = rng.choice(np.array([0, 40, 128, 255], np.uint8), (height, width, channels))
    frame = random_frame(gaussians, channels, height, width)
    expected_loss, expected = oracle(frame, image, normalised=normalised)
    space = Workspace(frame, image, normalised=normalised)
    space.forward()
    assert space.residual() == pytest.approx(expected_loss, rel=1e-4, abs=1e-5)
    sx, sy, sxx, sxy, syy, *colours = space.backward()
    a, b, c = np.exp(frame[:, LOG_A].astype(float)), frame[:, B].astype(float), np.exp(frame[:, LOG_C].astype(float))
    gradient = np.stack(
        [
            a * (a * sx + b * sy),
            b * (a * sx + b * sy) + c * c * sy,
            -a * (a * sxx + b * sxy),
            -(a * sxy + b * syy),
            -c * c * syy,
            *colours[:channels],
        ],
        axis=1,
    )
    scale = np.abs(expected).max(axis=0) + 1e-3
    np.testing.assert_allclose(gradient / scale, expected / scale, atol=1e-3)


def test_needles_and_chains_are_both_met():
    # The gradient test is only worth its name if both ways of summing are taken.
    space = Workspace(random_frame(70, 1, 28, 28), np.zeros((28, 28, 1), np.uint8), normalised=False)
    space.forward()
    table = space.derived.reshape(10, -1)[:, :70]
    on_canvas = (table[fit_boxes.VECTORS] > 0) & (table[fit_boxes.ROWS] > 0)
    chain = table[fit_boxes.CHAIN] > 0
    assert (on_canvas & chain).sum() > 10
    assert (on_canvas & ~chain).sum() > 10
    assert (~on_canvas).sum() > 0


def test_cut_off_loses_less_than_half_a_percent_of_the_greatest_value():
    frame = random_frame(40, 3, 24, 24)
    image = np.zeros((24, 24, 3), np.uint8)
    near = Workspace(frame, image, normalised=False, cut=CUT).forward()
    far = Workspace(frame, image, normalised=False).forward()
    assert 0 < np.abs(near - far).max() < 0.005


@pytest.mark.parametrize("steps", [1, 10])
@pytest.mark.parametrize("bounded", [True, False])
@pytest.mark.parametrize("channels", [1, 3])
def test_steps_are_those_of_the_reference(channels, bounded, steps):
    images = smooth_images(1, 16, channels)
    recipe = Recipe()
    settings = FitSettings(gaussians=9, steps=steps, colours="bounded" if bounded else "signed", start="grid")
    splats = ReferenceEncoder(settings, recipe=recipe).fit(images).splats
    expected = from_splats(splats, 16, 16)
    from encoders.start.begin import begin

    start = begin(images, settings, recipe.start)
    result = np.empty_like(start)
    taken, errors = np.zeros(1, np.int32), np.zeros(1, np.float32)
    fit_kernel.fit_images(
        images,
        start,
        result,
        taken,
        errors,
        recipe.schedule(steps),
        np.array([recipe.beta1, recipe.beta2, recipe.epsilon], np.float32),
        np.array([recipe.margin, recipe.least_log, recipe.greatest_log, recipe.greatest_slope], np.float32),
        np.float32(-1),
        (1,) * channels,
        bounded,
        np.float32(0),
        np.float32(WIDE_CUT),
        steps // 2,
        0,
        0,
        np.float32(-1),
    )
    assert taken[0] == steps
    assert not np.allclose(result, start, atol=1e-3)
    np.testing.assert_allclose(result, expected, atol=3e-3)


def test_frame_and_splats_are_inverse():
    frame = random_frame(50, 3, 20, 30)[None]
    again = from_splats(to_splats(frame, 20, 30), 20, 30)
    np.testing.assert_allclose(again, frame, rtol=2e-3, atol=2e-3)
