"""The kernels for large images in Triton's interpreter, on small ones, against the plain renderer and the fused fit.

Run by test_fit_cuda.py in a process of its own.
"""

from functools import partial

import numpy as np
import pytest
import torch

from data_schemas.splats import ADDITIVE, NORMALISED
from encoders.cuda import slabs as launches
from encoders.cuda import tiled_batch
from encoders.cuda.device_fit import padded
from encoders.cuda.engine import CudaEncoder
from encoders.cuda.fused_batch import FusedFit
from encoders.cuda.slabs import device_fit, schedule_on
from encoders.cuda.tiled_batch import TiledFit, places_in_order
from encoders.frame import COLOUR, LOG_A, LOG_C, X, Y
from encoders.recipe import Recipe
from encoders.settings import MAX_GAUSSIANS, FitSettings
from encoders.start.begin import begin
from pipeline.sources import MOST_SIZE
from tests.encoders.cpu.test_fit import random_frame
from tests.encoders.encoder_contract import quality
from tests.encoders.kernel_examples import (
    assert_close_by_parameter,
    batch_of,
    noise,
    own_gradients,
    residuals,
)
from tests.encoders.splat_examples import smooth_images

pytestmark = pytest.mark.usefixtures("quick_interpreter")

CODECS = (ADDITIVE, NORMALISED)


def tiled(images, frames, *, parts=2, **settings):
    """A batch of the tiled fit with given starts."""
    return batch_of(partial(TiledFit, parts=parts), images, frames, **settings)


fused = partial(batch_of, FusedFit.of)


@pytest.fixture
def wide_cut(monkeypatch):
    """So wide that boxes lose less than the rounding of float32 does."""
    monkeypatch.setattr(tiled_batch, "TILE_CUT", 6.0)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(("height", "width", "gaussians", "channels"), [(20, 37, 70, 3), (33, 16, 5, 1), (5, 9, 1, 3)])
def test_values_and_gradients_are_those_of_the_plain_renderer(height, width, gaussians, channels, codec, wide_cut):
    images = noise(height, width, channels, images=2)
    frames = np.stack([random_frame(gaussians, channels, height, width, seed) for seed in (0, 1)])
    if gaussians == 1:
        frames[:, 0, [X, Y]] = 0.4 * width, 0.6 * height
    batch = tiled(images, frames, codec=codec)
    batch.advance(1)
    expected = residuals(torch.from_numpy(frames).double(), images, codec)
    error = 0.5 * expected.square().sum(dim=(1, 2, 3))
    np.testing.assert_allclose(batch.least.numpy(), error.numpy(), rtol=2e-5)
    back = torch.argsort(batch.index, dim=1)[:, :gaussians]
    mean = batch.tables[:, 2].gather(2, back[:, None].expand(-1, COLOUR + channels, -1)).transpose(1, 2).numpy()
    own = np.concatenate([own_gradients(frames[i : i + 1], images[i : i + 1], codec) for i in (0, 1)])
    assert_close_by_parameter(mean / (1 - np.float64(Recipe().beta1)), own, 2e-5)


@pytest.mark.parametrize(
    ("codec", "colours"),
    [
        (ADDITIVE, "bounded"),
        (NORMALISED, "signed"),
        pytest.param(ADDITIVE, "signed", marks=pytest.mark.soak),
        pytest.param(NORMALISED, "bounded", marks=pytest.mark.soak),
    ],
)
def test_steps_are_those_of_the_fused_fit(codec, colours, monkeypatch):
    monkeypatch.setattr(tiled_batch, "TILE_CUT", 6.0)
    monkeypatch.setattr(tiled_batch, "_SORT_EVERY", 2)
    images = smooth_images(1, 20)
    frames = begin(images, FitSettings(40, codec=codec))
    # Steps of half the length: the paths of rounding errors do not part.
    recipe = Recipe(rate_centre=0.05, rate_shape=0.025, rate_colour=0.01, reseed_every=0)
    found = []
    for begun in (tiled, fused):
        batch = begun(images, frames, codec=codec, colours=colours, steps=4, recipe=recipe)
        batch.advance(5)
        assert batch.taken.tolist() == [4]
        assert batch.running.tolist() == [0]
        found.append(batch.best().numpy())
    assert not np.allclose(found[0], frames, atol=1e-2)
    np.testing.assert_allclose(found[0], found[1], atol=2e-3)


def test_the_cut_off_loses_next_to_nothing():
    images = smooth_images(1, 40)
    frames = begin(images, FitSettings(60))
    cut, whole = (begun(images, frames, steps=0) for begun in (tiled, fused))
    for batch in (cut, whole):
        batch.advance(1)
    assert float(cut.least[0]) != float(whole.least[0])
    assert float(cut.least[0]) == pytest.approx(float(whole.least[0]), rel=1e-3)


def test_dark_gaussians_are_moved_to_where_light_is_lacking():
    images = smooth_images(1, 20)
    frames = begin(images, FitSettings(40))
    frames[:, 5:25, COLOUR:] = 0
    recipe = Recipe(reseed_every=2, reseed_until=0.9, rate_colour=1e-4)
    errors = []
    for every in (2, 0):
        batch = tiled(images, frames, recipe=Recipe(**{**vars(recipe), "reseed_every": every}), steps=4)
        batch.advance(5)
        errors.append(float(batch.least[0]))
    assert errors[0] < 0.7 * errors[1]


