"""The kernels of engine ``cuda`` in Triton's interpreter, on the CPU, against the plain renderer.

Run by test_fit_cuda.py in a process of its own: Triton reads TRITON_INTERPRET while it decorates. The interpreter
executes whole tiles one operation at a time, so it proves the arithmetic, the masks and the addresses, and not the
barriers (test_fit_cuda_compiled.py counts those).
"""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from data_schemas.splats import ADDITIVE, NORMALISED
from encoders.autograd.reference import ReferenceEncoder
from encoders.base import FitSettings, FitStoppedError
from encoders.cpu.engine import CpuEncoder
from encoders.cuda.device_fit import Tiles
from encoders.cuda.engine import CudaEncoder
from encoders.cuda.fused_batch import FusedFit
from encoders.cuda.self_check import compare
from encoders.frame import COLOUR, LOG_A, LOG_C, B, X, Y, from_splats, to_splats
from encoders.quality import psnr_of_mean_error
from encoders.recipe import Recipe
from encoders.start.begin import begin
from tests.encoders.cpu.test_fit import random_frame
from tests.encoders.encoder_contract import quality
from tests.encoders.kernel_examples import (
    assert_close_by_parameter,
    batch_of,
    in_own_frame,
    noise,
    own_gradients,
    residuals,
)
from tests.encoders.splat_examples import smooth_images, special_images

pytestmark = pytest.mark.usefixtures("quick_interpreter")

CODECS = (ADDITIVE, NORMALISED)


def fused(images, frames, *, tiles=None, **settings):
    """A batch of the fused fit with given starts."""
    return batch_of(partial(FusedFit.of, tiles=tiles), images, frames, **settings)


def residual_planes(batch):
    """[image, height, width, channel] as the last forward pass left them."""
    fit = batch.fit
    size = fit.height * fit.stride
    tables = 4 * (COLOUR + fit.channels) * fit.room + 5 * fit.room
    first = -(-tables // 32) * 32
    planes = batch.records[:, first : first + fit.channels * size]
    return planes.unflatten(1, (fit.channels, fit.height, fit.stride))[..., : fit.width].permute(0, 2, 3, 1)


SIZES = [(9, 8, 7), (7, 13, 1), (5, 33, 33), (33, 5, 40)]
PRODUCTION = [Tiles(), Tiles(strip=4, run=4), Tiles(strip=8, run=16, together=4), Tiles(strip=4, run=8)]


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "gaussians"), SIZES)
def test_values_are_those_of_the_plain_renderer(height, width, gaussians, channels, codec):
    images = noise(height, width, channels, images=2)
    frames = np.stack([random_frame(gaussians, channels, height, width, seed) for seed in (0, 1)])
    batch = fused(images, frames, codec=codec, steps=0)
    batch.advance(1)
    expected = residuals(torch.from_numpy(frames).double(), images, codec)
    error = 0.5 * expected.square().sum(dim=(1, 2, 3))
    np.testing.assert_allclose(batch.least.numpy(), error.numpy(), rtol=2e-5)
    np.testing.assert_array_equal(batch.best().numpy(), frames)
    if codec == ADDITIVE:
        np.testing.assert_allclose(residual_planes(batch).numpy(), expected.numpy(), atol=2e-5)


def kernel_gradients(batch):
    """Adam's mean after one step, over the share of the new gradient in it."""
    batch.advance(1)
    mean = batch.tables(2)[..., : batch.fit.settings.gaussians].transpose(1, 2)
    return mean.numpy() / (1 - np.float64(batch.fit.recipe.beta1))


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width", "gaussians"), SIZES)
def test_every_gradient_is_that_of_autograd(height, width, gaussians, channels, codec):
    images = noise(height, width, channels)
    frames = random_frame(gaussians, channels, height, width)[None]
    if gaussians == 1:
        frames[0, 0, [X, Y]] = 0.4 * width, 0.6 * height  # the only one had better be seen
    result = kernel_gradients(fused(images, frames, codec=codec))
    assert_close_by_parameter(result, own_gradients(frames, images, codec), 2e-5)


@pytest.mark.parametrize("tiles", PRODUCTION)
@pytest.mark.parametrize(("channels", "codec"), [(1, ADDITIVE), (3, ADDITIVE), (1, NORMALISED), (3, NORMALISED)])
def test_gradients_with_the_tiles_of_a_graphics_card(tiles, channels, codec):
    images = noise(6, 11, channels)
    frames = random_frame(35, channels, 6, 11, seed=3)[None]
    expected = own_gradients(frames, images, codec)
    result = kernel_gradients(fused(images, frames, codec=codec, tiles=tiles))
    assert_close_by_parameter(result, expected, 2e-5)


