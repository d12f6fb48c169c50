"""PSNR and SSIM against scikit-image."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from encoders.quality import psnr, psnr_of_error, psnr_of_mean_error, squared_error, ssim


def pair(shape, noise=12):
    rng = np.random.default_rng(0)
    first = rng.integers(0, 256, shape, dtype=np.uint8)
    second = np.clip(first.astype(int) + rng.integers(-noise, noise + 1, shape), 0, 255).astype(np.uint8)
    return first, second


@pytest.mark.parametrize("shape", [(4, 28, 28, 1), (4, 32, 32, 3), (2, 7, 31, 3), (2, 64, 9, 1)])
def test_psnr_and_ssim_are_those_of_scikit_image(shape):
    first, second = pair(shape)
    expected = [peak_signal_noise_ratio(b, a, data_range=255) for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(psnr(first, second), expected, rtol=1e-6)
    expected = [
        structural_similarity(a, b, channel_axis=-1, data_range=255) for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(ssim(first, second), expected, atol=1e-6)


@pytest.mark.parametrize(("side", "window"), [(3, 3), (4, 3), (6, 5)])
def test_ssim_of_small_images_uses_the_greatest_odd_window(side, window):
    first, second = pair((2, side, 9, 3))
    expected = [
        structural_similarity(a, b, channel_axis=-1, data_range=255, win_size=window)
        for a, b in zip(first, second, strict=True)
    ]
    np.testing.assert_allclose(ssim(first, second), expected, atol=1e-6)


def test_one_pixel_has_a_similarity():
    first = np.array([[[[10]]], [[[10]]]], np.uint8)
    second = np.array([[[[10]]], [[[200]]]], np.uint8)
    values = ssim(first, second)
    assert values[0] == pytest.approx(1)
    assert 0 < values[1] < 0.2


def test_identical_images_have_infinite_psnr_and_similarity_one():
    first, _ = pair((2, 16, 16, 3))
    assert np.isinf(psnr(first, first)).all()
    np.testing.assert_allclose(ssim(first, first), 1)


def test_error_of_the_greatest_difference_does_not_overflow():
    assert (
        squared_error(np.zeros((1, 300, 300, 3), np.uint8), np.full((1, 300, 300, 3), 255, np.uint8)) == 255**2 * 270000
    )


def test_psnr_of_the_mean_error():
    assert psnr_of_mean_error(np.array([30.0, 30.0])) == pytest.approx(30)
    assert psnr_of_mean_error(np.array([30.0, np.inf])) == pytest.approx(30 + 10 * math.log10(2))
    assert psnr_of_mean_error(np.array([30.0, np.nan])) == pytest.approx(30)
    assert psnr_of_mean_error(np.array([np.inf])) == math.inf
    assert math.isnan(psnr_of_mean_error(np.array([np.nan])))
    assert psnr_of_error(0.001) == pytest.approx(30)
    assert psnr_of_error(0.0) == math.inf


@pytest.mark.parametrize("measure", [psnr, ssim])
def test_different_shapes_are_refused(measure):
    with pytest.raises(ValueError, match=r"shape|images"):
        measure(np.zeros((1, 8, 8, 3), np.uint8), np.zeros((1, 8, 9, 3), np.uint8))
