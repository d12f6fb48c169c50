"""Starts in batched torch, on the CPU, against the compiled ones."""

import numpy as np
import pytest
import torch

from data_schemas.splats import ADDITIVE, NORMALISED
from encoders.base import FitSettings
from encoders.cuda import start
from encoders.frame import COLOUR, LOG_A, Y
from encoders.start.begin import StartRecipe, begin
from tests.encoders.splat_examples import smooth_images, special_images


def both(images, **settings):
    """The start by the compiled code and by torch."""
    made = FitSettings(**{"gaussians": 30, **settings})
    recipe = StartRecipe()
    return begin(images, made, recipe), start.begin_on_device(torch.tensor(images), made, recipe).numpy()


def assert_same(expected, result):
    """To a hundredth of a pixel, and what follows from the places."""
    np.testing.assert_allclose(result[..., : Y + 1], expected[..., : Y + 1], atol=0.01)
    np.testing.assert_allclose(result[..., LOG_A:COLOUR], expected[..., LOG_A:COLOUR], atol=0.02)
    np.testing.assert_allclose(result[..., COLOUR:], expected[..., COLOUR:], atol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["grid", "transport"])
@pytest.mark.parametrize("codec", [ADDITIVE, NORMALISED])
@pytest.mark.parametrize(
    ("gaussians", "channels", "size"), [(30, 3, 20), (70, 1, 28), (1, 3, 9), (3, 1, 7), (301, 3, 24)]
)
def test_starts_are_those_of_the_compiled_code(gaussians, channels, size, codec, kind):
    images = smooth_images(5, size, channels)
    assert_same(*both(images, gaussians=gaussians, codec=codec, start=kind))


@pytest.mark.parametrize("name", sorted(special_images()))
def test_special_images(name):
    expected, result = both(special_images()[name])
    assert np.isfinite(result).all()
    assert_same(expected, result)


def test_a_wide_image_with_few_rows():
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 40, 3), dtype=np.uint8)
    assert_same(*both(images, gaussians=17))


@pytest.mark.slow
def test_an_image_begins_the_same_in_any_batch():
    images = smooth_images(7, 16)
    _, whole = both(images)
    _, alone = both(images[4:5])
    np.testing.assert_array_equal(whole[4:5], alone)


@pytest.mark.slow
def test_parts_of_bounded_size_give_the_same_start(monkeypatch):
    images = smooth_images(3, 16)
    expected, _ = both(images)
    monkeypatch.setattr(start, "_NUMBERS", 100)
    assert_same(*both(images))
    assert_same(expected, both(images)[1])


@pytest.mark.slow
def test_an_image_whose_transport_overflows_keeps_the_last_level_that_did_not(monkeypatch):
    # Two images of one batch that stop at different levels.
    images = np.concatenate([smooth_images(1, 16), special_images(16)["one pixel"]])
    expected, _ = both(images)
    from encoders.start import transport as start_kernel

    assert pytest.approx(float(start_kernel._GREATEST_SPREAD)) == start._GREATEST_SPREAD
    monkeypatch.setattr(start, "_GREATEST_SPREAD", 1e12)
    _, blunt = both(images)
    assert 0.05 < np.abs(blunt[0] - expected[0]).max() < 1
    assert_same(expected[1], blunt[1])


def test_precision_of_matrix_products_is_given_back():
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        assert_same(*both(smooth_images(2, 16)))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_only_the_adaptive_start_is_left_to_the_processor():
    kinds = {kind: start.starts_on_device(FitSettings(3, start=kind)) for kind in ("grid", "transport", "adaptive")}
    assert kinds == {"grid": True, "transport": True, "adaptive": False}