@pytest.mark.parametrize("codec", CODECS)
def test_gradients_are_those_of_finite_differences(codec):
    images = noise(8, 9, 3)
    frames = random_frame(5, 3, 8, 9, seed=4)[None].astype(np.float64)

    def error(frame):
        return float(0.5 * residuals(torch.from_numpy(frame), images, codec).square().sum())

    gradient = np.zeros_like(frames)
    for at in np.ndindex(frames.shape):
        there, back = frames.copy(), frames.copy()
        there[at] += 1e-6
        back[at] -= 1e-6
        gradient[at] = (error(there) - error(back)) / 2e-6
    result = kernel_gradients(fused(images, frames.astype(np.float32), codec=codec))
    assert_close_by_parameter(result, in_own_frame(frames, gradient), 1e-4)


@pytest.mark.parametrize("kind", ["needle", "far away", "below a pixel", "wide"])
def test_extreme_gaussians(kind):
    frames = random_frame(6, 3, 10, 10, seed=5)[None]
    frames[..., X], frames[..., Y] = np.linspace(2, 8, 6), np.linspace(7, 3, 6)
    if kind == "needle":
        frames[..., LOG_A], frames[..., LOG_C] = 1.6, 1.6
        frames[..., B] = 6 * np.exp(1.6)
    elif kind == "far away":
        frames[..., X] += 3e3
    elif kind == "below a pixel":
        frames[..., LOG_A], frames[..., LOG_C], frames[..., B] = 3.0, 3.0, 0
    else:
        frames[..., LOG_A], frames[..., LOG_C], frames[..., B] = -4.0, -4.0, 0
    images = noise(10, 10, 3)
    result = kernel_gradients(fused(images, frames))
    assert np.isfinite(result).all()
    expected = own_gradients(frames, images, ADDITIVE)
    if kind == "far away":
        assert not result.any()
    else:
        np.testing.assert_allclose(result, expected, atol=2e-4 * np.abs(expected).max(axis=(0, 1)).min() + 1e-6)


@pytest.mark.parametrize(("steps", "tolerance"), [(1, 2e-5), (10, 2e-3)])
@pytest.mark.parametrize("colours", ["bounded", "signed"])
@pytest.mark.parametrize(("channels", "codec"), [(1, ADDITIVE), (3, NORMALISED)])
def test_steps_are_those_of_the_reference(channels, codec, colours, steps, tolerance):
    images = smooth_images(1, 12, channels)
    settings = FitSettings(9, steps=steps, colours=colours, codec=codec, start="grid")
    expected = from_splats(ReferenceEncoder(settings).fit(images).splats, 12, 12)
    result = from_splats(CudaEncoder(settings, device="cpu").fit(images).splats, 12, 12)
    assert not np.allclose(result, begin(images, settings), atol=1e-3)
    np.testing.assert_allclose(result, expected, atol=tolerance)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("start", ["transport", "adaptive"])
def test_dark_gaussians_move_as_in_the_reference(start, channels):
    images = smooth_images(1, 12, channels)
    # Colours move so little that the dark stay dark until they are moved.
    recipe = Recipe(reseed_every=2, reseed_until=0.9, rate_colour=1e-4)
    settings = FitSettings(40, steps=4, start=start)
    frames = begin(images, settings)
    frames[:, 5:20, COLOUR:] = 0  # more dark ones than there is need for: they take it from each other

    def fitted(encoder):
        with pytest.MonkeyPatch.context() as patch:
            for module in ("encoders.autograd.descent", "encoders.cuda.slabs"):
                patch.setattr(f"{module}.begin", lambda images, settings, recipe: frames.copy())
            return from_splats(encoder.fit(images).splats, 12, 12)

    still = fitted(ReferenceEncoder(settings, recipe=replace(recipe, reseed_every=0)))
    expected = fitted(ReferenceEncoder(settings, recipe=recipe))
    moved = np.abs(expected - still)[0, :, [X, Y]].max(axis=0) > 0.7
    assert moved.sum() > 2
    result = fitted(CudaEncoder(settings, device="cpu", recipe=recipe))
    np.testing.assert_allclose(result, expected, atol=2e-3)


