"""What the tests of interpreted kernels share: batches, the plain rendering of their parameters, and its gradients."""

from __future__ import annotations

import numpy as np
import torch

from data_schemas.splats import layout_for
from encoders.base import FitSettings
from encoders.cuda.slabs import schedule_on
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y
from encoders.recipe import Recipe
from encoders.render import render


def batch_of(make, images, frames, *, recipe=None, **settings):
    """A batch with given starts.

    Args:
        make: a kind of ``DeviceFit``, from settings, recipe, height, width and channels.
        images: uint8 [image, height, width, channel].
        frames: float32 [image, gaussian, parameter].
        recipe: of the fit.
        settings: of the fit, where they are not one step and signed colours.
    """
    _, height, width, channels = images.shape
    recipe = recipe or Recipe()
    made = FitSettings(frames.shape[1], **{"steps": 1, "colours": "signed", **settings})
    rates = schedule_on(torch.device("cpu"), recipe, made)
    fit = make(made, recipe, height, width, channels)
    return fit.batch(torch.from_numpy(images), torch.from_numpy(frames), rates)


def rendering(frame, height, width, codec):
    """The codec's formula on pixel-frame parameters, by the plain renderer: differentiable, in float64."""
    ratio = frame[..., B] * torch.exp(-frame[..., LOG_C])
    root = torch.sqrt(1 + ratio**2)
    columns = [
        root * torch.exp(-frame[..., LOG_A]) * (2 / width),
        torch.exp(-frame[..., LOG_C]) * (2 / height),
        -ratio / root,
        *frame[..., COLOUR:].unbind(-1),
        frame[..., X] * (2 / width) - 1,
        frame[..., Y] * (2 / height) - 1,
    ]
    splats = torch.stack(columns, dim=-1)
    return render(splats, layout_for(frame.shape[-1] - COLOUR), codec, height, width, clip=False)


def residuals(frames, images, codec):
    """The plain rendering less the images in [0, 1], without what clipping hides: [image, height, width, channel]."""
    _, height, width, _ = images.shape
    rendered, target = rendering(frames, height, width, codec), torch.from_numpy(images).double() / 255
    hidden = ((rendered < 0) & (target == 0)) | ((rendered > 1) & (target == 1))
    return torch.where(hidden, 0, rendered - target)


def noise(height, width, channels, images=1, seed=0):
    """Noise with black and white pixels in it, uint8 [image, height, width, channel]."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-120, 380, (images, height, width, channels))
    return np.clip(values, 0, 255).astype(np.uint8)


def in_own_frame(frames, gradient):
    """Chain rule from parameters to (u, v) of the centre and the three strains of the shape."""
    a, b, c = np.exp(frames[..., LOG_A]), frames[..., B], np.exp(frames[..., LOG_C])
    along = gradient[..., X] / a
    own = [
        along,
        (gradient[..., Y] - b * along) / c,
        gradient[..., LOG_A] + b * gradient[..., B],
        c * gradient[..., B],
        gradient[..., LOG_C],
    ]
    return np.concatenate([np.stack(own, axis=-1), gradient[..., COLOUR:]], axis=-1)


def own_gradients(frames, images, codec):
    """Gradients of half the sum of squares in each Gaussian's own frame, by autograd in float64."""
    leaf = torch.from_numpy(frames).double().requires_grad_()
    error = 0.5 * residuals(leaf, images, codec).square().sum()
    (gradient,) = torch.autograd.grad(error, leaf)
    return in_own_frame(frames.astype(np.float64), gradient.numpy())


def assert_close_by_parameter(result, expected, tolerance):
    """Equality of gradients, each parameter by its own scale."""
    # A Gaussian alone in a normalised sum has next to no gradient but its colour's: what is left is rounding.
    least = 1e-2 * np.abs(expected).max()
    for parameter in range(expected.shape[-1]):
        scale = max(np.abs(expected[..., parameter]).max(), least)
        np.testing.assert_allclose(result[..., parameter], expected[..., parameter], atol=tolerance * scale)
