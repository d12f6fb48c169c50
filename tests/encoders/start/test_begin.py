"""Anchors and starts: exact counts, smoothness, seeds."""

import numpy as np
import pytest

from encoders.base import FitSettings
from encoders.engines import create_encoder
from encoders.frame import X, Y
from encoders.start.begin import anchors, begin
from tests.encoders.splat_examples import smooth_images


@pytest.mark.parametrize(("height", "width"), [(28, 28), (32, 64), (64, 32), (1, 1), (1, 50)])
@pytest.mark.parametrize("gaussians", [1, 2, 3, 7, 70, 150, 200, 500])
def test_anchors_are_exactly_k_distinct_points_inside(gaussians, height, width):
    points = anchors(gaussians, height, width)
    assert points.shape == (gaussians, 2)
    assert (np.abs(points) < 1).all()
    assert len(np.unique(points, axis=0)) == gaussians
    np.testing.assert_allclose(points.mean(axis=0), 0, atol=0.5 / gaussians**0.5)


def nearly_equal_images(size=20):
    """An image, and the same with soft noise of two 8-bit levels."""
    images = smooth_images(3, size).astype(int)
    noise = np.random.default_rng(3).integers(-2, 3, images.shape)
    return images.astype(np.uint8), np.clip(np.where(images > 0, images + noise, 0), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("start", ["transport", "grid"])
def test_nearly_equal_images_give_nearly_equal_arrays_slot_by_slot(start):
    first, second = nearly_equal_images()
    encoder = create_encoder("cpu", FitSettings(gaussians=30, steps=100, start=start))
    one, other = encoder.fit(first).splats, encoder.fit(second).splats
    # Positions of a slot in pixels; across slots they differ by the size of the image.
    moved = np.hypot(*np.moveaxis((one - other)[..., -2:], -1, 0)) * 10
    assert np.median(moved) < 0.25
    assert np.mean(moved) < 0.6
    apart = np.hypot(*np.moveaxis((one - np.roll(other, 1, axis=1))[..., -2:], -1, 0)) * 10
    assert np.median(apart) > 8 * np.median(moved)


def test_transport_moves_gaussians_to_the_light():
    image = np.zeros((1, 32, 32, 1), np.uint8)
    image[0, 20:30, 4:14] = 255
    frame = begin(image, FitSettings(gaussians=40, start="transport"))[0]
    inside = (frame[:, X] > 2) & (frame[:, X] < 16) & (frame[:, Y] > 18) & (frame[:, Y] < 32)
    assert inside.mean() > 0.85
    grid = begin(image, FitSettings(gaussians=40, start="grid"))[0]
    np.testing.assert_allclose(grid[:, X] / 16 - 1, anchors(40, 32, 32)[:, 0], atol=1e-6)


def test_transport_keeps_the_order_of_the_anchors():
    image = np.zeros((1, 32, 32, 1), np.uint8)
    image[0, 8:24, 8:24] = 200
    frame = begin(image, FitSettings(gaussians=64, start="transport"))[0]
    x, y = frame[:, X].reshape(8, 8), frame[:, Y].reshape(8, 8)
    assert (np.diff(x, axis=1) > 0).all()
    assert (np.diff(y, axis=0) > 0).all()


def test_transport_survives_all_mass_in_a_corner():
    image = np.zeros((1, 64, 64, 3), np.uint8)
    image[0, -1, -1] = 255
    frame = begin(image, FitSettings(gaussians=100, start="transport"))[0]
    assert np.isfinite(frame).all()
    assert ((frame[:, X] >= 0) & (frame[:, X] <= 64)).all()
    assert np.median(frame[:, X]) > 40


def test_adaptive_depends_on_the_seed_and_nothing_else():
    images = smooth_images(4)
    one = begin(images, FitSettings(gaussians=20, start="adaptive", seed=1))
    np.testing.assert_array_equal(one[2:3], begin(images[2:3], FitSettings(gaussians=20, start="adaptive", seed=1)))
    assert not np.array_equal(one, begin(images, FitSettings(gaussians=20, start="adaptive", seed=2)))


@pytest.mark.parametrize("start", ["transport", "grid"])
def test_other_starts_hold_no_random_numbers(start):
    images = smooth_images(2)
    one, other = (begin(images, FitSettings(gaussians=20, start=start, seed=seed)) for seed in (1, 2))
    np.testing.assert_array_equal(one, other)


def test_many_gaussians_reach_the_edges():
    # A blunt last level would draw them inwards by its own width, five pixels here.
    image = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 1), dtype=np.uint8)
    frame = begin(image, FitSettings(gaussians=1500, start="transport"))[0]
    assert frame[:, X].min() < 2.5
    assert frame[:, X].max() > 61.5
    assert frame[:, Y].min() < 2.5