@pytest.mark.parametrize("codec", [ADDITIVE, pytest.param(NORMALISED, marks=pytest.mark.soak)])
def test_the_cpu_engine_reaches_the_same_psnr(codec):
    images = smooth_images(1, 12)
    settings = FitSettings(16, steps=20, codec=codec)
    cpu, cuda = (
        psnr_of_mean_error(quality(encoder.fit(images), images, codec))
        for encoder in (CpuEncoder(settings, workers=1), CudaEncoder(settings, device="cpu", workers=1))
    )
    assert cuda == pytest.approx(cpu, abs=0.3)
    assert cuda > 24


def test_a_launch_may_stop_after_any_step():
    images = smooth_images(2, 9)
    frames = begin(images, FitSettings(10))
    whole, parts = (fused(images, frames, steps=5, colours="bounded") for _ in range(2))
    whole.advance(6)
    for until in (1, 4, 6):
        parts.advance(until)
    np.testing.assert_array_equal(whole.records.numpy(), parts.records.numpy())
    assert parts.taken.tolist() == [5, 5]
    assert parts.running.tolist() == [0, 0]


def test_the_best_iterate_is_kept():
    images = smooth_images(1, 9)
    batch = fused(images, begin(images, FitSettings(10)), steps=8, colours="signed")
    # Steps that grow, so that the last iterate is not the best.
    batch.rates = torch.tensor([0.0, 0.0, 0.002]) * 3.0 ** torch.arange(8)[:, None]
    batch.advance(9)
    found, last = (
        0.5 * residuals(table.double(), images, ADDITIVE).square().sum()
        for table in (batch.best(), batch.tables(0)[..., :10].transpose(1, 2))
    )
    assert float(batch.least[0]) == pytest.approx(float(found), rel=1e-4)
    assert found < last


def test_what_fills_the_last_group_never_moves():
    images = noise(9, 9, 3)
    batch = fused(images, random_frame(5, 3, 9, 9)[None], steps=3)
    before = batch.tables(0)[..., 5:].clone()
    batch.advance(4)
    np.testing.assert_array_equal(batch.tables(0)[..., 5:].numpy(), before.numpy())


def encoder(**more):
    """A short fit."""
    keywords = {key: more.pop(key) for key in ("batch", "workers") if key in more}
    return CudaEncoder(FitSettings(**{"gaussians": 8, "steps": 4, **more}), device="cpu", **keywords)


def test_the_result_of_an_image_does_not_depend_on_the_batch_or_the_threads():
    images = smooth_images(3, 7)
    whole = encoder(steps=2).fit(images)
    for other in (encoder(steps=2, batch=2).fit(images), encoder(steps=2, workers=1).fit(images)):
        np.testing.assert_array_equal(whole.splats, other.splats)
        np.testing.assert_array_equal(whole.steps, other.steps)
    np.testing.assert_array_equal(encoder(steps=2).fit(images[2:3]).splats, whole.splats[2:3])
    assert whole.core_seconds > 0


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("Triton Error [CUDA]: out of memory")],
    ids=["torch", "triton"],
)
def test_out_of_memory_halves_the_batch_and_loses_nothing(monkeypatch, caplog, error):
    from encoders.cuda import fused_batch

    images = smooth_images(7, 6)
    expected = encoder(steps=1).fit(images)
    made = fused_batch.FusedBatch

    def small_card(fit, pixels, starts, rates):
        if len(pixels) > 2:
            raise error
        return made(fit, pixels, starts, rates)

    monkeypatch.setattr(fused_batch, "FusedBatch", small_card)
    result = encoder(steps=1, batch=7).fit(images)
    np.testing.assert_array_equal(result.splats, expected.splats)
    assert "1 images a launch" in caplog.text or "3 images a launch" in caplog.text