def test_launches_may_stop_after_any_step_and_images_may_go_alone():
    images = smooth_images(2, 17)
    frames = begin(images, FitSettings(20))
    whole, parts = (tiled(images, frames, steps=2) for _ in range(2))
    whole.advance(3)
    for until in (1, 2, 3):
        parts.advance(until)
    np.testing.assert_array_equal(whole.best().numpy(), parts.best().numpy())
    alone = tiled(images[1:], frames[1:], steps=2)
    alone.advance(3)
    np.testing.assert_array_equal(alone.best().numpy(), whole.best()[1:].numpy())


def test_an_image_stops_at_its_target_while_another_goes_on(monkeypatch):
    monkeypatch.setattr(tiled_batch, "_LOOK_EVERY", 2)
    images = np.concatenate([np.zeros((1, 16, 16, 3), np.uint8), smooth_images(1, 16)])
    frames = begin(images, FitSettings(33))
    batch = tiled(images, frames, steps=6, target_psnr=40.0, colours="bounded")
    batch.advance(7)
    assert batch.taken.tolist() == [0, 6]
    both_black = np.zeros((2, 16, 16, 3), np.uint8)
    early = tiled(both_black, begin(both_black, FitSettings(33)), steps=50, target_psnr=40.0)
    early.advance(51)
    assert early.taken.tolist() == [0, 0]
    assert early.step == 51


def test_a_hard_image_goes_on_for_another_round():
    images = np.concatenate([np.zeros((1, 16, 16, 3), np.uint8), smooth_images(1, 16)])
    batch = tiled(images, begin(images, FitSettings(33)), steps=2, rounds=2, target_psnr=60.0, colours="bounded")
    batch.advance(7)
    assert batch.taken.tolist() == [0, 6]


def test_the_parts_of_a_box_make_no_difference_but_rounding():
    images = noise(24, 24, 3)
    frames = random_frame(40, 3, 24, 24)[None]
    one, many = (tiled(images, frames, parts=parts) for parts in (1, 5))
    for batch in (one, many):
        batch.advance(2)
    np.testing.assert_allclose(one.tables[:, 2].numpy(), many.tables[:, 2].numpy(), rtol=1e-3, atol=1e-4)


def test_exponents_keep_their_digits_far_from_the_origin():
    # A needle in the last corner of a wide image, where U is a difference of numbers of some thousands.
    images = noise(8, 2000, 1)
    frames = np.zeros((1, 1, 6), np.float32)
    frames[0, 0] = [1990.3, 4.2, 1.5, 3.0, 1.2, 0.7]
    assert (LOG_A, LOG_C) == (2, 4)
    batch = tiled(images, frames)
    batch.advance(1)
    mean = batch.tables[0, 2, :, 0].numpy() / (1 - np.float64(Recipe().beta1))
    np.testing.assert_allclose(mean, own_gradients(frames, images, ADDITIVE)[0, 0], rtol=5e-3, atol=1e-3)


def test_neighbours_in_the_order_are_neighbours_in_the_image():
    rng = np.random.default_rng(0)
    x, y = torch.from_numpy(rng.uniform(0, 256, (2, 4096)))
    order = torch.argsort(places_in_order(x, y), stable=True)
    step = torch.hypot(x[order].diff(), y[order].diff())
    assert step.median() < 8
    assert torch.hypot(x.diff(), y.diff()).median() > 80


def test_large_images_are_fitted_by_the_engine(monkeypatch):
    assert isinstance(device_fit(FitSettings(200), Recipe(), 64, 64, 3), FusedFit)
    assert isinstance(device_fit(FitSettings(1024), Recipe(), 128, 128, 3), FusedFit)
    for gaussians, size in ((100, 129), (2049, 64), (20_000, 1024)):
        assert isinstance(device_fit(FitSettings(gaussians), Recipe(), size, size, 3), TiledFit)
    monkeypatch.setattr(launches, "FUSED_PIXELS", 100)
    images = smooth_images(1, 16)
    few, many = (CudaEncoder(FitSettings(33, steps=steps), device="cpu").fit(images) for steps in (0, 8))
    assert many.steps.tolist() == [8]
    assert quality(many, images)[0] > quality(few, images)[0] + 2


@pytest.mark.parametrize(("codec", "channels"), [(ADDITIVE, 1), (ADDITIVE, 3), (NORMALISED, 3)])
def test_the_count_of_memory_covers_what_is_allocated(codec, channels):
    settings = FitSettings(gaussians=100, steps=2, codec=codec)
    fit = TiledFit(settings, Recipe(), 40, 50, channels)
    images = torch.from_numpy(smooth_images(2, 50, channels)[:, :40])
    starts = torch.zeros((2, 100, COLOUR + channels))
    batch = fit.batch(images, starts, schedule_on(images.device, fit.recipe, settings))
    tensors = [value for value in vars(batch).values() if isinstance(value, torch.Tensor)]
    held = sum(tensor.numel() * tensor.element_size() for tensor in [images, starts, starts, *tensors])
    assert 0.5 * 2 * fit.bytes_per_image < held <= 2 * fit.bytes_per_image


def test_places_inside_an_image_fit_32_bits():
    """Kernels count images in 64 bits and what lies inside one in 32: up to four planes, and the tables of K."""
    assert 4 * MOST_SIZE**2 < 2**31
    assert 4 * (COLOUR + 3) * padded(MAX_GAUSSIANS, 32) < 2**31