def test_an_image_that_never_fits_the_memory_is_an_error_with_a_next_step(monkeypatch):
    from data_schemas.errors import JobError
    from encoders.cuda import fused_batch

    def full_card(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(fused_batch, "FusedBatch", full_card)
    with pytest.raises(JobError, match=r"One image of 9x9.*which has 2,048 free.*--engine cpu"):
        encoder(batch=3).fit(smooth_images(3, 9))


def test_memory_is_looked_at_before_anything_begins(monkeypatch):
    from data_schemas.errors import JobError
    from encoders.cuda import slabs

    monkeypatch.setattr(CudaEncoder, "free_bytes", property(lambda _: 1000))
    monkeypatch.setattr(slabs.Slabs, "run", lambda *_: pytest.fail("the fit was begun"))
    with pytest.raises(JobError, match="One image of 9x9 with"):
        encoder().fit(smooth_images(1, 9))


def test_other_errors_of_a_launch_are_not_taken_for_a_lack_of_memory(monkeypatch):
    from encoders.cuda import fused_batch

    def broken(*_):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(fused_batch, "FusedBatch", broken)
    with pytest.raises(RuntimeError, match="illegal memory access"):
        encoder().fit(smooth_images(2, 9))


def test_an_image_stops_at_its_target():
    images = np.concatenate([smooth_images(1, 9), special_images(9)["black"]])
    result = encoder(steps=30, gaussians=20, target_psnr=20.0).fit(images)
    assert 0 < result.steps[0] < 30
    assert result.steps[1] < result.steps[0]
    assert (quality(result, images) > 19.7).all()


def test_a_hard_image_goes_on_for_another_round():
    images = np.concatenate([special_images(9)["black"], special_images(9)["noise"]])
    result = encoder(steps=5, gaussians=6, target_psnr=60.0, rounds=2).fit(images)
    assert result.steps.tolist() == [0, 15]
    once = encoder(steps=5, gaussians=6, target_psnr=60.0).fit(images)
    assert quality(result, images)[1] > quality(once, images)[1]


def test_a_fit_can_be_stopped():
    with pytest.raises(InterruptedError):
        encoder().fit(smooth_images(2, 9), should_stop=lambda: True)


def test_a_stopped_fit_keeps_the_slabs_that_are_done():
    images = smooth_images(4, 6)
    whole = encoder(steps=1).fit(images)
    # Asked before a slab's start and before its launch: the third slab is the first that is refused.
    looks = iter([False] * 4 + [True] * 1000)
    with pytest.raises(FitStoppedError) as stopped:
        encoder(steps=1, batch=1).fit(images, should_stop=lambda: next(looks))
    result, finished = stopped.value.result, stopped.value.finished
    assert finished.tolist() == [True, True, False, False]
    np.testing.assert_array_equal(result.splats[:2], whole.splats[:2])
    np.testing.assert_array_equal(result.steps, [1, 1, 0, 0])
    assert not result.splats[2:].any()


def test_a_stopped_fit_leaves_what_the_device_still_works_on(monkeypatch):
    from encoders.cuda import slabs

    looks = iter([False] * 2 + [True] * 1000)
    monkeypatch.setattr(slabs, "is_idle", lambda _: False)
    with pytest.raises(FitStoppedError) as stopped:
        encoder(steps=1, batch=1).fit(smooth_images(2, 6), should_stop=lambda: next(looks))
    assert not stopped.value.finished.any()


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("gaussians", [1, 3])
def test_any_k_any_size_and_any_image_give_exactly_k_valid_gaussians(gaussians, codec):
    for height, width in ((1, 1), (1, 9), (5, 3)):
        result = encoder(gaussians=gaussians, steps=2, codec=codec).fit(noise(height, width, 3))
        assert result.splats.shape == (1, gaussians, 8)
        assert np.isfinite(result.splats).all()
    for name, image in special_images(7).items():
        splats = encoder(gaussians=gaussians, steps=1, codec=codec).fit(image).splats
        assert np.isfinite(splats).all(), name
        assert (splats[..., :2] > 0).all(), name
        assert ((splats[..., 3:-2] >= 0) & (splats[..., 3:-2] <= 1)).all(), name


def test_without_steps_the_start_comes_back():
    images = smooth_images(2, 9)
    result = encoder(steps=0, start="grid").fit(images)
    assert result.steps.tolist() == [0, 0]
    starts = begin(images, FitSettings(8, steps=0, start="grid"))
    np.testing.assert_array_equal(result.splats, to_splats(starts, 9, 9))


def test_no_images_give_no_splats():
    assert encoder().fit(smooth_images()[:0]).splats.shape == (0, 8, 8)


@pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
def test_the_check_of_a_card_compares_equal_fits(codec):
    """What ``--engine auto`` asks of a GPU (``encoders.cuda.self_check``), with fewer images and steps."""
    found = compare(codec, 1, "fused", device="cpu", images=1, steps=6)
    assert found["cuda"] == pytest.approx(found["cpu"], abs=0.05)
